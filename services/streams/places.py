"""Read single records of Kafka's topics, wherever they lie: for whoever is pointed to a record by its partition and offset."""

from __future__ import annotations

from typing import Final

import numpy as np
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from services.core.columns import type_i64
from services.streams.base import AtPlaces, StreamsError
from services.streams.clients import COMMON, GROUPLESS, REQUEST_TIMEOUT_S, count_partitions, describe
from services.streams.connection import KafkaConnection
from services.streams.stretches import stretches_of

POLL_S: Final = 0.1
RECORDS_MAX: Final = 5_000
POLLS_MAX: Final = 30
"""Polls without a record, 3 s in all, after which the log is taken for stuck."""
_READER: Final = {
    "fetch.min.bytes": 1,
    "fetch.wait.max.ms": 10,  # what is asked for is there
    "queued.min.messages": RECORDS_MAX,  # nothing behind the last place is of interest
    "queued.max.messages.kbytes": 8_192,
    "fetch.queue.backoff.ms": 5,  # a full queue is no reason to wait with the next stretch; the default is 1 s
}


class KafkaPlaces:
    """See :class:`services.streams.PlaceReader`."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._consumer = Consumer(connection.consumer(COMMON | GROUPLESS | _READER))

    def read(self, topic: str, partition: type_i64, offset: type_i64) -> AtPlaces:
        """See :class:`services.streams.PlaceReader`."""
        found, lies = AtPlaces.nothing(len(partition)), np.zeros(len(partition), bool)
        count = count_partitions(self._consumer, topic)
        try:
            for p in [p for p in np.unique(partition).tolist() if 0 <= p < count]:
                mine = partition == p
                low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, p), REQUEST_TIMEOUT_S)
                found.may_come[mine & (offset >= high)] = True
                lies |= mine & (offset >= max(low, 0)) & (offset < high)
            stretches, unread = stretches_of(partition, offset, np.flatnonzero(lies))
            found.unread[unread] = True
            for rows in stretches:
                self._read_stretch((topic, int(partition[rows[0]])), rows, offset, found)
        except KafkaException as error:
            raise StreamsError(describe(error)) from error
        finally:
            self._consumer.unassign()  # else it would fetch on
        return found

    def _read_stretch(self, place: tuple[str, int], rows: list[int], offset: type_i64, found: AtPlaces) -> None:
        """Fill in what lies at some rows' places of one partition, which ascend, of which some may hold nothing. Raises StreamsError."""
        wanted: dict[int, list[int]] = {}
        for row in rows:
            wanted.setdefault(int(offset[row]), []).append(row)
        begin, end = min(wanted), max(wanted) + 1
        at = TopicPartition(*place, begin)
        self._consumer.assign([at])
        position, quiet = begin, 0
        while position < end:
            first = self._consumer.poll(POLL_S)
            if first is None:
                position = max(position, self._consumer.position([at])[0].offset)
                quiet += 1
                if position < end and quiet > POLLS_MAX:
                    raise StreamsError(f"{place[0]} {place[1]} gives no record between {position} and {end}")
                continue
            quiet = 0
            for message in (first, *self._consumer.consume(RECORDS_MAX - 1, 0)):
                position = _note(message, wanted, found)

    def close(self) -> None:
        """See :class:`services.streams.PlaceReader`."""
        self._consumer.close()


def _note(message: Message, wanted: dict[int, list[int]], found: AtPlaces) -> int:
    """Keep a record where it is wanted, and return the offset behind it. Raises StreamsError."""
    error = message.error()
    if error is not None:
        raise StreamsError(describe(error))
    at = int(message.offset())
    for row in wanted.get(at, ()):
        found.keys[row], found.values[row] = message.key(), message.value()
        found.there[row] = True
    return at + 1
