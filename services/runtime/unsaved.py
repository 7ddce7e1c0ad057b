"""What was folded and is not in the grid yet.

A busy profile changes many times an interval and is written once. That is safe, since a take-over folds whatever lies between the applied
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
class SavingLimits:
    """What bounds how far the grid is behind."""

    interval_s: float
    """How long a profile may wait; 0 writes with every batch."""
    records_max: int
    """How many records may wait, whatever the time."""


EVERY_BATCH: Final = SavingLimits(0.0, 1)
"""Every batch writes what the one before it folded."""


@dataclass(slots=True)
class Part:
    """What waits of one partition."""

    since_s: float
    target: int = 0
    """The offset up to which it is folded."""
    records: int = 0
    folded_until_ms: int | None = None
    profiles: dict[bytes, bytes] = field(default_factory=dict)


class Unsaved:
    """The profiles of one worker that wait, by partition; the one that waits longest comes first."""

    def __init__(self, limits: SavingLimits) -> None:
        self._limits = limits
        self._waiting: dict[int, Part] = {}
        self._under_way: dict[int, Part] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, partition: int, target: int, now_s: float) -> Part:
        """Return what waits of a partition, which is folded up to an offset now."""
        part = self._waiting.get(partition)
        if part is None:
            part = self._waiting[partition] = Part(now_s)
        part.target = target
        return part

    def get(self, partition: int, card: bytes) -> bytes | None:
        """Return a profile that waits or is being written; None where it is the grid that knows."""
        for parts in (self._waiting, self._under_way):
            if partition in parts and (profile := parts[partition].profiles.get(card)) is not None:
                return profile
        return None

    def due(self, now_s: float) -> list[int]:
        """Return the partitions whose turn it is."""
        crowded = sum(part.records for part in self._waiting.values()) > self._limits.records_max
        found, profiles = [], 0
        for partition, part in self._waiting.items():
            if profiles >= AT_ONCE or not (crowded or now_s - part.since_s >= self._limits.interval_s):
                break
            found.append(partition)
            profiles += len(part.profiles)
        return found

    @property
    def partitions(self) -> list[int]:
        """All partitions of which something waits."""
        return list(self._waiting)

    @property
    def in_doubt(self) -> bool:
        """Whether something was taken of which nobody knows yet whether the grid has it: what waits behind it must not be written."""
        return bool(self._under_way)

    def take(self, partitions: list[int]) -> Mapping[int, Part]:
        """Return what is to be written; it is known here until :meth:`saved`."""
        assert not self.in_doubt, "one write at a time"
        self._under_way = {partition: self._waiting.pop(partition) for partition in partitions}
        return self._under_way

    def saved(self) -> None:
        """Forget what was taken: the grid knows it."""
        self._under_way = {}

    def clear(self) -> None:
        """Forget everything: it is folded again, or not at all."""
        self._waiting, self._under_way = {}, {}
