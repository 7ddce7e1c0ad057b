"""A plain idempotent producer: for those that send transactions and labels, not for workers."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from services.streams.base import Output, StreamsError
from services.streams.clients import COMMON, PRODUCER, describe
from services.streams.connection import KafkaConnection
from services.streams.publishers import queue_records


class KafkaSink:
    """An idempotent producer: what it sends arrives once, as long as it lives."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._producer = Producer(connection.producer(COMMON | PRODUCER))
        self._failure: str | None = None

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:  # noqa: ARG002
        # Never raises: an exception in here would replace the result of whatever call served it.
        if error is not None:
            self._failure = describe(error)

    def send(self, topic: str, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> None:
        """Queue records; they arrive in this order for each key. Raises StreamsError when the queue stays full."""
        queue_records(self._producer, Output(topic, keys, values), self._on_delivery)

    def send_at(
        self, topic: str, keys: Sequence[bytes | None], values: Sequence[bytes | None], timestamps_ms: Sequence[int]
    ) -> None:
        """Queue records with Kafka timestamps of the caller's: the moments that they were due."""
        # One by one: produce_batch takes no timestamps. Only paced senders come this way, never the scorer.
        for key, value, at in zip(keys, values, timestamps_ms, strict=True):
            try:
                self._producer.produce(topic, value, key, timestamp=at, on_delivery=self._on_delivery)
            except BufferError as error:
                raise StreamsError(f"the producer's queue is full: {error}") from error

    def flush(self, timeout_s: float) -> bool:
        """Wait for everything that was sent. Whether all has been acknowledged; False: call again.

        Raises:
            StreamsError: a record was given up; all that was sent since the last complete flush may be missing.
        """
        try:
            remaining = self._producer.flush(timeout_s)
        except KafkaException as error:
            raise StreamsError(f"the producer is of no use any more: {describe(error)}") from error
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise StreamsError(f"a record could not be delivered: {failure}")
        return remaining == 0

    def close(self) -> None:
        """Give up what is queued and release the client."""
        self._producer.purge()
        self._producer.flush(1.0)
