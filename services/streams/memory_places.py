"""Single records of topics in memory, by their place: the twin of :class:`services.streams.places.KafkaPlaces`."""

from __future__ import annotations

from collections.abc import Sequence

from services.core.columns import type_i64
from services.streams.base import AtPlaces
from services.streams.memory import MemoryLog, Wire, direct
from services.streams.memory_commits import COMMITTED, OPEN


class MemoryPlaces:
    """See :class:`services.streams.PlaceReader`."""

    def __init__(self, log: MemoryLog, wire: Wire = direct) -> None:
        self._log, self._wire = log, wire

    def read(self, topic: str, partition: type_i64, offset: type_i64) -> AtPlaces:
        """See :class:`services.streams.PlaceReader`."""
        return self._wire("read_places", lambda: self._read(topic, partition.tolist(), offset.tolist()))

    def _read(self, topic: str, partitions: Sequence[int], offsets: Sequence[int]) -> AtPlaces:
        self._log.check_available()
        found = AtPlaces.nothing(len(offsets))
        for row, (p, at) in enumerate(zip(partitions, offsets, strict=True)):
            if not 0 <= p < self._log.partitions or at < self._log.log_start.get((topic, p), 0):
                continue
            stored = self._log.partition_log(topic, p)
            # Nothing is seen behind the first commit that is open.
            end = next((i for i, r in enumerate(stored) if r.commit and r.commit.state == OPEN), len(stored))
            found.may_come[row] = at >= end
            if at < end and (stored[at].commit is None or stored[at].commit.state == COMMITTED):  # type: ignore[union-attr]
                found.keys[row], found.values[row] = stored[at].key, stored[at].value
                found.there[row] = True
        return found

    def close(self) -> None:
        """See :class:`services.streams.PlaceReader`."""
