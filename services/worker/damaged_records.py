"""Records that cannot be read: read again, since what damaged them may have been the way, and halted where they stay so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.streams import DamagedRecordError

TRIES_MAX: Final = 3


class DamagedRecords:
    """Counts, for one worker, how often reading a record of a partition failed since it was read last."""

    def __init__(self) -> None:
        self._tries: dict[tuple[int, int], int] = {}

    def note(self, error: DamagedRecordError) -> None:
        """Note that reading failed."""
        at = error.partition, error.offset
        self._tries[at] = self._tries.get(at, 0) + 1

    def survived(self, next_offsets: Mapping[int, int]) -> None:
        """Note that everything before these offsets, by partition, was read: what damaged it was the way."""
        if self._tries:
            self._tries = {(p, at): tries for (p, at), tries in self._tries.items() if at >= next_offsets.get(p, 0)}

    def lasting(self) -> dict[int, str]:
        """Return the partitions that have a record which cannot be read, with what to tell of it; each is returned once."""
        found = {at: tries for at, tries in self._tries.items() if tries >= TRIES_MAX}
        for at in found:
            del self._tries[at]
        return {
            partition: f"the log's record at offset {offset} cannot be read, {tries} times in turn: restore it from a replica, or delete "
            "the records up to there"
            for (partition, offset), tries in found.items()
        }
