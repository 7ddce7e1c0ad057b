"""Stalls of a scorer that works: stages of batches that wait for nobody and took long all the same.

What a garbage collection, a compilation, a line of the log or a scrape takes of the worker's thread is in the time of the stage that it
interrupted, and so is what the machine takes; a batch of a few records takes under a millisecond by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.runtime import catalogue as m
from services.runtime.children import histogram_counts

STALL_S: Final = 0.02
"""From when on a stage counts as stalled: an edge of the metric's buckets."""
_ALONE: Final = ("prepare", "decide")
"""The stages that wait for neither Kafka nor Redis."""


@dataclass(frozen=True, slots=True)
class StageCounts:
    """How many stages there were since a scorer began, and how many of them were stalled."""

    count: int
    stalled: int

    @classmethod
    def of(cls, said: str) -> StageCounts:
        """Read them off the text of /metrics."""
        counts = histogram_counts(said, m.STAGE_SECONDS)
        total = sum(counts.get((stage,), {}).get("+Inf", 0.0) for stage in _ALONE)
        quick = sum(counts.get((stage,), {}).get(str(STALL_S), 0.0) for stage in _ALONE)
        return cls(round(total), round(total - quick))

    def since(self, before: StageCounts) -> dict[str, int]:
        """Return what came after ``before``."""
        return {"stages": self.count - before.count, "stages_above_20_ms": self.stalled - before.stalled}
