"""A Kafka in memory: the twin for unit tests and the simulation, under the same contract suite.

It keeps what the protocol rests on: generations of the group, epochs of producers' names, atomic commits that are open,
committed or aborted, offsets that are pending as long as theirs is open. Every request of a client goes through its
``wire``, where a test may lose it, lose its answer, send it twice, or end or freeze the process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from services.streams.atomic import FencedError
from services.streams.base import (
    MISSING_TOPIC,
    Assignment,
    LogState,
    Records,
    StreamsError,
    TopicIdentity,
    TopicMissingError,
)
from services.streams.events import ErrorEvent, ErrorEvents
from services.streams.memory_commits import ABORTED, COMMITTED, OPEN, AtomicCommit, Stored

Wire = Callable[[str, Callable[[], Any]], Any]
"""Carries a request (by name) to its server and the answer back."""
TRANSACTION_TIMEOUT_S = 6.0


def direct(name: str, request: Callable[[], Any]) -> Any:  # noqa: ARG001 - the signature of a wire
    """Carry a request without any fault."""
    return request()


@dataclass(slots=True)
class MemoryLog:
    """A cluster with one group. ``available`` False is an outage."""

    partitions: int = 1
    topics: dict[str, list[list[Stored]]] = field(default_factory=dict)
    committed: dict[tuple[str, int], int] = field(default_factory=dict)
    available: bool = True
    topic_id: str = "memory"
    log_start: dict[tuple[str, int], int] = field(default_factory=dict)
    monotonic_s: Callable[[], float] = lambda: 0.0
    sleep: Callable[[float], None] = lambda _: None
    generation: int = 0
    members: dict[str, tuple[int, ...]] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    commits: list[AtomicCommit] = field(default_factory=list)
    deleted: set[str] = field(default_factory=set)
    """Topics that are gone."""
    absent: set[str] = field(default_factory=set)
    """Processes that have left the group of their own accord."""

    def partition_log(self, topic: str, partition: int) -> list[Stored]:
        """Return all records of a partition, visible or not."""
        return self.topics.setdefault(topic, [[] for _ in range(self.partitions)])[partition]

    def visible(self, topic: str, partition: int) -> list[Stored]:
        """Return what a reader of committed records sees: nothing behind the first open commit."""
        seen: list[Stored] = []
        for record in self.partition_log(topic, partition):
            if record.commit is not None and record.commit.state == OPEN:
                break
            if record.commit is None or record.commit.state == COMMITTED:
                seen.append(record)
        return seen

    def append(self, topic: str, key: bytes | None, value: bytes | None, timestamp_ms: int, partition: int) -> None:
        """Append one record, visible at once."""
        self.partition_log(topic, partition).append(Stored(key, value, timestamp_ms))

    def end(self, topic: str, partition: int) -> int:
        """Return the offset behind a partition's last record."""
        return len(self.partition_log(topic, partition))

    def check_available(self) -> None:
        """Raise StreamsError during an outage."""
        if not self.available:
            raise StreamsError("the log is away")

    # -- the group ---------------------------------------------------------------------------------------------------

    def rebalance(self, members: Mapping[str, tuple[int, ...]]) -> None:
        """Give the partitions out anew; every earlier generation is void."""
        self.generation, self.members = self.generation + 1, dict(members)

    def leave(self, member: str) -> None:
        """Let a member go; the others get its partitions."""
        self.absent.add(member)
        self._share({p for name in self.members for p in self.members[name]}, set(self.members) - {member})

    def join(self, member: str) -> None:
        """Let a process be a member again, and share the partitions out anew; one that is a member already may be one of a void generation."""
        self.absent.discard(member)
        if member in self.members:
            self.rebalance(self.members)
        else:
            self._share(set(range(self.partitions)), {*self.members, member})

    def _share(self, partitions: set[int], members: set[str]) -> None:
        names = sorted(members)
        given: dict[str, tuple[int, ...]] = dict.fromkeys(names, ())
        for i, partition in enumerate(sorted(partitions) if names else ()):
            given[names[i % len(names)]] += (partition,)
        self.rebalance(given)

    def check_member(self, member: str, generation: int) -> None:
        """Raise StreamsError unless this is a member of the group's present generation: its partitions are not looked at."""
        if member not in self.members or generation != self.generation:
            raise StreamsError(f"ILLEGAL_GENERATION: {member} of {generation}, the group is at {self.generation}")

    # -- atomic commits ----------------------------------------------------------------------------------------------

    def init_producer(self, name: str) -> int:
        """Abort what is open under a name, and return a new epoch."""
        self.check_available()
        self._end(name, ABORTED)
        self.epochs[name] = self.epochs.get(name, -1) + 1
        return self.epochs[name]

    def open_commit(self, name: str, epoch: int) -> AtomicCommit:
        """Return the open commit of a producer, begun if there is none. Raises FencedError for an earlier epoch."""
        self.check_available()
        self.expire()
        if self.epochs.get(name) != epoch:
            raise FencedError(f"PRODUCER_FENCED: {name} of epoch {epoch}, now {self.epochs.get(name)}")
        found = self._open(name)
        if found is None:
            found = AtomicCommit(name, epoch, self.monotonic_s())
            self.commits.append(found)
        return found

    def end_commit(self, name: str, epoch: int) -> None:
        """End whatever is open under a name and epoch, as the old protocol does; nothing open counts as ended."""
        self.check_available()
        self.expire()
        if self.epochs.get(name) != epoch:
            raise FencedError(f"PRODUCER_FENCED: {name} of epoch {epoch}, now {self.epochs.get(name)}")
        self._end(name, COMMITTED)

    def _open(self, name: str) -> AtomicCommit | None:
        return next((c for c in self.commits if c.name == name and c.state == OPEN), None)

    def _end(self, name: str, state: str) -> None:
        found = self._open(name)
        if found is not None:
            found.state = state
            if state == COMMITTED:
                self.committed |= found.offsets

    def expire(self) -> None:
        """Abort commits that are open for too long; their producers are fenced."""
        for commit in self.commits:
            if commit.state == OPEN and self.monotonic_s() - commit.began_s > TRANSACTION_TIMEOUT_S:
                commit.state = ABORTED
                self.epochs[commit.name] += 1

    def stable_offset(self, topic: str, partition: int) -> int | None:
        """Return the committed offset. Raises StreamsError while an open commit may still move it."""
        self.expire()
        if any(c.state == OPEN and (topic, partition) in c.offsets for c in self.commits):
            raise StreamsError("UNSTABLE_OFFSET_COMMIT")
        return self.committed.get((topic, partition))


