"""Keys to look up of other services' topics: sorted into partitions and back, with copies of what is announced when it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from services.core.columns import Text, type_i64
from services.core.kernels import partitions_of
from services.core.packing import NEVER_MS
from services.grid import CacheStamp, Found, Lookup
from services.grid.near_cache import NearCache
from services.worker.processor import NOT_APPLIED, LookedUp

Place = tuple[str, int]
"""A topic and its partition."""
_NOTHING = b""
"""The copy of a profile that is not there."""


class ForeignCache:
    """What a worker keeps of others' profiles, bounded in bytes.

    A copy is never used unproved: each lookup asks what changed since, and where that is not known any more, or the writer announces
    nothing, there is no copy.
    """

    def __init__(self, bytes_max: int) -> None:
        self._cache = NearCache(bytes_max)
        self._marks: dict[Place, CacheStamp] = {}

    def __len__(self) -> int:
        return len(self._cache)

    def mark(self, place: Place) -> CacheStamp | None:
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
    rows: slice
    """Where they are among those of their topic, sorted by partition."""
    keys: Sequence[bytes]
    kept: Sequence[bytes | None]
    """The copies; None where there is none, so that the grid is asked."""
    missing: Sequence[bytes]
    """The keys without a copy."""

    @classmethod
    def of(cls, place: Place, rows: slice, keys: Sequence[bytes], kept: Sequence[bytes | None]) -> _Asked:
        """Note which of them the grid is to be asked for."""
        without = kept.count(None)
        if without == len(keys):
            return cls(place, rows, keys, kept, keys)
        missing = [key for key, copy in zip(keys, kept, strict=True) if copy is None] if without else []
        return cls(place, rows, keys, kept, missing)

    def answered(self, profiles: Sequence[bytes | None], changed: Mapping[bytes, bytes]) -> Sequence[bytes | None]:
        """Return the profile of every key: as it was announced lately, else as it was read, else the copy."""
        if len(self.missing) < len(self.keys):
            read = iter(profiles)
            profiles = [next(read) if copy is None else copy for copy in self.kept]
        if changed:
            profiles = [changed.get(key, profile) for key, profile in zip(self.keys, profiles, strict=True)]
        return [profile or None for profile in profiles] if _NOTHING in profiles else profiles


class _Topic:
    """What is asked of one topic, and found: its keys sorted by partition."""

    def __init__(self, keys: Text, partitions: int, where: type_i64 | None) -> None:
        if where is None:
            partition_of_key = partitions_of(keys, partitions)
        else:  # those of no partition that there is come last, and are not asked for
            partition_of_key = np.where((where >= 0) & (where < partitions), where, partitions)
        self.order = np.argsort(partition_of_key, kind="stable")
        self.keys = keys.take(self.order).tolist()
        stops = np.cumsum(np.bincount(partition_of_key, minlength=partitions)[:partitions]).tolist()
        self.rows = {p: slice(a, b) for p, (a, b) in enumerate(pairwise([0, *stops])) if a < b}
        self.partitions = partitions
        n = len(self.keys)
        self.profiles: list[bytes | None] = [None] * n
        self.until_ms, self.applied = np.full(n, NEVER_MS, np.int64), np.full(n, NOT_APPLIED, np.int64)

    @property
    def found(self) -> LookedUp:
        """What was found, in the order that the keys came in."""
        profiles = np.empty(len(self.keys), object)
        profiles[self.order] = self.profiles
        until_ms, applied = np.empty_like(self.until_ms), np.empty_like(self.applied)
        until_ms[self.order], applied[self.order] = self.until_ms, self.applied
        return LookedUp(profiles.tolist(), until_ms, applied, self.partitions)


class LookupPlan:
    """The lookups of a batch, and where their answers belong. Ask :attr:`lookups` and :meth:`take` the answers until none is left."""

    def __init__(
        self,
        wanted: Mapping[str, Text],
        partitions: Mapping[str, int],
        foreign_cache: ForeignCache,
        where: Mapping[str, type_i64] | None = None,
    ) -> None:
        """Sort keys into the partitions that they are in.

        Args:
            wanted: distinct keys by topic.
            partitions: how many partitions each topic has.
            foreign_cache: what is kept already.
            where: by topic, (k,) the partition of each key; of topics that are left out, the one that the key belongs to.
        """
        self._foreign_cache, asked = foreign_cache, where or {}
        self._topics = {topic: _Topic(keys, partitions[topic], asked.get(topic)) for topic, keys in wanted.items()}
        self._open: list[_Asked] = []
        for name, topic in self._topics.items():
            for partition, rows in topic.rows.items():
                place, keys = (name, partition), topic.keys[rows]
                self._open.append(_Asked.of(place, rows, keys, foreign_cache.get(place, keys)))

    @property
    def lookups(self) -> list[Lookup]:
        """What is to be asked: also where every key is kept, since that is what proves the copies."""
        return [Lookup(*asked.place, asked.missing, self._foreign_cache.mark(asked.place)) for asked in self._open]

    def take(self, found: Sequence[Found]) -> None:
        """Take the answers to :attr:`lookups`. What was counted on and is not true any more is asked for next."""
        again = []
        for asked, answer in zip(self._open, found, strict=True):
            self._foreign_cache.take(asked.place, asked.missing, answer)
            if answer.changed is None and len(asked.missing) < len(asked.keys):
                again.append(_Asked.of(asked.place, asked.rows, asked.keys, [None] * len(asked.keys)))
            else:
                self._place(asked, answer)
        self._open = again

    def _place(self, asked: _Asked, answer: Found) -> None:
        topic = self._topics[asked.place[0]]
        topic.profiles[asked.rows] = asked.answered(answer.profiles, answer.changed or {})
        if answer.folded_until_ms is not None:
            topic.until_ms[asked.rows] = answer.folded_until_ms
        if answer.applied is not None:
            topic.applied[asked.rows] = answer.applied

    @property
    def found(self) -> dict[str, LookedUp]:
        """What was found, in the order of each topic's keys."""
        assert not self._open, "something is still to be asked"
        return {name: topic.found for name, topic in self._topics.items()}
