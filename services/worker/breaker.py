"""A burst of bad records stops their partition: it is a sender that is broken, not a few records."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from services.core.columns import type_i64

WINDOW_S: Final = 10.0
REFUSED_MIN: Final = 500
"""So many records must be refused before their share counts."""


@dataclass(slots=True)
class _Window:
    """What came of one partition lately, with its sums, so that a batch costs the same however many came before it."""

    counts: deque[tuple[float, int, int]] = field(default_factory=deque)
    total: int = 0
    bad: int = 0

    def add(self, now_s: float, records: int, refused: int) -> None:
        self.counts.append((now_s, records, refused))
        self.total, self.bad = self.total + records, self.bad + refused
        while self.counts[0][0] <= now_s - WINDOW_S:
            _, records, refused = self.counts.popleft()
            self.total, self.bad = self.total - records, self.bad - refused


class Breaker:
    """Counts records and declines of each partition over the last ``WINDOW_S``."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._windows: dict[int, _Window] = defaultdict(_Window)

    def add(self, partitions: type_i64, refused: type_i64, now_s: float) -> dict[int, str]:
        """Count a batch that is not committed yet; return, by partition, why it must be stopped.

        Args:
            partitions: (n,) the partition of every record.
            refused: (r,) the partition of every refused one.
            now_s: monotonic seconds.
        """
        tripped = {}
        records = np.bincount(partitions)
        bad = np.bincount(refused, minlength=len(records))
        for partition in np.flatnonzero(records).tolist():
            window = self._windows[partition]
            window.add(now_s, int(records[partition]), int(bad[partition]))
            if window.bad >= REFUSED_MIN and window.bad > self._share * window.total:
                tripped[partition] = (
                    f"breaker: {window.bad} of {window.total} records within {WINDOW_S:.0f} s were refused"
                )
        return tripped

    def forget(self, partitions: Iterable[int]) -> None:
        """Begin anew."""
        for partition in partitions:
            self._windows.pop(partition, None)
