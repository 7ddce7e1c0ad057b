"""What was folded and is not in the grid yet.

A busy profile changes many times an interval and is written once: what has come within an interval is sealed, and written piece by piece. That is safe, since a take-over folds whatever lies between the applied
and the committed offset; it is bounded in time and in records, since that takes time. Partitions are written one after the other, so that
no single write is a pause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

AT_ONCE: Final = 2_000
"""No partition is added to a write of so many profiles: what a write of this size takes is hidden behind a batch."""


@dataclass(frozen=True, slots=True)
class WriteBehindLimits:
    """What bounds how far the grid is behind."""

    interval_s: float
    """How long a profile may wait; 0 writes with every batch."""
    records_max: int
    """How many records may wait, whatever the time."""


EVERY_BATCH: Final = WriteBehindLimits(0.0, 1)
"""Every batch writes what the one before it folded."""


@dataclass(slots=True)
class WaitingProfiles:
    """What waits of one partition."""

    target: int = 0
    """The offset up to which it is folded."""
    folded_until_ms: int | None = None
    profiles: dict[bytes, bytes] = field(default_factory=dict)

    def add(self, target: int, profiles: Mapping[bytes, bytes], folded_until_ms: int | None) -> None:
        """Have what was folded after it, up to an offset; the newest profile of each card is the one that counts."""
        self.target = target
        self.profiles |= profiles
        if folded_until_ms is not None:
            self.folded_until_ms = max(folded_until_ms, self.folded_until_ms or folded_until_ms)


class WriteBehindBuffer:
    """The profiles of one worker that are folded and not known to be in the grid, by partition.

    Called on the worker's thread only, and never fails but by an assertion: :meth:`add` after each batch; :meth:`seal` when :meth:`due`, everything
    that was sealed before is written, and what waits is committed; then :meth:`take` and :meth:`written` in turn, until nothing sealed is left.
    What was taken stays known until it is :meth:`written`, so that the grid may be asked again to write the same.
    """

    def __init__(self, limits: WriteBehindLimits) -> None:
        self._limits = limits
        self._waiting: dict[int, WaitingProfiles] = {}
        self._sealed: dict[int, WaitingProfiles] = {}
        self._under_way: dict[int, WaitingProfiles] = {}
        self._since_s = 0.0
        self._records = 0

    def __bool__(self) -> bool:
        return bool(self._waiting or self._sealed)

    def add(self, partition: int, records: int, now_s: float) -> WaitingProfiles:
        """Return what waits of a partition, to have more added to it that so many records more were folded into."""
        if not self._waiting:
            self._since_s = now_s
        self._records += records
        return self._waiting.setdefault(partition, WaitingProfiles())

    def get(self, partition: int, card: bytes) -> bytes | None:
        """Return a profile that waits or is being written; None where it is the grid that knows."""
        for parts in (self._waiting, self._sealed, self._under_way):  # the newest first
            if partition in parts and (profile := parts[partition].profiles.get(card)) is not None:
                return profile
        return None

    def due(self, now_s: float) -> bool:
        """Whether it is time to seal what waits: all that was sealed before has been written."""
        crowded = self._records > self._limits.records_max
        return (
            bool(self._waiting) and not self._sealed and (crowded or now_s - self._since_s >= self._limits.interval_s)
        )

    @property
    def too_many(self) -> bool:
        """Whether twice as many records wait as may."""
        return self._records > 2 * self._limits.records_max

    def seal(self) -> None:
        """Let what waits now be written next: its offsets are committed. What comes from now on waits."""
        assert not self._sealed, "a partition's parts are written in their order"
        self._sealed, self._waiting, self._records = self._waiting, {}, 0

    def next(self) -> list[int]:
        """Return the sealed partitions whose turn it is: enough of them for one write."""
        found, profiles = [], 0
        for partition, part in self._sealed.items():
            found.append(partition)
            profiles += len(part.profiles)
            if profiles >= AT_ONCE:
                break
        return found

    @property
    def in_doubt(self) -> bool:
        """Whether something was taken of which nobody knows yet whether the grid has it: what waits behind it must not be written."""
        return bool(self._under_way)

    def take(self, partitions: list[int]) -> Mapping[int, WaitingProfiles]:
        """Return what is to be written; it is known here until :meth:`written`."""
        assert not self.in_doubt, "one write at a time"
        self._under_way = {partition: self._sealed.pop(partition) for partition in partitions}
        return self._under_way

    def written(self) -> None:
        """Forget what was taken: the grid knows it."""
        self._under_way = {}

    def clear(self) -> None:
        """Forget everything: it is folded again, or not at all."""
        self._waiting, self._sealed, self._under_way, self._records = {}, {}, {}, 0
