"""Read whole topics without being a member of any group: for people who look, and for checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from services.streams.base import Records, StreamsError
from services.streams.clients import (
    COMMON,
    GROUPLESS,
    REQUEST_TIMEOUT_S,
    ConnectionErrors,
    describe,
    failure,
    to_records,
)
from services.streams.connection import KafkaConnection

_READER: Final = {
    "auto.offset.reset": "earliest",
    "fetch.min.bytes": 1,
    "queued.max.messages.kbytes": 65_536,
}


class KafkaReader:
    """Reads all partitions of some topics, from their beginning or from their end, as of its construction."""

    def __init__(
        self,
        connection: KafkaConnection,
        topics: Sequence[str],
        *,
        from_beginning: bool,
        since_ms: int | None = None,
        fetch_wait_ms: int = 10,
    ) -> None:
        """Begin to read.

        Args:
            connection: the Kafka.
            topics: what is read.
            from_beginning: whether from the oldest record; else what comes from now on.
            since_ms: instead of either, the records whose Kafka timestamp is this or later, and what lies behind the first of them.
            fetch_wait_ms: how long an idle broker waits before it answers.

        Raises:
            StreamsError: Kafka does not answer, or has no such topic.
        """
        # A broker answers as soon as there is a byte; how often an idle one is asked is what the wait says.
        own, errors = {"fetch.wait.max.ms": fetch_wait_ms}, ConnectionErrors()
        self._consumer = Consumer(connection.consumer(COMMON | GROUPLESS | _READER | own) | {"error_cb": errors})
        self._topics = tuple(topics)
        try:
            partitions = [tp for topic in topics for tp in self._partitions(topic)]
            highs = []
            for tp in partitions:
                low, high = self._consumer.get_watermark_offsets(tp, REQUEST_TIMEOUT_S)
                tp.offset = low if from_beginning else high
                highs.append(high)
            if since_ms is not None:
                self._begin_at(partitions, highs, since_ms)
        except KafkaException as error:
            raise failure(connection, error, errors.reported(error, self._consumer, connection)) from None
        self._consumer.assign(partitions)
        self._left = {
            (tp.topic, tp.partition): high for tp, high in zip(partitions, highs, strict=True) if tp.offset < high
        }

    def _begin_at(self, partitions: Sequence[TopicPartition], highs: Sequence[int], since_ms: int) -> None:
        asked = [TopicPartition(tp.topic, tp.partition, since_ms) for tp in partitions]
        for tp, high, found in zip(
            partitions, highs, self._consumer.offsets_for_times(asked, REQUEST_TIMEOUT_S), strict=True
        ):
            if found.error is not None:
                raise KafkaException(found.error)
            tp.offset = found.offset if found.offset >= 0 else high  # none so late: what comes from now on

    def _partitions(self, topic: str) -> list[TopicPartition]:
        metadata = self._consumer.list_topics(topic, timeout=REQUEST_TIMEOUT_S).topics[topic]
        if metadata.error is not None:
            raise StreamsError(f"there is no topic {topic}: create the topics with `proact topics apply`")
        return [TopicPartition(topic, p) for p in metadata.partitions]

    def read(self, timeout_s: float, records_max: int = 5_000) -> Iterator[Records]:
        """Yield what is there, a batch a topic; wait for a first record until the time is over. Raises StreamsError."""
        try:
            first = self._consumer.poll(timeout_s)
            if first is None:
                return
            messages = [first, *self._consumer.consume(records_max - 1, 0)]
        except KafkaException as error:
            raise StreamsError(describe(error)) from error
        for topic in self._topics:
            mine = [m for m in messages if m.error() is None and m.topic() == topic]
            if mine:
                yield to_records(topic, mine)

    def caught_up(self) -> bool:
        """Whether all that was there at construction has been read. Raises StreamsError."""
        if self._left:
            wanted = [TopicPartition(topic, partition) for topic, partition in self._left]
            try:
                positions = self._consumer.position(wanted)
            except KafkaException as error:
                raise StreamsError(describe(error)) from error
            for tp in positions:
                if tp.offset >= self._left[tp.topic, tp.partition]:
                    del self._left[tp.topic, tp.partition]
        return not self._left

    def close(self) -> None:
        """Release the client."""
        self._consumer.close()
