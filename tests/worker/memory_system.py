"""A whole scorer over twins in memory: log, grid, clock; for tests of the worker's order and of what faults do to it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from services.codec.records import decode_record
from services.codec.transactions import TOPIC, encode_transactions
from services.core.columns import TransactionColumns
from services.core.fallback import SafeDefault
from services.core.offline import compute_offline
from services.grid.memory import GridMemory
from services.inference.artifact import ReleasedModel, load_model
from services.inference.released import live_model
from services.runtime.clock import ManualClock
from services.scorer.processor import PreparedTransactions, ScoredOutcome, ScorerProcessor
from services.streams import AtPlaces
from services.streams.background import LateBackground, PromptBackground
from services.streams.memory import MemoryLog, MemorySource, direct
from services.streams.memory_commits import partition_of
from services.worker.excluded import Letters, NoDeadLetters
from services.worker.loop import Worker
from services.worker.ports import WorkerLimits
from services.worker.processor import LookedUp
from services.worker.write_behind import EVERY_BATCH, WriteBehindLimits
from tests.generators import random_events, to_columns
from tests.worker.harness import MemoryWorkers

EVENTS = 90
KAFKA_TIMESTAMP_MS = 1_900_000_000_000
SAFE = SafeDefault(30.0, 300.0)
VOLATILE = ("decided_at_ms",)
OF_OTHERS = (
    "score", "anomaly_score", "action", "decided_by", "fallback_tier", "scored_by", "transaction_class", "reasons", "declines", "counterfactuals",
    "degraded", "terminal_behind_ms",
)  # fmt: skip
"""What a decision rests on others for: those that did not answer in time make it another one, on a lower fallback tier, that says so."""


@cache
def released_model() -> ReleasedModel:
    return load_model(live_model())


def nothing_known(prepared: Any, applied: int = 0) -> dict[str, LookedUp]:
    """Return what is found of others where they answer in time and know nothing; what a batch points to lies where it says."""
    found = {
        topic: LookedUp(
            [None] * len(keys), np.full(len(keys), KAFKA_TIMESTAMP_MS), np.full(len(keys), applied, np.int64)
        )
        for topic, keys in prepared.lookups.items()
    }
    for topic in prepared.places:
        n, requests = len(prepared.requests), prepared.requests
        no = np.zeros(n, bool)
        at = AtPlaces(prepared.columns.card_id.tolist(), list(requests.transactions), ~no, no, no)
        found[topic] = replace(found[topic], places=at)
    return found


class CrashError(BaseException):
    """The process dies here: nothing catches it."""


class Crashing:
    """A wire that counts the requests of a worker, and lets it die before or after the chosen one."""

    def __init__(self, at: int | None = None, *, before: bool = True) -> None:
        self.calls, self._at, self._before = 0, at, before

    def __call__(self, name: str, request: Any) -> Any:  # noqa: ARG002 - the signature of a wire
        self.calls += 1
        if self.calls == self._at and self._before:
            raise CrashError
        result = request()
        if self.calls == self._at:
            raise CrashError
        return result


@dataclass
class MemorySystem:
    """Log, grid and clock that outlive workers, and workers that come and go."""

    partitions: int = 2
    log: MemoryLog = field(init=False)
    grid: GridMemory = field(default_factory=GridMemory)
    clock: ManualClock = field(default_factory=lambda: ManualClock(KAFKA_TIMESTAMP_MS))
    batch_records_max: int = 16
    births: int = 0
    saving: WriteBehindLimits = EVERY_BATCH
    background: type[LateBackground] = PromptBackground

    def __post_init__(self) -> None:
        self.log = MemoryLog(self.partitions, monotonic_s=self.clock.monotonic_s, sleep=self.clock.sleep)

    @property
    def workers(self) -> MemoryWorkers:
        """What makes workers over the log, grid and clock as they are now: a test may put another grid there."""
        return MemoryWorkers(log=self.log, grid=self.grid, clock=self.clock, topic=TOPIC)

    def produce(self, columns: TransactionColumns) -> None:
        for key, value in zip(columns.card_id.tolist(), encode_transactions(columns), strict=True):
            self.log.append(TOPIC, key, value, KAFKA_TIMESTAMP_MS, partition_of(key, self.partitions))

    def worker(
        self,
        wire: Any = direct,
        *,
        guarantee: str = "exactly_once",
        breaker_share: float = 0.5,
        without_profiles: str = "wait",
        processor: ScorerProcessor | None = None,
        letters: Letters | None = None,
        name: str = "the-worker",
    ) -> tuple[Worker[PreparedTransactions, ScoredOutcome], MemorySource]:
        """Start a worker that gets every partition."""
        self.births += 1
        member = f"worker-{self.births}"
        processor = processor or ScorerProcessor(released_model(), SAFE)
        limits = WorkerLimits(self.batch_records_max, 0.0, 10_000_000, self.saving, breaker_share=breaker_share)
        made = replace(
            self.workers,
            guarantee=guarantee,
            limits=limits,
            letters=letters or NoDeadLetters(),
            background=self.background,
        ).new(processor, member, name, wire)
        self.log.rebalance({member: tuple(range(self.partitions))})
        if without_profiles == "fallback":
            made.worker.go_without_profiles(processor.decide_without_profiles)
        return made.worker, made.source

    def drain(self, worker: Worker[PreparedTransactions, ScoredOutcome], turns: int = 500) -> None:
        """Turn until nothing is left to do."""
        for _ in range(turns):
            worker.turn()
            committed = {p: self.log.committed.get((TOPIC, p), 0) for p in range(self.partitions)}
            applied = {p: meta.applied or 0 for (_, p), meta in self.grid.metas.items()}
            ends = {p: self.log.end(TOPIC, p) for p in range(self.partitions)}
            if committed == ends and all(applied.get(p, 0) == ends[p] for p in ends):
                return
        raise AssertionError("the worker did not finish")

    def records(self, topic: str) -> list[dict[str, Any]]:
        raw = [r for p in range(self.partitions) for r in self.log.visible(topic, p)]
        return [decode_record(record.value or b"")[1] for record in raw]

    def decisions(self) -> dict[tuple[int, int], list[dict[str, Any]]]:
        """Return the decisions by the position of their transaction, without what may differ."""
        found = defaultdict(list)
        for record in self.records("card-decisions"):
            found[record["source_partition"], record["source_offset"]].append(
                {name: repr(value) for name, value in record.items() if name not in VOLATILE}
            )
        return dict(found)


def expected_vectors(columns: TransactionColumns, partitions: int) -> dict[tuple[int, int], np.ndarray]:
    """Return the vector of each transaction by its position, computed offline."""
    vectors, ends, found = compute_offline(columns).vectors, [0] * partitions, {}
    for key, vector in zip(columns.card_id.tolist(), vectors, strict=True):
        partition = partition_of(key, partitions)
        found[partition, ends[partition]] = vector
        ends[partition] += 1
    return found


def reference(seed: int = 1) -> MemorySystem:
    """A run without any fault."""
    system = MemorySystem()
    system.produce(to_columns(random_events(seed, EVENTS, cards=6)))
    worker, _ = system.worker()
    system.drain(worker)
    return system


def _comparable(decision: dict[str, Any], found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a decision must be whether others answered in time or not, if they did not."""
    lower = any(one["fallback_tier"] != repr("CHAMPION") for one in found)
    return {name: value for name, value in decision.items() if not (lower and name in OF_OTHERS)}


def assert_same_end(expected: MemorySystem, actual: MemorySystem) -> None:
    """Every transaction has its one decision, that of a run without faults; so are the profiles."""
    wanted, found = expected.decisions(), actual.decisions()
    assert wanted
    assert found.keys() == wanted.keys()
    for position, decisions in found.items():
        if any("PROFILE_MISSED" in one["degraded"] for one in decisions):
            continue  # made without the card's own past, and says so
        assert [_comparable(d, decisions) for d in decisions] == [_comparable(d, decisions) for d in wanted[position]]
    assert actual.grid.profiles == expected.grid.profiles
    assert {k: v.applied for k, v in actual.grid.metas.items()} == {
        k: v.applied for k, v in expected.grid.metas.items()
    }
