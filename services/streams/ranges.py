"""Read one partition from one offset to another, without a group: for rebuilding and comparing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from services.streams.base import Records, StreamsError
from services.streams.clients import COMMON, GROUPLESS, REQUEST_TIMEOUT_S, count_partitions, describe, to_records
from services.streams.connection import KafkaConnection

POLL_S: Final = 0.2
POLLS_MAX: Final = 150
"""Polls without a record, 30 s in all, after which the log is taken for stuck."""
_NO_SUCH: Final = (KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART)  # noqa: SLF001 - the client's public error codes


def visible_extent(connection: KafkaConnection, topic: str, partition: int, since_ms: int = 0) -> tuple[int, int]:
    """Return from where to where a partition holds what is committed; nothing where there is no such topic. Raises StreamsError.

    Where a time is given, it begins at the first record whose timestamp is that or a later one.
    """
    consumer = Consumer(connection.consumer(COMMON | GROUPLESS))
    try:
        extent = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=REQUEST_TIMEOUT_S)
        if extent is not None and since_ms:
            extent = (
                max(extent[0], _first_since(consumer, TopicPartition(topic, partition, since_ms), extent[1])),
                extent[1],
            )
    except KafkaException as error:
        if error.args[0].code() in _NO_SUCH:
            return 0, 0
        raise StreamsError(f"{topic} {partition}: {describe(error)}") from error
    finally:
        consumer.close()
    if extent is None:
        raise StreamsError(f"{topic} {partition}: nobody says where it ends")
    return extent


def _first_since(consumer: Consumer, asked: TopicPartition, end: int) -> int:
    """Return the first offset whose record has the timestamp that is asked for, or a later one; the end if there is none."""
    [found] = consumer.offsets_for_times([asked], REQUEST_TIMEOUT_S)
    if found.error is not None:
        raise KafkaException(found.error)
    return int(found.offset) if found.offset >= 0 else end


COUNT_POLLS_MAX: Final = 5
"""Polls without a record after which whoever only counts takes the rest for records."""


def count_records(connection: KafkaConnection, topic: str, partition: int, extent: tuple[int, int]) -> int:
    """Return how many offsets of [begin, end) hold a record that is committed; those that cannot be read soon count, too.

    For short ranges: it reads them. The marks of atomic commits are no records. Raises StreamsError.
    """
    begin, end = extent
    consumer = Consumer(connection.consumer(COMMON | GROUPLESS))
    consumer.assign([TopicPartition(topic, partition, begin)])
    position, quiet, found = begin, 0, 0
    try:
        while position < end and quiet < COUNT_POLLS_MAX:
            message = consumer.poll(POLL_S)
            if message is None:
                quiet += 1
                position = max(position, consumer.position([TopicPartition(topic, partition)])[0].offset)
            elif message.error() is not None:
                raise StreamsError(f"{topic} {partition} at {position}: {describe(message.error())}")
            else:
                found, position = found + (message.offset() < end), message.offset() + 1
    finally:
        consumer.close()
    return found + max(0, end - position)


def read_range(
    connection: KafkaConnection, topic: str, partition: int, extent: tuple[int, int], records_max: int = 5_000
) -> Iterator[Records]:
    """Yield the records of [begin, end) in batches; ends when the position has reached the end, not at a certain record.

    An offset may hold no record (the marks of atomic commits take some), so the last one need not be ``end - 1``.

    Raises:
        StreamsError: a record of the range is gone, or none came for a while.
    """
    return (records for records in poll_range(connection, topic, partition, extent, records_max) if len(records))


def poll_range(
    connection: KafkaConnection, topic: str, partition: int, extent: tuple[int, int], records_max: int
) -> Iterator[Records]:
    """Yield the same, and an empty batch whenever none came for ``POLL_S``: for whoever has something else to keep up meanwhile."""
    begin, end = extent
    consumer = Consumer(connection.consumer(COMMON | GROUPLESS))
    try:
        partitions = count_partitions(consumer, topic)
        consumer.assign([TopicPartition(topic, partition, begin)])
        position, quiet = begin, 0
        while position < end:
            first = consumer.poll(POLL_S)
            if first is None:
                position = max(position, consumer.position([TopicPartition(topic, partition)])[0].offset)
                quiet += 1
                if quiet > POLLS_MAX:
                    raise StreamsError(f"{topic} {partition} gives no records between {position} and {end}")
                yield to_records(topic, [], partitions)
                continue
            quiet = 0
            messages = [first, *consumer.consume(records_max - 1, 0)]
            for message in messages:
                if message.error() is not None:
                    raise StreamsError(f"{topic} {partition} at {position}: {describe(message.error())}")
            records = to_records(topic, messages, partitions)
            position = int(records.offset[-1]) + 1
            yield records.take(records.offset < end)
    finally:
        consumer.close()
