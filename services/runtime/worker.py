"""The worker loop: the one place where a batch's effects happen, in one order.

A partition's life at this worker: the group assigns it; the worker *takes it over*, which is to ask Kafka for the stable
committed offset C and the grid, by a claim, for the applied offset S; it reads on from S; records in [S, C) have their
outputs already and are only folded; from C on they are decided.

A batch's order:

1. read the profiles that are not in the near cache
2. decide (pure)
3. send decisions, alerts and dead letters, and wait until Kafka has acknowledged them
4. commit the offsets
5. apply the profiles and the offset to the grid, in one script a partition

So S <= C always, and a crash anywhere leaves either C where it was, and the batch is decided again from the same
profiles with the same result, or S behind C, and the take-over folds the rest without a word. Whatever is in doubt is
settled the same way: give the batch up and take over again, so that reading decides, not guessing. Steps 3 and 4 become
one atomic commit under another guarantee; nothing else changes then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from services.grid import Applied, Claim, Grid, GridUnavailableError, GridWrite, RefusedClaimError
from services.grid.near_cache import NearCache
from services.runtime import catalogue as m
from services.runtime.clock import Clock
from services.runtime.halting import halt_reason
from services.runtime.health import Health
from services.runtime.logs import fields
from services.runtime.metrics import MetricsRegistry
from services.runtime.notices import Notices
from services.runtime.processor import Outcome, P, Prepared, Processor, R
from services.streams import Records, Sink, Source, StreamsError
from services.streams.base import LogState

T = TypeVar("T")
log = logging.getLogger("proact.worker")

RETRY_S = 0.2
"""How long to stay in the group between two tries of what an outage refused."""
FLUSH_S = 0.25
"""How long to wait for acknowledgements before showing the group a sign of life."""
PROBE_EVERY_S = 2.0
"""How often an idle worker asks whether Kafka and Redis are there."""
STOP_WITHIN_S = 4.0
"""How long a batch may go on after a request to stop; then it is given up, which loses nothing."""


class AbandonedError(Exception):
    """A batch is given up: its partitions moved, its outcome is in doubt, or the worker is told to stop."""


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What bounds one turn of the loop."""

    batch_records_max: int
    poll_timeout_s: float
    near_cache_bytes: int


@dataclass(slots=True)
class _Owned:
    """A partition that this worker owns."""

    claim: Claim
    applied: int | None
    committed: int
    """Outputs exist for every record before this offset."""


