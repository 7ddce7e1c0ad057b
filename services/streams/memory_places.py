"""Single records of topics in memory, by their place: the twin of :class:`services.streams.places.KafkaPlaces`."""

from __future__ import annotations

import numpy as np

from services.core.columns import type_bool, type_i64
from services.streams.base import AtPlaces
from services.streams.memory import MemoryLog, Wire, direct
from services.streams.memory_commits import COMMITTED, OPEN
from services.streams.stretches import stretches_of


class MemoryPlaces:
    """See :class:`services.streams.PlaceReader`."""

    def __init__(self, log: MemoryLog, wire: Wire = direct) -> None:
        self._log, self._wire = log, wire

    def read(self, topic: str, partition: type_i64, offset: type_i64) -> AtPlaces:
        """See :class:`services.streams.PlaceReader`."""
        return self._wire("read_places", lambda: self._read(topic, partition, offset))

    def _read(self, topic: str, partition: type_i64, offset: type_i64) -> AtPlaces:
        self._log.check_available()
        found, lies = AtPlaces.nothing(len(offset)), self._lies(topic, partition, offset)
        found.unread[stretches_of(partition, offset, np.flatnonzero(lies))[1]] = True
        # Nothing is seen behind the first commit that is open.
        ends = [self._visible_end(topic, p) for p in range(self._log.partitions)]
        for row, (p, at) in enumerate(zip(partition.tolist(), offset.tolist(), strict=True)):
            if found.unread[row] or not 0 <= p < self._log.partitions or at < self._log.log_start.get((topic, p), 0):
                continue
            stored = self._log.partition_log(topic, p)
            found.may_come[row] = at >= ends[p]
            if at < ends[p] and (stored[at].commit is None or stored[at].commit.state == COMMITTED):
                found.keys[row], found.values[row] = stored[at].key, stored[at].value
                found.there[row] = True
        return found

    def _visible_end(self, topic: str, p: int) -> int:
        stored = self._log.partition_log(topic, p)
        return next((i for i, r in enumerate(stored) if r.commit and r.commit.state == OPEN), len(stored))

    def _lies(self, topic: str, partition: type_i64, offset: type_i64) -> type_bool:
        """Return which places are within the log."""
        begins = [self._log.log_start.get((topic, p), 0) for p in range(self._log.partitions)]
        ends = [self._log.end(topic, p) for p in range(self._log.partitions)]
        known = (partition >= 0) & (partition < self._log.partitions)
        at = np.where(known, partition, 0)
        return known & (offset >= np.array(begins)[at]) & (offset < np.array(ends)[at])

    def close(self) -> None:
        """See :class:`services.streams.PlaceReader`."""