class MemorySource:
    """One member of the group over a :class:`MemoryLog`; tests move partitions by :meth:`MemoryLog.rebalance`."""

    def __init__(self, log: MemoryLog, topic: str, member: str = "member", wire: Wire = direct) -> None:
        self.log, self.topic, self.member, self._wire = log, topic, member, wire
        self._assignment = Assignment(0, (), member=False)
        self._joined: int | None = None
        self._positions: dict[int, int] = {}
        self._revoked: Callable[[], None] = lambda: None
        self._delivered: deque[ErrorEvent] = deque()
        self._events = ErrorEvents(self._lose, self._renew)
        self._lost = False

    def on_revoked(self, call: Callable[[], None]) -> None:
        """See :class:`services.streams.Source`."""
        self._revoked = call

    def deliver(self, event: ErrorEvent) -> None:
        """Let the consumer deliver an error event with the next call that serves it."""
        self._delivered.append(event)

    def _lose(self) -> None:
        """Give the assignment up as void, and join again by the next poll."""
        self._assignment = Assignment(self._assignment.generation + 1, (), member=False)
        self._positions, self._lost = {}, True

    def _renew(self) -> None:
        """Be a new client: what the old one would still have said is about nobody's partitions."""
        self._delivered.clear()
        self._lose()

    def _serve(self) -> None:
        """Do what every call does that serves the client: events, then the group."""
        while self._delivered:
            self._take(self._delivered.popleft())
        self._rebalance()

    def _take(self, event: ErrorEvent) -> None:
        """Do what an error asks for. Raises StreamsError; then nothing of what was started is read any more."""
        try:
            self._events.take(event)
        except StreamsError:
            self._positions = {}
            raise

    def _rejoin(self) -> None:
        if self._lost and self.member not in self.log.absent:
            self._lost = False
            self.log.join(self.member)

    def leave(self) -> None:
        """See :class:`services.streams.Source`."""
        self.log.leave(self.member)
        self._joined = self.log.generation
        self._lose()

    def join(self) -> None:
        """See :class:`services.streams.Source`."""
        self.log.absent.discard(self.member)
        self._lost = True

    def _rebalance(self) -> None:
        if self._joined != self.log.generation:
            if self.member in self.log.members and not self._lost:
                self._revoked()
            mine, there = self.log.members.get(self.member, ()), self.member in self.log.members
            self._joined, self._lost = self.log.generation, self._lost and not there
            self._assignment = Assignment(self._assignment.generation + 1, mine, member=there)
            self._positions = {}

    @property
    def assignment(self) -> Assignment:
        """See :class:`services.streams.Source`."""
        return self._assignment

    def group_metadata(self) -> tuple[str, int]:
        """The member and the generation that it knows."""
        return self.member, -1 if self._joined is None or self._lost else self._joined

    def poll(self, records_max: int, timeout_s: float) -> Records:  # noqa: ARG002 - the twin never waits
        """See :class:`services.streams.Source`."""
        lost = self._lost
        self._serve()
        if lost:  # as a client does that needs a call to find out, and another one to join
            self._rejoin()
            self._rebalance()
        found: list[tuple[int, int, Stored]] = []
        if self.log.available:
            for partition, position in self._positions.items():
                if self.topic in self.log.deleted:
                    self._take(ErrorEvent("UNKNOWN_TOPIC_OR_PART", partition=partition))
                log = self.log.partition_log(self.topic, partition)
                if position < self.log.log_start.get((self.topic, partition), 0) or position > len(log):
                    self._take(ErrorEvent("_AUTO_OFFSET_RESET", partition=partition, offset=position))
                stop = min(len(log), position + records_max - len(found))
                found += [(partition, offset, log[offset]) for offset in range(position, stop)]
                self._positions[partition] = max(position, stop)
        columns = np.array([(p, o, r.timestamp_ms) for p, o, r in found], np.int64).reshape(-1, 3)
        return Records(
            self.topic, columns[:, 0], columns[:, 1], columns[:, 2],
            [r.key for _, _, r in found], [r.value for _, _, r in found], self.log.partitions,
        )  # fmt: skip

    def log_states(self, partitions: Sequence[int]) -> Mapping[int, LogState]:
        """See :class:`services.streams.Source`."""
        return self._wire("log_states", lambda: {p: self._log_state(p) for p in partitions})

    def _log_state(self, partition: int) -> LogState:
        log = self.log
        log.check_available()
        if self.topic in log.deleted:
            raise TopicMissingError(f"there is no topic {self.topic}")
        if partition >= log.partitions:
            return LogState(None, 0, 0, log.topic_id, log.partitions)
        start = log.log_start.get((self.topic, partition), 0)
        end = log.end(self.topic, partition)
        return LogState(log.stable_offset(self.topic, partition), start, end, log.topic_id, log.partitions)

    @property
    def topic_seen(self) -> TopicIdentity | None:
        """See :class:`services.streams.Source`."""
        if not self.log.available:
            return None
        gone = self.topic in self.log.deleted
        return MISSING_TOPIC if gone else TopicIdentity(self.log.topic_id, self.log.partitions)

    def offset_at(self, partition: int, at_ms: int) -> int:
        """See :class:`services.streams.Source`."""
        self.log.check_available()
        log, start = self.log.partition_log(self.topic, partition), self.log.log_start.get((self.topic, partition), 0)
        return next((o for o in range(start, len(log)) if log[o].timestamp_ms >= at_ms), len(log))

    def start(self, offsets: Mapping[int, int]) -> None:
        """See :class:`services.streams.Source`."""
        assert set(offsets) <= set(self._assignment.partitions)
        self._positions = dict(offsets)

    def keep_alive(self, timeout_s: float) -> None:
        """See :class:`services.streams.Source`."""
        self.log.sleep(timeout_s)
        self._wire("keep_alive", self._serve)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """See :class:`services.streams.Source`."""
        self._wire("commit_offsets", lambda: self._commit(offsets))

    def _commit(self, offsets: Mapping[int, int]) -> None:
        self.log.check_available()
        self.log.check_member(*self.group_metadata())
        self.log.committed |= {(self.topic, p): offset for p, offset in offsets.items()}

    def partition_count(self, topic: str) -> int:  # noqa: ARG002 - every topic has as many
        """See :class:`services.streams.Source`."""
        self.check()
        return self.log.partitions

    def check(self) -> None:
        """See :class:`services.streams.Source`."""
        self.log.check_available()

    def positions(self) -> Mapping[int, int]:
        """See :class:`services.streams.Source`."""
        self._wire("positions", self.log.check_available)
        return dict(self._positions)

    def lag(self, done: Mapping[int, int]) -> Mapping[int, int]:
        """See :class:`services.streams.Source`."""
        return {p: self.log.end(self.topic, p) - min(at, done.get(p, at)) for p, at in self._positions.items()}

    def close(self) -> None:
        """See :class:`services.streams.Source`."""
