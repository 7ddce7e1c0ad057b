"""The worker loop: the one place where a batch's effects happen, in one order.

1. read the profiles that are not in the near cache; the grid proves that it still holds what this worker wrote
2. decide (pure)
3. publish decisions, alerts, dead letters and the consumed offsets: in one atomic commit (``exactly_once``), or the outputs
   first and then the offsets (``at_least_once``)
4. apply the profiles and the offset to the grid, in one script a partition

So the grid's offset S never passes the committed offset C, and a crash anywhere leaves either C where it was, and the batch
is decided again from the same profiles with the same result, or S behind C, and the take-over (:mod:`.ownership`) folds the
rest without a word. Whatever is in doubt is settled the same way: give the batch up and take over again, so that reading
decides, not guessing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from services.grid import (
    Applied,
    Grid,
    GridUnavailableError,
    GridWrite,
)
from services.grid.near_cache import NearCache
from services.runtime import catalogue as m
from services.runtime.breaker import Breaker
from services.runtime.clock import Clock
from services.runtime.deciding import Deciding, Patience, Stages, WithoutProfiles
from services.runtime.fencings import Fencings
from services.runtime.halting import Cause
from services.runtime.health import Health
from services.runtime.logs import fields
from services.runtime.lookups import Copies
from services.runtime.metrics import MetricsRegistry
from services.runtime.notices import Notices
from services.runtime.outages import RETRY_S, AbandonedError, Outages
from services.runtime.ownership import Ownership
from services.runtime.processor import Outcome, P, Prepared, Processor, R
from services.runtime.reading import Caches, Reading
from services.runtime.suspects import CAREFUL_BATCH, Sandbox, Suspects
from services.runtime.upkeep import NoUpkeep, Upkeep
from services.streams import Output, Publisher, Records, Source, StreamsError
from services.streams.atomic import FencedError

T = TypeVar("T")
log = logging.getLogger("proact.worker")


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What bounds one turn of the loop."""

    batch_records_max: int
    poll_timeout_s: float
    near_cache_bytes: int
    copies_bytes: int = 64 * 1024 * 1024
    breaker_share: float = 0.5


@dataclass(frozen=True, slots=True)
class Ports:
    """What a worker talks to."""

    source: Source
    publisher: Publisher
    grid: Grid
    clock: Clock
    sandbox: Callable[[Outages], Sandbox]
    """Makes a sandbox that shows the group signs of life by the given outages."""
    upkeep: Upkeep = field(default_factory=NoUpkeep)


