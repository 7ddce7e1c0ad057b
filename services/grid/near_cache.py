"""A worker's own copy of profiles, so that a batch reads from the grid only what is new to it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence


class NearCache:
    """Profiles by partition and card, bounded in bytes; the ones written longest ago go first.

    Of a worker's own partitions it is true because their profiles have one writer: this worker, from its claim on. So it is
    cleared whenever claims are taken again or a write is in doubt. What makes it true of others': :mod:`services.runtime.lookups`.
    """

    OVERHEAD_BYTES = 200
    """What an entry costs beside its profile: the key, two object headers, its place in the dictionary."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._partitions: dict[Hashable, dict[bytes, bytes]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return sum(len(p) for p in self._partitions.values())

    def get(self, partitions: Sequence[Hashable], cards: Sequence[bytes]) -> list[bytes | None]:
        """Return each card's profile, None where it is not here, which does not mean that there is none."""
        nothing: dict[bytes, bytes] = {}
        return [
            self._partitions.get(partition, nothing).get(card)
            for partition, card in zip(partitions, cards, strict=True)
        ]

    def put(self, partition: Hashable, cards: Iterable[bytes], profiles: Iterable[bytes]) -> None:
        """Keep what was just applied to the grid."""
        kept = self._partitions.setdefault(partition, {})
        for card, profile in zip(cards, profiles, strict=True):
            old = kept.pop(card, None)  # so that it goes to the end of the dictionary's order
            self._bytes += len(profile) - len(old) if old is not None else len(profile) + self.OVERHEAD_BYTES
            kept[card] = profile
        while self._bytes > self._bytes_max and kept:
            self._bytes -= len(kept.pop(next(iter(kept)))) + self.OVERHEAD_BYTES

    def drop(self, partition: Hashable) -> None:
        """Forget one partition."""
        gone = self._partitions.pop(partition, {})
        self._bytes -= sum(len(profile) + self.OVERHEAD_BYTES for profile in gone.values())

    def clear(self) -> None:
        """Forget everything."""
        self._partitions, self._bytes = {}, 0
