"""A worker's own copy of profiles, so that a batch reads from the grid only what is new to it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

_Generation = dict[Hashable, dict[bytes, bytes]]


class NearCache:
    """Profiles by partition and card, bounded in bytes; those go first that were not written for longest.

    It has two generations: what is written goes to the young one, and when that is half of the whole it becomes the old one, and the old
    one is forgotten. So nothing is done for each profile but to put it there.

    Of a worker's own partitions it is true because their profiles have one writer: this worker, from its claim on. So it is
    cleared whenever claims are taken again or a write is in doubt. What makes it true of others': :mod:`services.worker.lookups`.
    """

    OVERHEAD_BYTES = 200
    """What an entry costs beside its profile: the key, two object headers, its place in the dictionary."""

    def __init__(self, bytes_max: int) -> None:
        self._young_bytes_max = bytes_max // 2
        self._young: _Generation = {}
        self._old: _Generation = {}
        self._young_bytes = 0

    def __len__(self) -> int:
        """Return how many profiles are here; those that are in both generations count twice."""
        return sum(len(kept) for generation in (self._young, self._old) for kept in generation.values())

    def get(self, partition: Hashable, cards: Sequence[bytes]) -> list[bytes | None]:
        """Return each card's profile, None where it is not here, which does not mean that there is none."""
        found: list[bytes | None] = list(map(self._young.get(partition, {}).get, cards))
        old = self._old.get(partition)
        if old and None in found:
            found = [old.get(card) if profile is None else profile for card, profile in zip(cards, found, strict=True)]
        return found

    def put(self, partition: Hashable, profiles: Mapping[bytes, bytes]) -> None:
        """Keep what was just written."""
        if not self._young_bytes_max:
            return
        self._young.setdefault(partition, {}).update(profiles)
        self._young_bytes += _bytes(profiles)
        if self._young_bytes > self._young_bytes_max:
            # What was written twice was counted twice.
            self._young_bytes = sum(_bytes(kept) for kept in self._young.values())
            # It is counted anew before it is full, since else every further put might count.
            if self._young_bytes > 0.75 * self._young_bytes_max:
                self._young, self._old, self._young_bytes = {}, self._young, 0

    def drop(self, partition: Hashable) -> None:
        """Forget one partition."""
        self._young_bytes = max(0, self._young_bytes - _bytes(self._young.pop(partition, {})))
        self._old.pop(partition, None)

    def clear(self) -> None:
        """Forget everything."""
        self._young, self._old, self._young_bytes = {}, {}, 0


def _bytes(profiles: Mapping[bytes, bytes]) -> int:
    return sum(map(len, profiles.values())) + NearCache.OVERHEAD_BYTES * len(profiles)
