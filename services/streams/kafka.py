"""Kafka behind the contracts of :mod:`services.streams.base`: with :mod:`.admin`, the only place for confluent_kafka."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

import confluent_kafka
import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from services.streams.base import Assignment, LogState, Records, StreamsError
from services.streams.committer import SERVE_S, Committer

REQUEST_TIMEOUT_S: Final = 3.0  # bounds a shutdown during an outage
PROBE_TIMEOUT_S: Final = 1.0
HELD_MAX: Final = 5_000
"""Records that are held while a commit is waited for; beyond them the partitions are paused."""

COMMON: Final[dict[str, Any]] = {
    "client.id": "proact",
    "allow.auto.create.topics": False,  # topics come from schemas/, with their settings
    "socket.timeout.ms": 3_000,  # bounds a commit that nobody answers, and so a shutdown; the default is 60 s
    "socket.nagle.disable": True,  # a small answer must not wait for the next one
    "reconnect.backoff.max.ms": 1_000,  # back within a second of the broker; the default is 10 s
    "log_level": 0,  # an outage is ours to report, once, and in our format
}
_CONSUMER: Final[dict[str, Any]] = {
    "enable.auto.commit": False,  # the worker commits, after its outputs
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",  # every start is at an explicit offset; skipping records is never an answer
    "check.crcs": True,  # a flipped bit must not become a decision; off by default
    "isolation.level": "read_committed",  # and so committed() is the stable offset
    "partition.assignment.strategy": "range",  # eager: one owner at a time, without overlap
    "max.poll.interval.ms": 15_000,  # a stuck worker gives its partitions up; the default is 5 minutes
    "fetch.wait.max.ms": 50,  # an idle partition must not delay the others
    "fetch.min.bytes": 1,
    "fetch.error.backoff.ms": 50,
    "queued.min.messages": 20_000,  # two or three batches ahead; the default of 100,000 is memory for nothing
    "queued.max.messages.kbytes": 32_768,
}
_PRODUCER: Final[dict[str, Any]] = {
    "acks": "all",
    "enable.idempotence": True,  # a retry neither doubles nor reorders
    "partitioner": "murmur2_random",  # as the Java clients: a key is in the same partition whoever writes it
    "linger.ms": 0,  # a batch of ours is queued at once, so waiting for more only costs time
    "retry.backoff.ms": 10,
    "delivery.report.only.error": True,  # a callback a record only where it failed
    "message.timeout.ms": 120_000,  # an outage is waited out by the worker, not by failing records
    "queue.buffering.max.messages": 500_000,
    "queue.buffering.max.kbytes": 524_288,
    "batch.num.messages": 10_000,
    "batch.size": 100_000,  # a topic's max.message.bytes bounds whole batches, not records: stay below it
}


def describe(error: KafkaException | KafkaError) -> str:
    """Return an error's name and words."""
    inner = error.args[0] if isinstance(error, KafkaException) else error
    return f"{inner.name()}: {inner.str()}" if isinstance(inner, KafkaError) else str(inner)


def to_records(topic: str, messages: list[Message]) -> Records:
    """Return messages as a batch: the one loop over the client's objects that cannot be avoided."""
    n = len(messages)
    return Records(
        topic,
        np.fromiter((m.partition() for m in messages), np.int64, n),
        np.fromiter((m.offset() for m in messages), np.int64, n),
        np.fromiter((m.timestamp()[1] for m in messages), np.int64, n),
        [m.key() for m in messages],
        [m.value() for m in messages],
    )


def _park(client: Consumer) -> None:
    """Keep a client from being destroyed, which would wait for its broker: the process is about to end.

    What the frame of a daemon thread holds is not destroyed when the interpreter ends.
    """
    threading.Thread(target=lambda _kept: threading.Event().wait(), args=(client,), name="parked", daemon=True).start()


