"""What is to be seen of a worker's state, beside what it counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from services.runtime import catalogue as m
from services.runtime.clock import Clock
from services.runtime.metrics import MetricsRegistry
from services.streams import Source
from services.worker.halting import Cause
from services.worker.partition_state import Partitions
from services.worker.processor import Processor
from services.worker.reading import Reading

REPORT_EVERY_S: Final = 0.25
"""How often it is set: asking the client for it costs more than a small batch."""


def detail_of(partitions: Partitions, processor: Processor[Any, Any], *, there: bool) -> dict[str, Any]:
    """Return what ``/readyz`` says of a worker's partitions; ``there``: whether there is the topic."""
    halted = {p: f"{halt}; {halt.remedy(processor.log, p)}" for p, halt in partitions.halted.items()}
    missing = {} if there else {"topic": f"there is no topic {processor.topic}"}
    return {"partitions": sorted(partitions.owned), "halted": halted, **missing}


@dataclass(slots=True)
class StatusReport:
    """Shows the state of one worker, on its thread."""

    source: Source
    partitions: Partitions
    reading: Reading
    clock: Clock
    metrics: MetricsRegistry
    _at_s: float = 0.0

    def show_when_due(self) -> None:
        """Set the metrics, if that is due."""
        if self.clock.monotonic_s() < self._at_s:
            return
        self._at_s = self.clock.monotonic_s() + REPORT_EVERY_S
        # What was read and is not published waits, too: a batch may wait for others for as long as it takes.
        lags = self.source.lag({p: owned.published for p, owned in self.partitions.owned.items()})
        self.metrics.replace(m.LAG, {(str(partition),): lag for partition, lag in lags.items()})
        halted = [halt.cause for halt in self.partitions.halted.values()]
        self.metrics.set(m.PARTITIONS, len(self.partitions.owned), "running")
        self.metrics.set(m.PARTITIONS, len(halted), "halted")
        self.metrics.replace(m.HALTED, {(cause.name,): float(halted.count(cause)) for cause in Cause})
        self.metrics.set(m.PROFILES_CACHED, self.reading.kept)
        self.metrics.set(m.FOREIGN_CACHE, self.reading.kept_of_others)