class Worker(Generic[P, R]):
    """Runs one processor over one topic; everything happens on the thread that calls :meth:`run`."""

    def __init__(
        self,
        processor: Processor[P, R],
        source: Source,
        sink: Sink,
        grid: Grid,
        *,
        clock: Clock,
        health: Health,
        metrics: MetricsRegistry,
        limits: WorkerLimits,
    ) -> None:
        self._processor, self._source, self._sink, self._grid = processor, source, sink, grid
        self._clock, self._health, self._metrics, self._limits = clock, health, metrics, limits
        self._cache = NearCache(limits.near_cache_bytes)
        self._notices = Notices(clock)
        self._owned: dict[int, _Owned] = {}
        self._halted: dict[int, str] = {}
        self._generation = 0
        self._probe_at_s = 0.0
        self._stop_at_s: float | None = None

    def stop(self) -> None:
        """Ask the loop to end after the batch at hand; safe to call from a signal handler."""
        self._stop_at_s = self._clock.monotonic_s() + STOP_WITHIN_S

    def run(self) -> None:
        """Turn until :meth:`stop`, then leave the group."""
        try:
            while self._stop_at_s is None:
                self.turn()
        finally:
            self._sink.close()
            self._source.close()

    def turn(self) -> None:
        """Poll once, and do what came: a change of assignment, a batch, or nothing."""
        self._health.beat()
        try:
            records = self._source.poll(self._limits.batch_records_max, self._limits.poll_timeout_s)
            if self._source.assignment.generation != self._generation:
                self._take_over()
            elif len(records):
                self._process(records)
            else:
                self._probe()
            self._report()
        except StreamsError as error:
            self._health.set("log_reachable", False)
            self._give_up("log", error)
        except AbandonedError as error:
            self._give_up("abandoned", error)

    def _give_up(self, cause: str, error: Exception) -> None:
        """Begin again from what Kafka and the grid say."""
        self._metrics.add(m.ABANDONED, 1, cause)
        log.warning("begins again from the committed offsets", extra=fields(cause=cause, error=str(error)))
        self._generation = -1
        self._clock.sleep(RETRY_S if self._stop_at_s is None else 0.0)

    # -- taking over ---------------------------------------------------------------------------------------------

    def _take_over(self) -> None:
        """Claim every assigned partition and go on from where the grid is."""
        assignment = self._source.assignment
        self._generation = assignment.generation
        self._cache.drop(list(self._owned))
        self._owned, self._halted = {}, {}
        self._health.set("partitions_assigned", False)
        if assignment.partitions:
            states = self._wait_out("kafka", lambda: self._source.log_states(assignment.partitions))
            for partition in assignment.partitions:
                self._claim(partition, states[partition])
            self._source.start({p: self._start_offset(states[p], owned) for p, owned in self._owned.items()})
        # A spare, which the group gave nothing, is as ready as one can be.
        self._health.set("partitions_assigned", assignment.member and not self._halted)
        self._health.detail = {"partitions": sorted(self._owned), "halted": self._halted}

    def _claim(self, partition: int, state: LogState) -> None:
        topic, layout = self._processor.topic, self._processor.layout
        try:
            claim = self._wait_out("redis", lambda: self._grid.claim(topic, partition, state.topic_id, layout))
        except RefusedClaimError as error:
            self._halt(partition, str(error))
            return
        reason = halt_reason(state, claim.applied)
        if reason is not None:
            self._halt(partition, reason)
            return
        committed = state.log_start if state.committed is None else state.committed
        self._owned[partition] = _Owned(claim, claim.applied, committed)
        start = self._start_offset(state, self._owned[partition])
        log.info(
            "took partition over",
            extra=fields(
                partition=partition, start=start, committed=committed, log_end=state.log_end, epoch=claim.epoch
            ),
        )

    @staticmethod
    def _start_offset(state: LogState, owned: _Owned) -> int:
        return state.log_start if owned.applied is None else owned.applied

    def _halt(self, partition: int, reason: str) -> None:
        """Leave a partition alone whose state cannot be proved; the others go on."""
        self._halted[partition] = reason
        log.error(
            "partition halted: nothing of it is decided until its state is put right. Remedy: find out what happened "
            "to the log; to rebuild the profiles from it, delete the keys of this partition's hash tag from Redis",
            extra=fields(partition=partition, reason=reason, hash_tag=f"{{{self._processor.topic}:{partition}}}"),
        )

    # -- one batch -----------------------------------------------------------------------------------------------

    def _process(self, records: Records) -> None:
        now_ms, begin_s = self._clock.now_ms(), self._clock.monotonic_s()
        prepared = self._stage("prepare", lambda: self._processor.prepare(records))
        profiles = self._stage("read", lambda: self._read(prepared))
        emit = self._emit_mask(records)
        outcome = self._stage("decide", lambda: self._processor.decide(prepared, profiles, emit, now_ms))
        self._stage("send", lambda: self._send(outcome))
        self._stage("commit", lambda: self._commit(records))
        committed_ms = now_ms + round(1000 * (self._clock.monotonic_s() - begin_s))
        # Counted here: what is committed is decided, whatever the grid says.
        self._metrics.add(m.RECORDS_IN, len(records))
        self._metrics.add(m.RECOVERED, outcome.folded_only)
        self._metrics.observe(m.BATCH_RECORDS, len(records))
        self._processor.measure(self._metrics, prepared, outcome, committed_ms)
        self._notices.tell(outcome.notices)
        self._stage("apply", lambda: self._apply(prepared, outcome))

    def _stage(self, name: str, work: Callable[[], T]) -> T:
        begin_s = self._clock.monotonic_s()
        result = work()
        self._metrics.observe(m.STAGE_SECONDS, self._clock.monotonic_s() - begin_s, name)
        return result

    def _emit_mask(self, records: Records) -> Any:
        committed = np.zeros(int(records.partition.max()) + 1, np.int64)
        for partition, owned in self._owned.items():
            if partition < len(committed):
                committed[partition] = owned.committed
        return records.offset >= committed[records.partition]

    def _read(self, prepared: Prepared) -> Sequence[bytes | None]:
        profiles = self._cache.get(prepared.partitions, prepared.cards)
        missing = [i for i, profile in enumerate(profiles) if profile is None]
        if missing:
            partitions = [prepared.partitions[i] for i in missing]
            cards = [prepared.cards[i] for i in missing]
            found = self._wait_out("redis", lambda: self._grid.read(self._processor.topic, partitions, cards))
            for i, profile in zip(missing, found, strict=True):
                profiles[i] = profile
        return profiles

    def _send(self, outcome: Outcome) -> None:
        for output in outcome.outputs:
            self._sink.send(output.topic, output.keys, output.values)
        begin_s = self._clock.monotonic_s()
        while not self._sink.flush(FLUSH_S):
            self._health.set("log_reachable", False)
            self._stay(0.0)
            self._metrics.add(m.OUTAGES, self._clock.monotonic_s() - begin_s, "kafka")
            begin_s = self._clock.monotonic_s()
        self._health.set("log_reachable", True)

    def _commit(self, records: Records) -> None:
        ahead = {p: offset for p, offset in records.next_offsets().items() if offset > self._owned[p].committed}
        if ahead:
            self._source.commit(ahead)
        for partition, offset in ahead.items():
            self._owned[partition].committed = offset

    def _apply(self, prepared: Prepared, outcome: Outcome) -> None:
        writes = self._grid_writes(prepared.records.next_offsets(), prepared, outcome)
        answers = self._wait_out("redis", lambda: self._grid.apply(self._processor.topic, writes))
        for write, answer in zip(writes, answers, strict=True):
            partition = write.claim.partition
            if answer is not Applied.APPLIED:
                raise AbandonedError(f"the grid refused the profiles of partition {partition}: {answer.value}")
            self._owned[partition].applied = write.target
            self._cache.put(partition, write.cards, write.profiles)

    def _grid_writes(self, targets: Mapping[int, int], prepared: Prepared, outcome: Outcome) -> list[GridWrite]:
        cards: dict[int, list[bytes]] = {p: [] for p in targets}
        profiles: dict[int, list[bytes]] = {p: [] for p in targets}
        for partition, card, profile in zip(prepared.partitions, prepared.cards, outcome.profiles, strict=True):
            if profile is not None:
                cards[partition].append(card)
                profiles[partition].append(profile)
        return [
            GridWrite(self._owned[p].claim, self._owned[p].applied, target, cards[p], profiles[p])
            for p, target in targets.items()
        ]

    # -- outages -------------------------------------------------------------------------------------------------

    def _wait_out(self, store: str, call: Callable[[], T]) -> T:
        """Repeat a call that is safe to repeat until the outage is over, without leaving the group."""
        condition = "grid_reachable" if store == "redis" else "log_reachable"
        begin_s: float | None = None
        while True:
            try:
                result = call()
            except (GridUnavailableError, StreamsError) as error:
                if begin_s is None:
                    begin_s = self._clock.monotonic_s()
                    log.warning("waits for %s", store, extra=fields(error=str(error)))
                self._health.set(condition, False)
                if self._stop_at_s is not None:
                    raise AbandonedError("told to stop during an outage") from error
                self._stay(RETRY_S)
                continue
            self._health.set(condition, True)
            if begin_s is not None:
                waited_s = self._clock.monotonic_s() - begin_s
                self._metrics.add(m.OUTAGES, waited_s, store)
                log.info("%s is back", store, extra=fields(waited_s=round(waited_s, 1)))
            return result

    def _stay(self, timeout_s: float) -> None:
        """Keep the place in the group during an outage; raise AbandonedError when going on makes no sense."""
        self._health.beat()
        self._source.keep_alive(timeout_s)
        if self._source.assignment.generation != self._generation:
            raise AbandonedError("the partitions were assigned anew")
        if self._stop_at_s is not None and self._clock.monotonic_s() > self._stop_at_s:
            raise AbandonedError("told to stop")

    def _probe(self) -> None:
        """Ask both stores for a sign of life now and then: an idle worker would not notice that they are away."""
        if self._clock.monotonic_s() < self._probe_at_s:
            return
        self._probe_at_s = self._clock.monotonic_s() + PROBE_EVERY_S
        for condition, check in (("log_reachable", self._source.check), ("grid_reachable", self._grid.check)):
            try:
                check()
            except (GridUnavailableError, StreamsError) as error:
                if self._health.conditions[condition]:
                    log.warning("a store is away", extra=fields(condition=condition, error=str(error)))
                self._health.set(condition, False)
            else:
                self._health.set(condition, True)

    # -- what is shown -------------------------------------------------------------------------------------------

    def _report(self) -> None:
        self._metrics.replace(m.LAG, {(str(partition),): lag for partition, lag in self._source.lag().items()})
        self._metrics.set(m.PARTITIONS, len(self._owned), "running")
        self._metrics.set(m.PARTITIONS, len(self._halted), "halted")
        self._metrics.set(m.PROFILES_CACHED, len(self._cache))