class KafkaSource:
    """A member of a consumer group on one topic: see :class:`services.streams.Source` for the protocol."""

    def __init__(self, bootstrap_servers: str, group_id: str, topic: str, session_timeout_ms: int = 6_000) -> None:
        self._topic = topic
        settings = COMMON | _CONSUMER
        settings |= {"bootstrap.servers": bootstrap_servers, "group.id": group_id}
        # A crashed worker's partitions move after this long; heartbeats three times as often.
        settings |= {"session.timeout.ms": session_timeout_ms, "heartbeat.interval.ms": session_timeout_ms // 3}
        self._committer = Committer(self._serve)
        self._moment = threading.Event()  # never set: waiting for it is a pause
        self._consumer = Consumer(settings | {"on_commit": self._committer.on_commit})
        self._admin = AdminClient(COMMON | {"bootstrap.servers": bootstrap_servers})
        self._assignment = Assignment(0, (), member=False)
        self._positions: dict[int, int] = {}
        self._held: list[Message] = []
        self._paused = False
        self._consumer.subscribe([topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Nothing is read before the worker has found out, by start(), from where.
        consumer.assign([])
        self._reassign(tuple(sorted(p.partition for p in partitions)), member=True)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:  # noqa: ARG002
        consumer.unassign()
        self._reassign((), member=False)

    def _reassign(self, partitions: tuple[int, ...], *, member: bool) -> None:
        self._assignment = Assignment(self._assignment.generation + 1, partitions, member)
        self._positions, self._held = {}, []

    @property
    def assignment(self) -> Assignment:
        """See :class:`services.streams.Source`."""
        return self._assignment

    def poll(self, records_max: int, timeout_s: float) -> Records:
        """See :class:`services.streams.Source`."""
        self._resume()
        messages, self._held = self._held[:records_max], self._held[records_max:]
        if not messages:
            first = self._consumer.poll(timeout_s)
            messages = [] if first is None else [first]
        if 0 < len(messages) < records_max:
            # consume() waits its whole timeout for the count it was given, so what is there is taken with none.
            messages += self._consumer.consume(records_max - len(messages), 0)
        return self._to_records(messages)

    def _to_records(self, messages: list[Message]) -> Records:
        kept = [m for m in messages if m.error() is None or self._tolerate(m.error())]
        records = to_records(self._topic, kept)
        n, partition, offset = len(kept), records.partition, records.offset
        # A call that rebalanced may still hand out records of partitions that are gone, or from before a start().
        position = np.array(
            [self._positions.get(p, 2**62) for p in range(int(partition.max(initial=-1)) + 1)], np.int64
        )
        current = offset >= position[partition] if n else np.zeros(0, bool)
        if not current.all():
            records = records.take(current)
        self._positions |= records.next_offsets()
        return records

    def _tolerate(self, error: KafkaError) -> bool:
        """Drop what is only the notice of an outage; raise for what would make a gap."""
        if error.fatal() or error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):  # noqa: SLF001
            raise StreamsError(describe(error))
        return False

    def log_states(self, partitions: Sequence[int]) -> Mapping[int, LogState]:
        """See :class:`services.streams.Source`."""
        self._committer.settle()
        try:
            topic_id = self._topic_id()
            wanted = [TopicPartition(self._topic, p) for p in partitions]
            committed = {tp.partition: tp.offset for tp in self._consumer.committed(wanted, REQUEST_TIMEOUT_S)}
            states = {}
            for tp in wanted:
                low, high = self._consumer.get_watermark_offsets(tp, REQUEST_TIMEOUT_S)
                offset = committed[tp.partition]
                states[tp.partition] = LogState(offset if offset >= 0 else None, low, high, topic_id)
        except KafkaException as error:
            raise StreamsError(describe(error)) from error
        return states

    def _topic_id(self) -> str:
        found = self._admin.describe_topics(
            confluent_kafka.TopicCollection([self._topic]), request_timeout=REQUEST_TIMEOUT_S
        )
        return str(found[self._topic].result().topic_id)

    def start(self, offsets: Mapping[int, int]) -> None:
        """See :class:`services.streams.Source`."""
        assert set(offsets) <= set(self._assignment.partitions), "a partition of somebody else"
        self._positions = dict(offsets)
        self._held = []
        self._consumer.assign([TopicPartition(self._topic, p, offset) for p, offset in offsets.items()])
        # librdkafka keeps a partition's pause through assignments, whoever it was assigned to in between.
        self._paused = True
        self._resume()

    def keep_alive(self, timeout_s: float) -> None:
        """See :class:`services.streams.Source`."""
        if not self._paused:
            self._consumer.pause([TopicPartition(self._topic, p) for p in self._positions])
            self._paused = True
        message = self._consumer.poll(timeout_s)
        if message is not None:  # it was under way when the pause came
            self._held.append(message)

    def _resume(self) -> None:
        if self._paused:
            self._consumer.resume([TopicPartition(self._topic, p) for p in self._positions])
            self._paused = False

    def commit(self, offsets: Mapping[int, int]) -> None:
        """See :class:`services.streams.Source`."""
        wanted = [TopicPartition(self._topic, p, offset) for p, offset in offsets.items()]
        try:
            self._committer.commit(lambda: self._consumer.commit(offsets=wanted, asynchronous=True))
        except KafkaException as error:
            raise StreamsError(describe(error)) from error

    def _serve(self) -> None:
        """Serve callbacks for a moment; a record that comes meanwhile is held for the next poll.

        One record at most: answers overtake records in the client's queue, so there is no need to take more.
        """
        if len(self._held) >= HELD_MAX:
            self.keep_alive(SERVE_S)
        else:
            self._held += self._consumer.consume(1, 0)
            self._moment.wait(SERVE_S)

    def check(self) -> None:
        """See :class:`services.streams.Source`."""
        try:
            self._consumer.list_topics(self._topic, timeout=PROBE_TIMEOUT_S)
        except KafkaException as error:
            raise StreamsError(describe(error)) from error

    def lag(self) -> Mapping[int, int]:
        """See :class:`services.streams.Source`."""
        lags = {}
        for partition, position in self._positions.items():
            _, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
            lags[partition] = max(0, high - position) if high >= 0 else 0
        return lags

    def close(self) -> None:
        """See :class:`services.streams.Source`."""
        if self._committer.pending:
            # Leaving would wait for an answer that does not come; the group notices by the session's timeout.
            _park(self._consumer)
        else:
            self._consumer.close()


class KafkaSink:
    """An idempotent producer: see :class:`services.streams.Sink` for the protocol."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._producer = Producer(COMMON | _PRODUCER | {"bootstrap.servers": bootstrap_servers})
        self._failure: str | None = None

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:  # noqa: ARG002
        # Never raises: an exception in here would replace the result of whatever call served it.
        if error is not None:
            self._failure = describe(error)

    def send(self, topic: str, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> None:
        """See :class:`services.streams.Sink`."""
        self._queue(topic, [{"key": key, "value": value} for key, value in zip(keys, values, strict=True)])

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

    def _queue(self, topic: str, messages: list[dict[str, Any]]) -> None:
        for _ in range(20):
            # It reports what it could not queue by a short count, and marks each such record.
            if self._producer.produce_batch(topic, messages, on_delivery=self._on_delivery) == len(messages):
                return
            messages = [{k: v for k, v in m.items() if k != "_error"} for m in messages if "_error" in m]
            self._producer.poll(0.05)
        self._producer.purge()
        raise StreamsError("the producer's queue stays full")

    def flush(self, timeout_s: float) -> bool:
        """See :class:`services.streams.Sink`."""
        remaining = self._producer.flush(timeout_s)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise StreamsError(f"a record could not be delivered: {failure}")
        return remaining == 0

    def close(self) -> None:
        """See :class:`services.streams.Sink`."""
        self._producer.purge()
        self._producer.flush(1.0)
