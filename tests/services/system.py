"""A whole scorer over twins in memory: log, grid, clock; for tests of the worker's order and of what faults do to it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from services.codec.records import decode_record
from services.codec.transactions import TOPIC, encode_transactions
from services.core.columns import TransactionColumns
from services.core.features import compute_offline
from services.grid.memory import MemoryGrid
from services.inference.artifact import XgboostModel, load_model
from services.inference.released import newest_model
from services.runtime.clock import ManualClock
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.worker import Worker, WorkerLimits
from services.scorer.processor import PreparedTransactions, ScoredOutcome, ScorerProcessor
from services.streams.memory import MemoryLog, MemorySink, MemorySource

KAFKA_TIMESTAMP_MS = 1_900_000_000_000
VOLATILE = ("decided_at_ms",)
"""What two equal decisions may differ in."""


@cache
def released_model() -> XgboostModel:
    return load_model(newest_model())


class CrashError(BaseException):
    """The process dies here: nothing catches it."""


class Crashing:
    """Counts the calls that have effects, and dies before or after the chosen one."""

    def __init__(self, at: int | None = None, *, before: bool = True) -> None:
        self.calls, self._at, self._before = 0, at, before

    def around(self, call: Any) -> Any:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls == self._at and self._before:
                raise CrashError
            result = call(*arguments, **named)
            if self.calls == self._at:
                raise CrashError
            return result

        return wrapped


@dataclass
class MemorySystem:
    """Log, grid and clock that outlive workers, and workers that come and go."""

    partitions: int = 2
    log: MemoryLog = field(init=False)
    grid: MemoryGrid = field(default_factory=MemoryGrid)
    clock: ManualClock = field(default_factory=lambda: ManualClock(KAFKA_TIMESTAMP_MS))
    batch_records_max: int = 16

    def __post_init__(self) -> None:
        self.log = MemoryLog(self.partitions)

    def produce(self, columns: TransactionColumns) -> None:
        for key, value in zip(columns.card_id.tolist(), encode_transactions(columns), strict=True):
            self.log.append(TOPIC, key, value, KAFKA_TIMESTAMP_MS, sum(key) % self.partitions)

    def worker(
        self, crashing: Crashing | None = None, *partitions: int
    ) -> tuple[Worker[PreparedTransactions, ScoredOutcome], MemorySource]:
        source, sink, grid = MemorySource(self.log, TOPIC), MemorySink(self.log), self.grid
        if crashing is not None:
            for owner, names in ((source, ("commit",)), (sink, ("send", "flush"))):
                for name in names:
                    setattr(owner, name, crashing.around(getattr(owner, name)))
            grid = _CrashingGrid(self.grid, crashing)  # type: ignore[assignment]
        source.assign(*(partitions or range(self.partitions)))
        worker = Worker(
            ScorerProcessor(released_model()), source, sink, grid,
            clock=self.clock, health=Health(self.clock), metrics=MetricsRegistry(),
            limits=WorkerLimits(self.batch_records_max, 0.0, 10_000_000),
        )  # fmt: skip
        return worker, source

    def drain(self, worker: Worker[PreparedTransactions, ScoredOutcome], turns: int = 500) -> None:
        """Turn until nothing is left to do."""
        for _ in range(turns):
            worker.turn()
            committed = {p: self.log.committed.get((TOPIC, p), 0) for p in range(self.partitions)}
            applied = {p: meta.applied or 0 for (_, p), meta in self.grid.metas.items()}
            ends = {p: len(self.log.partition_log(TOPIC, p)) for p in range(self.partitions)}
            if committed == ends and all(applied.get(p, 0) == ends[p] for p in ends):
                return
        raise AssertionError("the worker did not finish")

    def records(self, topic: str) -> list[dict[str, Any]]:
        raw = [r for p in range(self.partitions) for r in self.log.partition_log(topic, p)]
        return [decode_record(value or b"")[1] for _, value, _ in raw]

    def decisions(self) -> dict[tuple[int, int], list[dict[str, Any]]]:
        """Return the decisions by the position of their transaction, without what may differ."""
        found = defaultdict(list)
        for record in self.records("card-decisions"):
            found[record["source_partition"], record["source_offset"]].append(
                {name: repr(value) for name, value in record.items() if name not in VOLATILE}
            )
        return dict(found)


class _CrashingGrid:
    """A grid whose claim and apply may be the last thing that a worker does."""

    def __init__(self, grid: MemoryGrid, crashing: Crashing) -> None:
        self.claim, self.apply = crashing.around(grid.claim), crashing.around(grid.apply)
        self.read, self.check = grid.read, grid.check


def expected_vectors(columns: TransactionColumns, partitions: int) -> dict[tuple[int, int], np.ndarray]:
    """Return the vector of each transaction by its position, computed offline."""
    vectors, ends, found = compute_offline(columns).vectors, [0] * partitions, {}
    for key, vector in zip(columns.card_id.tolist(), vectors, strict=True):
        partition = sum(key) % partitions
        found[partition, ends[partition]] = vector
        ends[partition] += 1
    return found
