"""The two guarantees on Kafka: outputs and offsets in one atomic commit, or one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from services.streams.atomic import FencedError
from services.streams.background import ThreadBackground
from services.streams.base import KafkaAwayError, Output, StreamsError
from services.streams.clients import ATOMIC, COMMON, PRODUCER, REQUEST_TIMEOUT_S, describe, failure
from services.streams.connection import KafkaConnection
from services.streams.kafka import KafkaSource

FLUSH_S: Final = 3.0
"""How long Kafka may take to acknowledge a batch's outputs before they count as in doubt."""
_QUEUE_TRIES: Final = 20
_FENCED: Final = (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH)  # noqa: SLF001 - the client's public error codes


def queue_records(producer: Producer, output: Output, on_delivery: Any = None) -> None:
    """Queue records; what the client's queue has no room for is queued again. Raises StreamsError when it stays full."""
    messages = [{"key": key, "value": value} for key, value in zip(output.keys, output.values, strict=True)]
    for _ in range(_QUEUE_TRIES):
        # It reports what it could not queue by a short count, and marks each such record.
        if producer.produce_batch(output.topic, messages, on_delivery=on_delivery) == len(messages):
            return
        messages = [{k: v for k, v in m.items() if k != "_error"} for m in messages if "_error" in m]
        producer.poll(0.05)
    raise StreamsError("the producer's queue stays full")


@contextmanager
def _doubts() -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        kind = FencedError if error.args[0].code() in _FENCED else StreamsError
        raise kind(f"an atomic commit is in doubt: {describe(error)}") from error


@contextmanager
def _away(connection: KafkaConnection) -> Iterator[None]:
    """Tell an outage from a doubt: before a producer is open there is no commit that could be in one."""
    try:
        yield
    except KafkaException as error:
        wrapped = failure(connection, error)
        if isinstance(wrapped, KafkaAwayError):
            raise wrapped from error
        raise


class KafkaAtomicProducer:
    """See :class:`services.streams.atomic.AtomicProducer`; commits offsets of one topic."""

    def __init__(self, connection: KafkaConnection, topic: str, transactional_id: str) -> None:
        settings = connection.producer(COMMON | ATOMIC | {"transactional.id": transactional_id})
        self._topic = topic
        self._trouble = False
        self._producer = Producer(settings | {"error_cb": self._on_error})
        with _doubts(), _away(connection):
            self._producer.init_transactions(REQUEST_TIMEOUT_S)
            self._producer.poll(0)
        self._trouble = False
        # A thread for each call would take as long as Kafka's answer to one of them.
        self._calls = ThreadBackground("ends commits")

    def _on_error(self, error: KafkaError) -> None:  # noqa: ARG002 - any error of a connection is one too many
        self._trouble = True

    def _bounded(self, call: Callable[[], None]) -> None:
        """Run a call of the client that may never come back (it does not keep its own timeout while a coordinator is away)."""
        self._calls.start(call)
        self._calls.wait(REQUEST_TIMEOUT_S + 0.5)
        if not self._calls.ended():
            raise StreamsError("an atomic commit is in doubt: the client does not come back")
        self._calls.join()

    def begin(self) -> None:
        """See :class:`services.streams.atomic.AtomicProducer`."""
        with _doubts():
            self._producer.begin_transaction()

    def queue(self, output: Output) -> None:
        """See :class:`services.streams.atomic.AtomicProducer`."""
        with _doubts():
            queue_records(self._producer, output)

    def add_offsets(self, offsets: Mapping[int, int], member: Any) -> None:
        """See :class:`services.streams.atomic.AtomicProducer`; the member is what the source calls its group metadata."""
        assert all(offset >= 0 for offset in offsets.values()), "the client drops logical offsets without a word"
        wanted = [TopicPartition(self._topic, p, offset) for p, offset in offsets.items()]
        producer = self._producer
        with _doubts():
            self._bounded(lambda: producer.send_offsets_to_transaction(wanted, member, REQUEST_TIMEOUT_S))

    def flush(self) -> None:
        """See :class:`services.streams.atomic.AtomicProducer`."""
        with _doubts():  # serving callbacks raises, too, when the client has been fenced
            if self._producer.flush(FLUSH_S):
                raise StreamsError("outputs were not acknowledged in time")

    def commit(self) -> None:
        """See :class:`services.streams.atomic.AtomicProducer`."""
        producer = self._producer
        with _doubts():
            self._bounded(lambda: producer.commit_transaction(REQUEST_TIMEOUT_S))

    def troubled(self) -> bool:
        """See :class:`services.streams.atomic.AtomicProducer`."""
        with _doubts():
            self._producer.poll(0)  # serves the errors of connections, if there were any
        return self._trouble

    def close(self) -> None:
        """See :class:`services.streams.atomic.AtomicProducer`."""
        # Purging and destroying a client wait for what it has under way, which may be for ever: not on the worker's thread.
        held = [self.__dict__.pop("_producer")]
        self._calls.start(held.clear)
        self._calls.close()


class RepeatingPublisher:
    """At least once: outputs acknowledged, then offsets committed. See :class:`services.streams.Publisher`."""

    confirmed = False

    def __init__(self, connection: KafkaConnection, source: KafkaSource) -> None:
        self._confirmed: dict[int, int] = {}
        self._settings = connection.producer(COMMON | PRODUCER)
        self._source = source
        self._producer: Producer | None = None
        self._failure: str | None = None

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:  # noqa: ARG002
        # Never raises: an exception in here would replace the result of whatever call served it.
        if error is not None:
            self._failure = describe(error)

    def open(self) -> None:
        """See :class:`services.streams.Publisher`: what is still queued is dropped with its client; it will be sent again."""
        self.close()
        self._producer, self._failure, self._confirmed = Producer(self._settings), None, {}

    def publish(self, outputs: Sequence[Output], offsets: Mapping[int, int]) -> None:  # noqa: ARG002 - they are committed later
        """See :class:`services.streams.Publisher`: the client sends what is queued, in its order; nobody waits for it before :meth:`confirm`."""
        assert self._producer is not None, "not open"
        try:
            for output in outputs:
                queue_records(self._producer, output, self._on_delivery)
            self._producer.poll(0)
        except KafkaException as error:
            raise StreamsError(f"outputs were not acknowledged: {describe(error)}") from error
        self._check()

    def confirm(self, offsets: Mapping[int, int]) -> None:
        """See :class:`services.streams.Publisher`."""
        assert self._producer is not None, "not open"
        ahead = {p: offset for p, offset in offsets.items() if offset > self._confirmed.get(p, -1)}
        if not ahead:
            return
        try:
            if self._producer.flush(FLUSH_S):
                raise StreamsError("outputs were not acknowledged in time")
        except KafkaException as error:
            raise StreamsError(f"outputs were not acknowledged: {describe(error)}") from error
        self._check()
        self._source.commit(ahead)
        self._confirmed |= ahead

    def _check(self) -> None:
        if self._failure is not None:
            raise StreamsError(f"outputs were not acknowledged: {self._failure}")

    def close(self) -> None:
        """See :class:`services.streams.Publisher`."""
        if self._producer is not None:
            with suppress(KafkaException):
                self._producer.purge()
            self._producer = None
