"""Keys to look up of other services' topics: sorted into partitions and back, with copies of what is announced when it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from services.core.columns import Text, type_i64
from services.core.kernels import partitions_of
from services.core.profiles import NEVER_MS
from services.grid import CopyMark, Found, Lookup
from services.grid.near_cache import NearCache
from services.runtime.processor import NOT_APPLIED, LookedUp

Place = tuple[str, int]
"""A topic and its partition."""
_NOTHING = b""
"""The copy of a profile that is not there."""


class Copies:
    """What a worker keeps of others' profiles, bounded in bytes.

    A copy is never used unproved: each lookup asks what changed since, and where that is not known any more, or the writer announces
    nothing, there is no copy.
    """

    def __init__(self, bytes_max: int) -> None:
        self._cache = NearCache(bytes_max)
        self._marks: dict[Place, CopyMark] = {}

    def __len__(self) -> int:
        return len(self._cache)

    def mark(self, place: Place) -> CopyMark | None:
        """Return up to where the copy of a partition is true; None where there is none."""
        return self._marks.get(place)

    def get(self, place: Place, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return what is kept, None where nothing is; it is true as of the partition's mark."""
        return self._cache.get(place, keys) if place in self._marks else [None] * len(keys)

    def take(self, place: Place, keys: Sequence[bytes], found: Found) -> None:
        """Keep what a lookup of these keys found, and what it said of others that are kept."""
        if found.mark is None or found.changed is None:
            self._cache.drop(place)
            self._marks.pop(place, None)
        if found.mark is not None:
            self._marks[place] = found.mark
            kept = dict(zip(keys, (profile or _NOTHING for profile in found.profiles), strict=True))
            for key, profile in (found.changed or {}).items():
                if key in kept or self._cache.get(place, [key]) != [None]:
                    kept[key] = profile
            self._cache.put(place, kept)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The keys of a batch in one partition."""

    place: Place
    rows: type_i64
    """The places of the keys among those of their topic."""
    keys: Sequence[bytes]
    kept: Sequence[bytes | None]
    """The copies; None where there is none, so that the grid is asked."""

    @property
    def missing(self) -> list[bytes]:
        return [key for key, kept in zip(self.keys, self.kept, strict=True) if kept is None]


class LookupPlan:
    """The lookups of a batch, and where their answers belong. Ask :attr:`lookups` and :meth:`take` the answers until none is left."""

    def __init__(self, wanted: Mapping[str, Text], partitions: Mapping[str, int], copies: Copies) -> None:
        """Sort keys into the partitions that they are in.

        Args:
            wanted: distinct keys by topic.
            partitions: how many partitions each topic has.
            copies: what is kept already.
        """
        self._copies = copies
        self._profiles: dict[str, list[bytes | None]] = {topic: [None] * len(keys) for topic, keys in wanted.items()}
        self._until_ms = {topic: np.full(len(keys), NEVER_MS, np.int64) for topic, keys in wanted.items()}
        self._applied = {topic: np.full(len(keys), NOT_APPLIED, np.int64) for topic, keys in wanted.items()}
        self._open: list[_Asked] = []
        for topic, keys in wanted.items():
            partition_of_key = partitions_of(keys, partitions[topic])
            for partition in np.unique(partition_of_key).tolist():
                rows = np.flatnonzero(partition_of_key == partition)
                mine = keys.take(rows).tolist()
                self._open.append(_Asked((topic, partition), rows, mine, copies.get((topic, partition), mine)))

    @property
    def lookups(self) -> list[Lookup]:
        """What is to be asked: also where every key is kept, since that is what proves the copies."""
        return [Lookup(*asked.place, asked.missing, self._copies.mark(asked.place)) for asked in self._open]

    def take(self, found: Sequence[Found]) -> None:
        """Take the answers to :attr:`lookups`. What was counted on and is not true any more is asked for next."""
        again = []
        for asked, answer in zip(self._open, found, strict=True):
            missing = asked.missing
            self._copies.take(asked.place, missing, answer)
            if answer.changed is None and len(missing) < len(asked.keys):
                again.append(replace(asked, kept=[None] * len(asked.keys)))
            else:
                self._place(asked, dict(zip(missing, answer.profiles, strict=True)), answer)
        self._open = again

    def _place(self, asked: _Asked, read: Mapping[bytes, bytes | None], answer: Found) -> None:
        topic, changed = asked.place[0], answer.changed or {}
        for row, key, kept in zip(asked.rows.tolist(), asked.keys, asked.kept, strict=True):
            self._profiles[topic][row] = changed.get(key, read.get(key, kept)) or None
        if answer.folded_until_ms is not None:
            self._until_ms[topic][asked.rows] = answer.folded_until_ms
        if answer.applied is not None:
            self._applied[topic][asked.rows] = answer.applied

    @property
    def found(self) -> dict[str, LookedUp]:
        """What was found, in the order of each topic's keys."""
        assert not self._open, "something is still to be asked"
        return {
            topic: LookedUp(profiles, self._until_ms[topic], self._applied[topic])
            for topic, profiles in self._profiles.items()
        }
