"""A log in memory: the twin of Kafka for unit tests, under the same contract suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from services.streams.base import Assignment, LogState, Records, StreamsError


@dataclass(slots=True)
class MemoryLog:
    """Topics in memory, and the offsets that a group committed. ``available`` False is an outage."""

    partitions: int = 1
    topics: dict[str, list[list[tuple[bytes | None, bytes | None, int]]]] = field(default_factory=dict)
    committed: dict[tuple[str, int], int] = field(default_factory=dict)
    available: bool = True
    topic_id: str = "memory"

    def partition_log(self, topic: str, partition: int) -> list[tuple[bytes | None, bytes | None, int]]:
        """Return the records of a partition: (key, value, timestamp_ms)."""
        return self.topics.setdefault(topic, [[] for _ in range(self.partitions)])[partition]

    def append(self, topic: str, key: bytes | None, value: bytes | None, timestamp_ms: int, partition: int) -> None:
        """Append one record."""
        self.partition_log(topic, partition).append((key, value, timestamp_ms))

    def check_available(self) -> None:
        """Raise StreamsError during an outage."""
        if not self.available:
            raise StreamsError("the log is away")


class MemorySource:
    """One member of a group over a :class:`MemoryLog`; tests move partitions with :meth:`assign`."""

    def __init__(self, log: MemoryLog, topic: str) -> None:
        self._log, self._topic = log, topic
        self._assignment = Assignment(0, (), member=False)
        self._positions: dict[int, int] = {}
        self._pending: tuple[int, ...] | None = None

    def assign(self, *partitions: int) -> None:
        """Hand other partitions to this member at its next call that talks to the log."""
        self._pending = partitions

    def _rebalance(self) -> None:
        if self._pending is not None:
            self._assignment = Assignment(self._assignment.generation + 1, self._pending, member=True)
            self._positions, self._pending = {}, None

    @property
    def assignment(self) -> Assignment:
        """See :class:`services.streams.Source`."""
        return self._assignment

    def poll(self, records_max: int, timeout_s: float) -> Records:  # noqa: ARG002 - the twin never waits
        """See :class:`services.streams.Source`."""
        self._rebalance()
        found: list[tuple[int, int, tuple[bytes | None, bytes | None, int]]] = []
        if self._log.available:
            for partition, position in self._positions.items():
                log = self._log.partition_log(self._topic, partition)
                stop = min(len(log), position + records_max - len(found))
                found += [(partition, offset, log[offset]) for offset in range(position, stop)]
                self._positions[partition] = max(position, stop)
        columns = np.array([(p, o, r[2]) for p, o, r in found], np.int64).reshape(-1, 3)
        return Records(
            self._topic, columns[:, 0], columns[:, 1], columns[:, 2],
            [r[0] for _, _, r in found], [r[1] for _, _, r in found],
        )  # fmt: skip

    def log_states(self, partitions: Sequence[int]) -> Mapping[int, LogState]:
        """See :class:`services.streams.Source`."""
        self._log.check_available()
        return {
            p: LogState(
                self._log.committed.get((self._topic, p)),
                0,
                len(self._log.partition_log(self._topic, p)),
                self._log.topic_id,
            )
            for p in partitions
        }

    def start(self, offsets: Mapping[int, int]) -> None:
        """See :class:`services.streams.Source`."""
        assert set(offsets) <= set(self._assignment.partitions)
        self._positions = dict(offsets)

    def keep_alive(self, timeout_s: float) -> None:  # noqa: ARG002 - the twin never waits
        """See :class:`services.streams.Source`."""
        self._rebalance()

    def commit(self, offsets: Mapping[int, int]) -> None:
        """See :class:`services.streams.Source`."""
        self._log.check_available()
        if self._pending is not None:
            raise StreamsError("the partitions were handed to another member")
        self._log.committed |= {(self._topic, p): offset for p, offset in offsets.items()}

    def check(self) -> None:
        """See :class:`services.streams.Source`."""
        self._log.check_available()

    def lag(self) -> Mapping[int, int]:
        """See :class:`services.streams.Source`."""
        return {p: len(self._log.partition_log(self._topic, p)) - at for p, at in self._positions.items()}

    def close(self) -> None:
        """See :class:`services.streams.Source`."""


class MemorySink:
    """Appends to a :class:`MemoryLog` at flush; keys choose the partition by their sum of bytes."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._queued: list[tuple[str, bytes | None, bytes]] = []

    def send(self, topic: str, keys: Sequence[bytes | None], values: Sequence[bytes]) -> None:
        """See :class:`services.streams.Sink`."""
        self._queued += [(topic, key, value) for key, value in zip(keys, values, strict=True)]

    def flush(self, timeout_s: float) -> bool:  # noqa: ARG002 - the twin never waits
        """See :class:`services.streams.Sink`."""
        if not self._log.available:
            return False
        for topic, key, value in self._queued:
            self._log.append(topic, key, value, 0, sum(key or b"") % self._log.partitions)
        self._queued = []
        return True

    def close(self) -> None:
        """See :class:`services.streams.Sink`."""
        self._queued = []
