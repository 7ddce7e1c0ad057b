"""Kafka behind the contract of :class:`services.streams.Source`: a member of a consumer group."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import confluent_kafka
import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from services.streams.base import Assignment, LogState, Records, StreamsError
from services.streams.clients import (
    COMMON,
    CONSUMER,
    PROBE_TIMEOUT_S,
    REQUEST_TIMEOUT_S,
    count_partitions,
    describe,
    to_records,
)
from services.streams.committer import SERVE_S, Committer

HEARTBEAT_MS: Final = 100
HELD_MAX: Final = 5_000
"""Records that are held while a commit is waited for; beyond them the partitions are paused."""


NO_GENERATION: Final = -1
"""What the client says outside of a group; the coordinator would take a commit under it from anybody."""


def generation_of(metadata: bytes) -> int:
    """Return the group's generation from the client's opaque metadata; a test guards the format."""
    assert metadata.startswith(b"CGMDv2:"), "the client's group metadata have another format: see DECISIONS.md"
    return int.from_bytes(metadata[7:11], sys.byteorder, signed=True)


def _park(client: Consumer) -> None:
    """Keep a client from being destroyed, which would wait for its broker: the process is about to end.

    What the frame of a daemon thread holds is not destroyed when the interpreter ends.
    """
    threading.Thread(target=lambda _kept: threading.Event().wait(), args=(client,), name="parked", daemon=True).start()


class KafkaSource:
    """A member of a consumer group on one topic: see :class:`services.streams.Source` for the protocol."""

    def __init__(self, bootstrap_servers: str, group_id: str, topic: str, session_timeout_ms: int = 6_000) -> None:
        self.topic = topic
        settings = COMMON | CONSUMER
        settings |= {"bootstrap.servers": bootstrap_servers, "group.id": group_id}
        # A crashed worker's partitions move after this long.
        # A rebalance is noticed by a heartbeat, and everybody waits for the last one to notice.
        heartbeat_ms = min(HEARTBEAT_MS, session_timeout_ms // 3)
        settings |= {"session.timeout.ms": session_timeout_ms, "heartbeat.interval.ms": heartbeat_ms}
        self._committer = Committer(self._serve)
        self._membership: bytes | None = None
        self._moment = threading.Event()  # never set: waiting for it is a pause
        self._consumer = Consumer(settings | {"on_commit": self._committer.on_commit})
        self._admin = AdminClient(COMMON | {"bootstrap.servers": bootstrap_servers})
        self._assignment = Assignment(0, (), member=False)
        self._positions: dict[int, int] = {}
        self._held: list[Message] = []
        self._paused = False
        self._partitions = 0
        """How many partitions the topic had when it was asked last."""
        self.revoked: Callable[[], None] = lambda: None
        self._consumer.subscribe([topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Nothing is read before the worker has found out, by start(), from where.
        consumer.assign([])
        # Kept, since the client takes as long to say it as a batch of one takes, with the interpreter's lock held.
        metadata = consumer.consumer_group_metadata()
        self._membership = metadata if generation_of(metadata) != NO_GENERATION else None
        self._reassign(tuple(sorted(p.partition for p in partitions)), member=True)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.revoked()
        self._on_lost(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:  # noqa: ARG002
        consumer.unassign()
        self._membership = None
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
        try:
            if not messages:
                first = self._consumer.poll(timeout_s)
                messages = [] if first is None else [first]
            if 0 < len(messages) < records_max:
                # consume() waits its whole timeout for the count it was given, so what is there is taken with none.
                messages += self._consumer.consume(records_max - len(messages), 0)
        except KafkaException as error:
            raise StreamsError(describe(error)) from error
        return self._to_records(messages)

    def _to_records(self, messages: list[Message]) -> Records:
        # Errors are the exception, and looked for without a loop.
        good = list(map(Message.error, messages)).count(None) == len(messages)
        kept = messages if good else [m for m in messages if m.error() is None or self._tolerate(m.error())]
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

    def _tolerate(self, error: KafkaError) -> bool:
        """Drop what is only the notice of an outage; raise for what would make a gap."""
        if error.fatal() or error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):  # noqa: SLF001
            raise StreamsError(describe(error))
        return False

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
        self._committer.settle()
        try:
            topic_id, count = self._described()
            wanted = [TopicPartition(self.topic, p) for p in partitions]
            committed = {tp.partition: tp.offset for tp in self._consumer.committed(wanted, REQUEST_TIMEOUT_S)}
            states = {}
            for tp in wanted:
                low, high = self._consumer.get_watermark_offsets(tp, REQUEST_TIMEOUT_S)
                offset = committed[tp.partition]
                states[tp.partition] = LogState(offset if offset >= 0 else None, low, high, topic_id, count)
        except KafkaException as error:
            raise StreamsError(describe(error)) from error
        return states

    def _described(self) -> tuple[str, int]:
        asked = confluent_kafka.TopicCollection([self.topic])
        found = self._admin.describe_topics(asked, request_timeout=REQUEST_TIMEOUT_S)[self.topic].result()
        self._partitions = len(found.partitions)
        return str(found.topic_id), self._partitions

    def offset_at(self, partition: int, at_ms: int) -> int:
        """See :class:`services.streams.Source`."""
        try:
            asked = [TopicPartition(self.topic, partition, at_ms)]
            offset = int(self._consumer.offsets_for_times(asked, REQUEST_TIMEOUT_S)[0].offset)
            if offset >= 0:
                return offset
            return int(self._consumer.get_watermark_offsets(asked[0], REQUEST_TIMEOUT_S)[1])
        except KafkaException as error:
            raise StreamsError(describe(error)) from error

    def start(self, offsets: Mapping[int, int]) -> None:
        """See :class:`services.streams.Source`."""
        assert set(offsets) <= set(self._assignment.partitions), "a partition of somebody else"
        self._positions = dict(offsets)
        self._held = []
        self._consumer.assign([TopicPartition(self.topic, p, offset) for p, offset in offsets.items()])
        # librdkafka keeps a partition's pause through assignments, whoever it was assigned to in between.
        self._paused = True
        self._resume()

    def keep_alive(self, timeout_s: float) -> None:
        """See :class:`services.streams.Source`."""
        if not self._paused:
            self._consumer.pause([TopicPartition(self.topic, p) for p in self._positions])
            self._paused = True
        message = self._consumer.poll(timeout_s)
        if message is not None:  # it was under way when the pause came
            self._held.append(message)

    def _resume(self) -> None:
        if self._paused:
            self._consumer.resume([TopicPartition(self.topic, p) for p in self._positions])
            self._paused = False

    def commit(self, offsets: Mapping[int, int]) -> None:
        """See :class:`services.streams.Source`."""
        wanted = [TopicPartition(self.topic, p, offset) for p, offset in offsets.items()]
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

    def partition_count(self, topic: str) -> int:
        """See :class:`services.streams.Source`."""
        return count_partitions(self._consumer, topic)

    def check(self) -> None:
        """See :class:`services.streams.Source`."""
        try:
            self._consumer.list_topics(self.topic, timeout=PROBE_TIMEOUT_S)
        except KafkaException as error:
            raise StreamsError(describe(error)) from error

    def positions(self) -> Mapping[int, int]:
        """See :class:`services.streams.Source`."""
        if self._held:
            return {}
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
        if self._committer.pending:
            # Leaving would wait for an answer that does not come; the group notices by the session's timeout.
            _park(self._consumer)
        else:
            self._consumer.close()
