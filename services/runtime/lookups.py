"""Keys to look up of other services' topics, sorted into partitions and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.core.columns import Text, type_i64
from services.core.kernels import partitions_of
from services.core.profiles import NEVER_MS
from services.grid import Found, Lookup
from services.runtime.processor import LookedUp


@dataclass(frozen=True, slots=True)
class LookupPlan:
    """The lookups of a batch, and where their answers belong."""

    lookups: list[Lookup]
    _rows: list[type_i64]
    """Of each lookup, the places of its keys among those of its topic."""
    _counts: dict[str, int]

    @classmethod
    def of(cls, wanted: Mapping[str, Text], partitions: Mapping[str, int]) -> LookupPlan:
        """Sort keys into the partitions that they are in.

        Args:
            wanted: distinct keys by topic.
            partitions: how many partitions each topic has.
        """
        lookups, places = [], []
        for topic, keys in wanted.items():
            partition_of_key = partitions_of(keys, partitions[topic])
            for partition in np.unique(partition_of_key).tolist():
                rows = np.flatnonzero(partition_of_key == partition)
                lookups.append(Lookup(topic, partition, keys.take(rows).tolist()))
                places.append(rows)
        return cls(lookups, places, {topic: len(keys) for topic, keys in wanted.items()})

    def resolve(self, found: Sequence[Found]) -> dict[str, LookedUp]:
        """Return what was found, in the order of each topic's keys."""
        profiles: dict[str, list[bytes | None]] = {topic: [None] * n for topic, n in self._counts.items()}
        until_ms = {topic: np.full(n, NEVER_MS, np.int64) for topic, n in self._counts.items()}
        for lookup, rows, answer in zip(self.lookups, self._rows, found, strict=True):
            for row, profile in zip(rows.tolist(), answer.profiles, strict=True):
                profiles[lookup.topic][row] = profile
            if answer.folded_until_ms is not None:
                until_ms[lookup.topic][rows] = answer.folded_until_ms
        return {topic: LookedUp(profiles[topic], until_ms[topic]) for topic in self._counts}
