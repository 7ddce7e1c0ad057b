"""The two guarantees over a Kafka in memory: the twins of :mod:`.publishers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from services.streams.base import Output
from services.streams.memory import MemoryLog, MemorySource, Wire, direct
from services.streams.memory_commits import Stored, partition_of


class MemoryAtomicProducer:
    """See :class:`services.streams.atomic.AtomicProducer`."""

    def __init__(self, log: MemoryLog, topic: str, name: str, wire: Wire = direct) -> None:
        self.log, self._topic, self._name, self._wire = log, topic, name, wire
        self._epoch: int = wire("init_producer", lambda: log.init_producer(name))
        self._sent = self._stored = 0

    def begin(self) -> None:
        """See :class:`services.streams.atomic.AtomicProducer`."""

    def queue(self, output: Output) -> None:
        """See :class:`services.streams.atomic.AtomicProducer`: one request for each topic, at once."""
        self._sent += 1
        self._wire(f"produce {output.topic}", partial(self._produce, output, self._sent))

    def add_offsets(self, offsets: Mapping[int, int], member: Any) -> None:
        """See :class:`services.streams.atomic.AtomicProducer`."""
        self._wire("add_offsets", lambda: self._add_offsets(offsets, member))

    def _add_offsets(self, offsets: Mapping[int, int], member: Any) -> None:
        commit = self.log.open_commit(self._name, self._epoch)
        self.log.check_member(*member)
        commit.offsets |= {(self._topic, p): offset for p, offset in offsets.items()}

    def flush(self) -> None:
        """See :class:`services.streams.atomic.AtomicProducer`: nothing is left to wait for."""

    def _produce(self, output: Output, number: int) -> None:
        commit = self.log.open_commit(self._name, self._epoch)
        if number <= self._stored:  # requests are numbered: Kafka keeps each once
            return
        self._stored = number
        for key, value in zip(output.keys, output.values, strict=True):
            log = self.log.partition_log(output.topic, partition_of(key, self.log.partitions))
            log.append(Stored(key, value, 0, commit))

    def commit(self) -> None:
        """See :class:`services.streams.atomic.AtomicProducer`."""
        self._wire("end_commit", lambda: self.log.end_commit(self._name, self._epoch))

    def troubled(self) -> bool:
        """See :class:`services.streams.atomic.AtomicProducer`."""
        return False

    def close(self) -> None:
        """See :class:`services.streams.atomic.AtomicProducer`."""


class MemoryPublisher:
    """At least once over a :class:`MemoryLog`. See :class:`services.streams.Publisher`."""

    confirmed = False

    def __init__(self, log: MemoryLog, source: MemorySource, wire: Wire = direct) -> None:
        self._log, self._source, self._wire = log, source, wire
        self._confirmed: dict[int, int] = {}

    def open(self) -> None:
        """See :class:`services.streams.Publisher`."""
        self._confirmed = {}

    def publish(self, outputs: Sequence[Output], offsets: Mapping[int, int]) -> None:  # noqa: ARG002 - they are committed later
        """See :class:`services.streams.Publisher`."""
        for output in outputs:
            self._wire(f"produce {output.topic}", partial(self._produce, output))

    def confirm(self, offsets: Mapping[int, int]) -> None:
        """See :class:`services.streams.Publisher`."""
        ahead = {p: offset for p, offset in offsets.items() if offset > self._confirmed.get(p, -1)}
        if ahead:
            self._source.commit(ahead)
            self._confirmed |= ahead

    def _produce(self, output: Output) -> None:
        self._log.check_available()
        for key, value in zip(output.keys, output.values, strict=True):
            self._log.append(output.topic, key, value, 0, partition_of(key, self._log.partitions))

    def close(self) -> None:
        """See :class:`services.streams.Publisher`."""
