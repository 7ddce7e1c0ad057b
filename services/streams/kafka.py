"""Kafka behind the contract of :class:`services.streams.Source`: a member of a consumer group."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from services.streams.base import Assignment, LogState, Records, StreamsError, TopicIdentity
from services.streams.clients import (
    COMMON,
    CONSUMER,
    PROBE_TIMEOUT_S,
    REQUEST_TIMEOUT_S,
    ConnectionErrors,
    count_partitions,
    failure,
    to_records,
)
from services.streams.closing import close_client, park
from services.streams.committer import SERVE_S, Committer
from services.streams.connection import KafkaConnection
from services.streams.events import ErrorEvent, ErrorEvents
from services.streams.topic_watch import TopicWatch

HEARTBEAT_MS: Final = 100
RENEW_AFTER_S: Final = 1.0
"""How long a client that is of no use any more waits for its successor, so that one that ends again and again costs little."""
HELD_MAX: Final = 5_000
"""Records that are held while a commit is waited for; beyond them the partitions are paused."""


NO_GENERATION: Final = -1
"""What the client says outside of a group; the coordinator would take a commit under it from anybody."""


def generation_of(metadata: bytes) -> int:
    """Return the group's generation from the client's opaque metadata; a test guards the format."""
    assert metadata.startswith(b"CGMDv2:"), "the client's group metadata have another format: see decision 56"
    return int.from_bytes(metadata[7:11], sys.byteorder, signed=True)


def _event(error: KafkaError, message: Message | None = None) -> ErrorEvent:
    """Return what the client calls an error as what the table knows it by."""
    partition, offset = (-1, -1) if message is None else (message.partition(), message.offset())
    known = (-1 if value is None else value for value in (partition, offset))
    return ErrorEvent(error.name(), error.str(), error.fatal(), *known)


class KafkaSource:
    """A member of a consumer group on one topic: see :class:`services.streams.Source` for the protocol."""

    def __init__(
        self, connection: KafkaConnection, group_id: str, topic: str, session_timeout_ms: int = 6_000,
        make_client: Callable[[dict[str, Any]], Consumer] = Consumer,
    ) -> None:  # fmt: skip
        """Join a group; ``make_client`` makes a client of its settings, and another one where one is of no use any more."""
        self.topic, self._connection, self._make_client = topic, connection, make_client
        settings = COMMON | CONSUMER
        settings |= {"group.id": group_id}
        # A crashed worker's partitions move after this long.
        # A rebalance is noticed by a heartbeat, and everybody waits for the last one to notice.
        heartbeat_ms = min(HEARTBEAT_MS, session_timeout_ms // 3)
        settings |= {"session.timeout.ms": session_timeout_ms, "heartbeat.interval.ms": heartbeat_ms}
        self._settings = connection.consumer(settings) | {"error_cb": ConnectionErrors(logs=True)}
        self._membership: bytes | None = None
        self._moment = threading.Event()  # never set: waiting for it is a pause
        self._assignment = Assignment(0, (), member=False)
        self._positions: dict[int, int] = {}
        self._held: list[Message] = []
        self._paused = False
        self._partitions = 0
        """How many partitions the topic had when it was asked last."""
        self._revoked: Callable[[], None] = lambda: None
        self._events = ErrorEvents(self._lose, self._renew)
        self._connect()
        self._watch = TopicWatch(connection, topic)

    def _connect(self) -> None:
        self._committer = committer = Committer(self._serve)
        """Of the present client: whoever has another one is not listened to."""
        self._consumer = self._make_client(self._settings | {"on_commit": committer.on_commit})
        self.join()

    def join(self) -> None:
        """See :class:`services.streams.Source`."""
        committer = self._committer

        def current(call: Callable[[Consumer, list[TopicPartition]], None]) -> Any:
            """Pass on what the group says to this client; what it says to one that was replaced is about nobody's partitions."""

            def passed_on(consumer: Consumer, partitions: list[TopicPartition]) -> None:
                if self._committer is committer:
                    call(consumer, partitions)
                else:
                    consumer.unassign()

            return passed_on

        with self._calls():
            self._consumer.subscribe(
                [self.topic],
                on_assign=current(self._on_assign),
                on_revoke=current(self._on_revoke),
                on_lost=current(self._on_lost),
            )

    def leave(self) -> None:
        """See :class:`services.streams.Source`."""
        with self._calls():
            self._consumer.unsubscribe()
        self._lose()

    def _renew(self) -> None:
        """Put a new client in the place of one that is of no use any more; the old one is closed beside, since that may take its time.

        What it says meanwhile, on the thread that closes it, is about nobody's partitions: so it is not listened to from before that.
        """
        self._committer = Committer(self._serve)
        threading.Thread(target=close_client, args=(self._consumer,), name="closes a client", daemon=True).start()
        self._lose()
        self._paused = False
        self._moment.wait(RENEW_AFTER_S)
        self._connect()

    @contextmanager
    def _calls(self) -> Iterator[None]:
        """Turn what the client raises into the one error that is waited out."""
        try:
            yield
        except KafkaException as error:
            inner = error.args[0]
            if isinstance(inner, KafkaError) and inner.fatal():
                self._take(_event(inner))  # raises
            raise failure(self._connection, error) from error

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Nothing is read before the worker has found out, by start(), from where.
        consumer.assign([])
        # Kept, since the client takes as long to say it as a batch of one takes, with the interpreter's lock held.
        metadata = consumer.consumer_group_metadata()
        self._membership = metadata if generation_of(metadata) != NO_GENERATION else None
        self._reassign(tuple(sorted(p.partition for p in partitions)), member=True)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._revoked()
        self._on_lost(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:  # noqa: ARG002
        consumer.unassign()
        self._lose()

    def _lose(self) -> None:
        """Give the assignment up as void, be it that the client has not noticed yet."""
        self._membership = None
        self._reassign((), member=False)

    def _reassign(self, partitions: tuple[int, ...], *, member: bool) -> None:
        self._assignment = Assignment(self._assignment.generation + 1, partitions, member)
        self._positions, self._held = {}, []

    def on_revoked(self, call: Callable[[], None]) -> None:
        """See :class:`services.streams.Source`."""
        self._revoked = call

    @property
    def assignment(self) -> Assignment:
        """See :class:`services.streams.Source`."""
        return self._assignment

    def poll(self, records_max: int, timeout_s: float) -> Records:
        """See :class:`services.streams.Source`."""
        with self._calls():
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
        # Errors are the exception, and looked for without a loop; never by comparing, which a KafkaError does with its like alone.
        kept = self._without_events(messages) if any(map(Message.error, messages)) else messages
        records = to_records(self.topic, kept, self._partitions)
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

    def _without_events(self, messages: list[Message]) -> list[Message]:
        """Return the records, and do what the errors between them ask for. Raises StreamsError."""
        kept = []
        for message in messages:
            error = message.error()
            if error is None:
                kept.append(message)
            else:
                self._take(_event(error, message))
        return kept

    def _take(self, event: ErrorEvent) -> None:
        """Do what an error asks for. Raises StreamsError; then nothing of what was started is read any more."""
        try:
            self._events.take(event)
        except StreamsError:
            self._positions, self._held = {}, []
            raise

    def group_metadata(self) -> bytes:
        """Return what proves to Kafka that this member has its partitions. Raises StreamsError when it has none any more.

        It is that of the last assignment: the coordinator refuses it when the group has moved on since. One without any generation,
        which the client has between two assignments, it would take.
        """
        if self._membership is None:
            raise StreamsError("the group has taken the partitions back")
        return self._membership

    def log_states(self, partitions: Sequence[int]) -> Mapping[int, LogState]:
        """See :class:`services.streams.Source`."""
        with self._calls():
            self._committer.settle()
            topic = self._watch.seen = self._watch.describe()
            self._partitions = topic.partitions
            states = {p: LogState(None, 0, 0, topic.topic_id, topic.partitions) for p in partitions}
            wanted = [TopicPartition(self.topic, p) for p in partitions if p < topic.partitions]
            committed = {tp.partition: tp.offset for tp in self._consumer.committed(wanted, REQUEST_TIMEOUT_S)}
            for tp in wanted:
                low, high = self._consumer.get_watermark_offsets(tp, REQUEST_TIMEOUT_S)
                offset = committed[tp.partition]
                known = offset if offset >= 0 else None
                states[tp.partition] = LogState(known, low, high, topic.topic_id, topic.partitions)
        return states

    @property
    def topic_seen(self) -> TopicIdentity | None:
        """See :class:`services.streams.Source`."""
        return self._watch.seen

    def offset_at(self, partition: int, at_ms: int) -> int:
        """See :class:`services.streams.Source`."""
        with self._calls():
            asked = [TopicPartition(self.topic, partition, at_ms)]
            offset = int(self._consumer.offsets_for_times(asked, REQUEST_TIMEOUT_S)[0].offset)
            if offset >= 0:
                return offset
            return int(self._consumer.get_watermark_offsets(asked[0], REQUEST_TIMEOUT_S)[1])

    def start(self, offsets: Mapping[int, int]) -> None:
        """See :class:`services.streams.Source`."""
        assert set(offsets) <= set(self._assignment.partitions), "a partition of somebody else"
        self._positions = dict(offsets)
        self._held = []
        # librdkafka keeps a partition's pause through assignments, whoever it was assigned to in between.
        self._paused = True
        with self._calls():
            self._consumer.assign([TopicPartition(self.topic, p, offset) for p, offset in offsets.items()])
            self._resume()

    def keep_alive(self, timeout_s: float) -> None:
        """See :class:`services.streams.Source`."""
        with self._calls():
            if not self._paused:
                self._consumer.pause([TopicPartition(self.topic, p) for p in self._positions])
                self._paused = True
            message = self._consumer.poll(timeout_s)
        if message is not None:  # it was under way when the pause came, or is an error, which must not wait
            self._held += self._without_events([message])

    def _resume(self) -> None:
        if self._paused:
            self._consumer.resume([TopicPartition(self.topic, p) for p in self._positions])
            self._paused = False

    def commit(self, offsets: Mapping[int, int]) -> None:
        """See :class:`services.streams.Source`."""
        wanted = [TopicPartition(self.topic, p, offset) for p, offset in offsets.items()]
        with self._calls():
            self._committer.commit(lambda: self._consumer.commit(offsets=wanted, asynchronous=True))

    def _serve(self) -> None:
        """Serve callbacks for a moment; a record that comes meanwhile is held for the next poll.

        One record at most: answers overtake records in the client's queue, so there is no need to take more.
        """
        if len(self._held) >= HELD_MAX:
            self.keep_alive(SERVE_S)
        else:
            self._held += self._consumer.consume(1, 0)
            self._moment.wait(SERVE_S)

    def partition_count(self, topic: str) -> int:
        """See :class:`services.streams.Source`."""
        return count_partitions(self._consumer, topic)

    def check(self) -> None:
        """See :class:`services.streams.Source`."""
        with self._calls():
            self._consumer.list_topics(self.topic, timeout=PROBE_TIMEOUT_S)

    def positions(self) -> Mapping[int, int]:
        """See :class:`services.streams.Source`."""
        if self._held:
            return {}
        with self._calls():
            asked = self._consumer.position([TopicPartition(self.topic, p) for p in self._positions])
        return {tp.partition: max(tp.offset, self._positions[tp.partition]) for tp in asked}

    def lag(self, done: Mapping[int, int]) -> Mapping[int, int]:
        """See :class:`services.streams.Source`."""
        lags = {}
        # While records are held the client's own position is ahead of what was handed out.
        read = {**self._positions, **self.positions()}
        for partition, at in read.items():
            position = min(at, done.get(partition, at))
            try:
                _, high = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), cached=True)
            except KafkaException:
                continue  # nothing is known of it without asking
            lags[partition] = max(0, high - position) if high >= 0 else 0
        return lags

    def close(self) -> None:
        """See :class:`services.streams.Source`."""
        self._watch.close()
        if self._committer.pending:
            # Leaving would wait for an answer that does not come; the group notices by the session's timeout.
            park(self._consumer)
        else:
            close_client(self._consumer)
