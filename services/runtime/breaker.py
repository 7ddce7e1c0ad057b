"""A burst of bad records stops their partition: it is a sender that is broken, not a few records."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Final

import numpy as np

from services.core.columns import type_i64

WINDOW_S: Final = 10.0
REFUSED_MIN: Final = 500
"""So many records must be refused before their share counts."""


class Breaker:
    """Counts records and refusals of each partition over the last ``WINDOW_S``."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._counts: dict[int, deque[tuple[float, int, int]]] = defaultdict(deque)

    def add(self, partitions: type_i64, refused: type_i64, now_s: float) -> dict[int, str]:
        """Count a batch that is not committed yet; return, by partition, why it must be stopped.

        Args:
            partitions: (n,) the partition of every record.
            refused: (r,) the partition of every refused one.
            now_s: monotonic seconds.
        """
        tripped = {}
        for partition, records in zip(*np.unique(partitions, return_counts=True), strict=True):
            window = self._counts[int(partition)]
            window.append((now_s, int(records), int((refused == partition).sum())))
            while window[0][0] <= now_s - WINDOW_S:
                window.popleft()
            total, bad = sum(w[1] for w in window), sum(w[2] for w in window)
            if bad >= REFUSED_MIN and bad > self._share * total:
                tripped[int(partition)] = f"breaker: {bad} of {total} records within {WINDOW_S:.0f} s were refused"
        return tripped

    def forget(self, partitions: Iterable[int]) -> None:
        """Begin anew."""
        for partition in partitions:
            self._counts.pop(partition, None)