class Worker(Generic[P, R]):
    """Runs one processor over one topic; everything happens on the thread that calls :meth:`run`."""

    def __init__(
        self, processor: Processor[P, R], ports: Ports, health: Health, metrics: MetricsRegistry, limits: WorkerLimits
    ) -> None:
        self._processor, self._clock, self._limits = processor, ports.clock, limits
        self._source, self._publisher, self._grid = ports.source, ports.publisher, ports.grid
        self._upkeep = ports.upkeep
        self._health, self._metrics = health, metrics
        self._outages = Outages(ports.source, ports.clock, health, metrics)
        self._ownership = Ownership(
            processor, ports.source, ports.publisher, ports.grid, clock=ports.clock, outages=self._outages
        )  # fmt: skip
        self._suspects = Suspects(processor.topic, ports.grid, ports.sandbox(self._outages), self._outages, metrics)
        ports.source.revoked = self._ownership.release_all
        self._caches = Caches(NearCache(limits.near_cache_bytes), Copies(limits.copies_bytes))
        self._reading = Reading(processor.topic, ports.grid, self._ownership, self._outages, self._caches)
        self._stages = Stages(ports.clock, metrics)
        patience = Patience(self._outages, ports.upkeep)
        self._deciding = Deciding(processor, self._reading, self._ownership, patience, self._stages)
        self._breaker = Breaker(limits.breaker_share)
        self._notices = Notices(ports.clock)
        self._fencings = Fencings(ports.clock)

    def go_without_profiles(self, decide: WithoutProfiles[P, R]) -> None:
        """Decide by this when the grid is away, instead of waiting for it; called before :meth:`run`."""
        self._deciding.without_profiles = decide
        self._ownership.needs_grid = False

    def stop(self) -> None:
        """Ask the loop to end after the batch at hand; safe to call from a signal handler."""
        self._outages.stop()

    @property
    def stopping(self) -> bool:
        """Whether it was asked to end."""
        return self._outages.stopping

    def run(self) -> None:
        """Turn until :meth:`stop`, then give everything back. Raises DoubleError."""
        run_in_turn([self])

    def open(self) -> None:
        """Make the producer before joining the group: everybody waits for the last one that takes its partitions over."""
        try:
            self._publisher.open()
        except StreamsError as error:
            log.warning("Kafka is away", extra=fields(error=str(error)))  # waited out by the first take-over

    def release(self) -> None:
        """Give all partitions back in good order."""
        self._ownership.release_all()

    def close(self) -> None:
        """Leave the group, and release what was held."""
        self._upkeep.close()
        self._publisher.close()
        self._source.close()

    def turn(self) -> None:
        """Poll once, and do what came: a change of assignment, a batch, or nothing."""
        self._health.beat()
        most = CAREFUL_BATCH if self._suspects.careful else self._limits.batch_records_max
        try:
            self._upkeep.turn()
            records = self._source.poll(min(most, self._limits.batch_records_max), self._limits.poll_timeout_s)
            if self._source.assignment.generation != self._outages.generation:
                self._take_over()
            elif len(records):
                self._process(records)
            if self._outages.probe_due():
                self._probe(idle=not len(records))
            self._report()
        except FencedError as error:
            self._give_up("fenced", error)
            self._fencings.note(error)
        except StreamsError as error:
            self._health.set("log_reachable", False)
            self._give_up("log", error)
        except AbandonedError as error:
            self._give_up("abandoned", error)

    def _give_up(self, cause: str, error: Exception) -> None:
        """Begin again from what Kafka and the grid say."""
        self._metrics.add(m.ABANDONED, 1, cause)
        log.warning("begins again from the committed offsets", extra=fields(cause=cause, error=str(error)))
        self._outages.generation = -1
        self._clock.sleep(0.0 if self._outages.stopping else RETRY_S)

    def _take_over(self) -> None:
        self._reading.forget()
        self._deciding.begin()
        self._health.set("partitions_assigned", False)
        if not self._ownership.take_over():
            self._deciding.leave_behind()
        self._outages.wait_out("kafka", self._upkeep.begin)
        self._suspects.begin(self._ownership.owned, self._limits.batch_records_max)
        self._breaker.forget(self._ownership.halted)
        # A spare, which the group gave nothing, is as ready as one can be.
        self._health.set("partitions_assigned", self._source.assignment.member and not self._ownership.halted)
        halted = {partition: str(halt) for partition, halt in self._ownership.halted.items()}
        self._health.detail = {"partitions": sorted(self._ownership.owned), "halted": halted}

    def _probe(self, *, idle: bool) -> None:
        self._outages.probe(self._grid, idle=idle)
        if self._health.conditions["grid_reachable"]:
            self._reading.answers(hasty=False)  # it holds what was written to it, or this raises
            if self._deciding.behind:
                raise AbandonedError("the grid is back: what was decided without it is folded now")
        if self._ownership.resumed():
            raise AbandonedError("a halted partition was resumed")
        if idle and not self._deciding.behind:
            self._pass_marks()

    def _pass_marks(self) -> None:
        """Move offsets past what holds no record, such as the marks of atomic commits: else something would seem to wait."""
        owned = self._ownership.owned
        ahead = {p: at for p, at in self._source.positions().items() if p in owned and at > owned[p].committed}
        if ahead:
            self._commit([], ahead)
            self._write([GridWrite(owned[p].claim, owned[p].applied, at, [], []) for p, at in ahead.items()])

    # -- one batch -----------------------------------------------------------------------------------------------

    def _process(self, records: Records) -> None:
        now_ms, begin_s = self._clock.now_ms(), self._clock.monotonic_s()
        killers = self._suspects.screen(records, self._ownership.owned)
        prepared = self._stages.time("prepare", lambda: self._processor.prepare(records, killers))
        emit = self._emit_mask(records)
        outcome = self._deciding.decide(prepared, emit, now_ms, hasty=not self._suspects.careful)
        self._break(prepared, outcome)
        self._stages.time("publish", lambda: self._publish(records, outcome))
        committed_ms = now_ms + round(1000 * (self._clock.monotonic_s() - begin_s))
        # Counted here: what is committed is decided, whatever the grid says.
        self._metrics.add(m.RECORDS_IN, len(records))
        self._metrics.add(m.RECOVERED, outcome.folded_only)
        self._metrics.observe(m.BATCH_RECORDS, len(records))
        self._processor.measure(self._metrics, prepared, outcome, committed_ms)
        self._notices.tell(outcome.notices)
        self._stages.time("apply", lambda: self._apply(prepared, outcome))
        self._suspects.survived(records.next_offsets(), self._ownership.owned)

    def _emit_mask(self, records: Records) -> Any:
        committed = np.zeros(int(records.partition.max()) + 1, np.int64)
        for partition, owned in self._ownership.owned.items():
            if partition < len(committed):
                committed[partition] = owned.committed
        return records.offset >= committed[records.partition]

    def _break(self, prepared: P, outcome: R) -> None:
        """Stop partitions whose records are mostly bad, before another batch of them becomes dead letters."""
        records, owned = prepared.records, self._ownership.owned
        first = {p: int(records.offset[records.partition == p][0]) for p in set(outcome.refused.tolist())}
        seen = [p for p, offset in first.items() if offset < owned[p].claim.accepted]
        judged = records.partition[~np.isin(records.partition, seen)]
        tripped = self._breaker.add(judged, outcome.refused, self._clock.monotonic_s())
        for partition, reason in tripped.items():
            self._ownership.halt(partition, reason)
        if tripped:
            raise AbandonedError("; ".join(tripped.values()))

    def _publish(self, records: Records, outcome: Outcome) -> None:
        owned = self._ownership.owned
        ahead = {p: offset for p, offset in records.next_offsets().items() if offset > owned[p].committed}
        if ahead:
            self._commit(outcome.outputs, ahead)
        self._health.set("log_reachable", True)

    def _commit(self, outputs: Sequence[Output], offsets: Mapping[int, int]) -> None:
        self._publisher.publish(outputs, offsets)
        for partition, offset in offsets.items():
            self._ownership.owned[partition].committed = offset

    def _apply(self, prepared: Prepared, outcome: Outcome) -> None:
        if self._deciding.behind:
            return
        self._write(self._grid_writes(prepared.records.next_offsets(), prepared, outcome))

    def _write(self, writes: Sequence[GridWrite]) -> None:
        if self._deciding.without_profiles is None:
            self._take(writes, self._outages.wait_out("redis", lambda: self._grid.apply(self._processor.topic, writes)))
            return
        try:
            self._take(writes, self._grid.apply(self._processor.topic, writes))
        except GridUnavailableError as error:
            self._deciding.leave_behind(error)

    def _take(self, writes: Sequence[GridWrite], answers: Sequence[Applied]) -> None:
        for write, answer in zip(writes, answers, strict=True):
            partition = write.claim.partition
            if answer is not Applied.APPLIED:
                raise AbandonedError(f"the grid refused the profiles of partition {partition}: {answer.value}")
            self._ownership.owned[partition].applied = write.target
            self._reading.keep(partition, write.cards, write.profiles)

    def _grid_writes(self, targets: Mapping[int, int], prepared: Prepared, outcome: Outcome) -> list[GridWrite]:
        cards: dict[int, list[bytes]] = {p: [] for p in targets}
        profiles: dict[int, list[bytes]] = {p: [] for p in targets}
        for partition, card, profile in zip(prepared.partitions, prepared.cards, outcome.profiles, strict=True):
            if profile is not None:
                cards[partition].append(card)
                profiles[partition].append(profile)
        owned = self._ownership.owned
        return [
            GridWrite(
                owned[p].claim,
                owned[p].applied,
                target,
                cards[p],
                profiles[p],
                outcome.folded_until_ms.get(p),
                self._processor.announces,
            )
            for p, target in targets.items()
        ]

    # -- what is shown -------------------------------------------------------------------------------------------

    def _report(self) -> None:
        self._metrics.replace(m.LAG, {(str(partition),): lag for partition, lag in self._source.lag().items()})
        halted = [halt.cause for halt in self._ownership.halted.values()]
        self._metrics.set(m.PARTITIONS, len(self._ownership.owned), "running")
        self._metrics.set(m.PARTITIONS, len(halted), "halted")
        self._metrics.replace(m.HALTED, {(cause.name,): float(halted.count(cause)) for cause in Cause})
        self._metrics.set(m.PROFILES_CACHED, len(self._caches.own))
        self._metrics.set(m.COPIES, len(self._caches.copies))


def run_in_turn(workers: Sequence[Worker[Any, Any]]) -> None:
    """Let workers take turns on this thread until one is asked to end, then give everything back. Raises DoubleError."""
    with ExitStack() as ending:
        for worker in workers:
            ending.callback(worker.close)
            worker.open()
        while not any(worker.stopping for worker in workers):
            for worker in workers:
                worker.turn()
        for worker in workers:
            worker.release()
