"""The worker loop: the one place where a batch's effects happen, in one order.

1. read the profiles that are not in the near cache; the grid proves that it still holds what this worker wrote
2. decide (pure)
3. publish decisions, alerts, dead letters and the consumed offsets: in one atomic commit (``exactly_once``), or the outputs
   first and then, once an interval, the offsets (``at_least_once``)
4. once an interval, apply the profiles and the offset to the grid, in one script a partition

The last two happen beside the worker's thread, while the next batch is decided (:mod:`.completing`). The grid's offset S never passes the
committed offset C, and a crash anywhere leaves either C where it was, and the batch
is decided again from the same profiles with the same result, or S behind C, and the take-over (:mod:`.ownership`) folds the
rest without a word. Whatever is in doubt is settled the same way: give the batch up and take over again, so that reading
decides, not guessing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Generic

import numpy as np

from services.core.columns import type_i64
from services.core.profiles import CorruptProfileError
from services.grid.near_cache import NearCache
from services.runtime import catalogue as m
from services.runtime.health import Health
from services.runtime.logs import fields
from services.runtime.metrics import MetricsRegistry
from services.runtime.rate_limited_log import RateLimitedLog
from services.runtime.remedies import with_remedy
from services.streams import DamagedRecordError, Records, StreamsError
from services.streams.atomic import FencedError
from services.worker.breaker import Breaker
from services.worker.completing import BatchCompletion
from services.worker.deciding import Deciding, WithoutProfiles
from services.worker.excluded import Excluded, recall, written_since
from services.worker.fencing import FencingMonitor
from services.worker.foreign import ForeignProfiles
from services.worker.grid_writer import GridWriter
from services.worker.halting import damaged
from services.worker.isolating import Isolation
from services.worker.lookups import ForeignCache
from services.worker.membership import GroupMembership
from services.worker.outages import RETRY_S, AbandonedError, Outages, RefusedError
from services.worker.own_profiles import OwnProfiles
from services.worker.owned_grid import OwnedGrid
from services.worker.ownership import Ownership
from services.worker.partition_state import Partitions
from services.worker.places import PlaceReading
from services.worker.poison import CAREFUL_BATCH, PoisonDetector
from services.worker.ports import Ports, WorkerLimits
from services.worker.processor import P, ProcessingError, Processor, R, guarded
from services.worker.publishing import Batch, PublishPipeline
from services.worker.reading import Reading
from services.worker.reporting import StatusReport, detail_of
from services.worker.stages import Stages
from services.worker.turns import run_in_turn
from services.worker.waiting import Waiting
from services.worker.write_behind import WriteBehindBuffer

log = logging.getLogger("proact.worker")


class Worker(Generic[P, R]):
    """Runs one processor over one topic, on the thread that calls :meth:`run`; only waiting for Kafka and Redis happens beside it."""

    def __init__(
        self, processor: Processor[P, R], ports: Ports, health: Health, metrics: MetricsRegistry, limits: WorkerLimits
    ) -> None:
        self._processor, self._clock, self._limits = processor, ports.clock, limits
        self._source, self._publisher, self._grid = ports.source, ports.publisher, ports.grid
        self._letters, self._places, self._follower = ports.letters, ports.places, ports.follower
        self._backgrounds = publishing, saving = (ports.background(), ports.background())
        self._health, self._metrics = health, metrics
        self._outages = Outages(ports.source, ports.clock, health, metrics)
        self._partitions = Partitions()
        self._ownership = Ownership(processor, ports, self._partitions, self._outages)
        self._poison = PoisonDetector(processor.log, ports.grid, ports.sandbox(self._outages), self._outages, metrics)
        self._isolation: Isolation[tuple[P, R]] = Isolation(
            self._poison, self._ownership, self._outages, ports.clock, metrics
        )
        ports.source.on_revoked(self._give_back)
        self._stages = Stages(ports.clock, metrics)
        buffer = WriteBehindBuffer(limits.saving)
        grid = OwnedGrid(processor, ports.grid, self._partitions, self._outages)
        writer = GridWriter(grid, buffer, saving, self._stages)
        self._own = OwnProfiles(NearCache(limits.near_cache_bytes), buffer, ports.clock)
        self._foreign = ForeignProfiles(processor.looks_up, ports.grid, ForeignCache(limits.foreign_cache_bytes))
        places = PlaceReading(ports.places, self._outages, ports.clock)
        self._reading = Reading(self._own, grid, writer, self._foreign, places)
        self._report = StatusReport(ports.source, self._partitions, self._reading, ports.clock, metrics)
        waiting = Waiting(health, ports.clock, self._keep_up)
        self._deciding = Deciding(processor, self._reading, self._partitions, waiting, self._stages)
        pipeline = PublishPipeline(ports.publisher, publishing, self._partitions, self._stages, self._count_published)
        self._completion = BatchCompletion(pipeline, writer, self._own)
        self._pressed = self._crashed = self.had_records = False
        self._breaker = Breaker(limits.breaker_share)
        self._notices, self._fencing_monitor = RateLimitedLog(ports.clock), FencingMonitor(ports.clock)
        self._membership = GroupMembership(ports.source, ports.grid, ports.clock, health)

    @property
    def partitions(self) -> Partitions:
        """Which partitions it owns, and which ones it leaves alone; for reading."""
        return self._partitions

    @property
    def health(self) -> Health:
        """What it says of itself."""
        return self._health

    @property
    def metrics(self) -> MetricsRegistry:
        """What it counts."""
        return self._metrics

    @property
    def completion(self) -> BatchCompletion[P, R]:
        """What completes its batches."""
        return self._completion

    def go_without_profiles(self, decide: WithoutProfiles[P, R]) -> None:
        """Decide by this when the grid is away, instead of waiting for it; called before :meth:`run`."""
        self._deciding.go_without_profiles(decide)
        self._outages.go_without_grid()

    def stop(self) -> None:
        """Ask the loop to end after the batch at hand; safe to call from a signal handler."""
        self._outages.stop()

    @property
    def stopping(self) -> bool:
        """Whether it was asked to end."""
        return self._outages.stopping

    def run(self) -> None:
        """Turn until :meth:`stop`, then give everything back. Raises DuplicateWorkerError."""
        run_in_turn([self])

    def open(self) -> None:
        """Make the producer before joining the group: everybody waits for the last one that takes its partitions over."""
        try:
            self._publisher.open()
        except StreamsError as error:
            log.warning("Kafka is away", extra=fields(error=with_remedy(error)))  # waited out by the first take-over
        self._membership.begin()

    def release(self) -> None:
        """Give all partitions back in good order."""
        self._completion.save_all(confirmed=True)
        self._ownership.release_all()

    def crash(self) -> None:
        """Give nothing back from now on: this process ends of an exception, and whoever comes next is to be as careful as after a death."""
        self._crashed = True

    def _give_back(self) -> None:
        """Do the same where the group asks for it, within a call of the source: that cannot commit anything then."""
        if self._crashed:
            return
        self._completion.save_all(confirmed=False)
        self._ownership.release_all()

    def close(self) -> None:
        """Leave the group, and release what was held."""
        self._deciding.close()
        self._follower.close()
        for background in self._backgrounds:
            background.close()
        self._publisher.close()
        self._places.close()
        self._source.close()

    def turn(self, *, patient: bool = True) -> None:
        """Poll once, and do what came: a change of assignment, a batch, or nothing."""
        self._health.beat()
        most = min(CAREFUL_BATCH if self._poison.careful else 2**31, self._limits.batch_records_max)
        try:
            self._follower.turn()
            if self._membership.turn():
                self._step(most, patient=patient)
        except FencedError as error:
            self._give_up("fenced", error)
            self._fencing_monitor.note(error)
        except DamagedRecordError as error:
            self._ownership.note_damage(error)
            self._give_up("log", error)
        except StreamsError as error:
            self._health.set("log_reachable", False)
            self._give_up("log", error)
        except ProcessingError as error:
            # Found beside this thread, as a batch was published: it comes again, and is encoded here. It is the first that is not published.
            batch_end = {p: o.published + self._limits.batch_records_max for p, o in self._partitions.owned.items()}
            self._isolation.encode_until(batch_end)
            self._give_up("internal_error", error)
        except RefusedError as error:
            self._leave(error)
        except AbandonedError as error:
            self._give_up("abandoned", error)

    def _step(self, most: int, *, patient: bool) -> None:
        if not self._pressed:
            self._completion.pace()
        records = self._source.poll(most, self._limits.poll_timeout_s * (patient and not self._completion.in_flight))
        self.had_records = len(records) > 0
        if self._outages.assigned_anew:
            self._take_over()
        elif len(records):
            self._ownership.note_read(records.next_offsets())
            self._process(records, pressed=len(records) == most)
        else:
            self._completion.rest()
        self._ownership.check_topic()
        if self._outages.probe_due():
            self._probe(idle=not len(records))
        self._report.show_when_due()

    def _give_up(self, cause: str, error: Exception) -> None:
        """Begin again from what Kafka and the grid say."""
        self._metrics.add(m.ABANDONED, 1, cause)
        log.warning("begins again from the committed offsets", extra=fields(cause=cause, error=str(error)))
        self._completion.drop()
        self._outages.begin_again()
        self._clock.sleep(0.0 if self._outages.stopping else RETRY_S)

    def _leave(self, error: Exception) -> None:
        """Leave the partitions to others: Redis does not take this worker, and may take them."""
        self._give_up("refused", error)
        self._ownership.leave_all()
        self._deciding.begin()
        try:
            self._membership.leave(str(error))
        except StreamsError as away:
            log.warning("could not leave the group", extra=fields(error=str(away)))

    def _take_over(self) -> None:
        self._completion.drop()
        self._own.forget()
        self._deciding.begin()
        self._health.set("partitions_assigned", False)
        self._ownership.take_over()
        if self._partitions.owned:
            self._foreign.begin(self._source, self._outages)
        self._outages.wait_out("kafka", self._follower.begin)
        again = self._ownership.folded_again()
        recalled = self._outages.wait_out("kafka", lambda: self._recall(again))
        self._poison.begin(self._partitions.owned, self._limits.batch_records_max, recalled)
        self._breaker.forget(self._partitions.halted)
        self._isolation.begin()
        # A spare, which the group gave nothing, is as ready as one can be.
        there, halts = not self._ownership.topic_missing, self._partitions.halted
        self._health.set("partitions_assigned", self._source.assignment.member and there and not halts)
        self._health.show(detail_of(self._partitions, self._processor, there=there))

    def _recall(self, again: Mapping[int, tuple[int, int]]) -> dict[int, dict[int, Excluded]]:
        """Return what the dead letters say of records that are folded again. Raises StreamsError, AbandonedError."""
        keep = self._outages.keep_membership_within
        since_ms = written_since(self._source, again, self._clock.now_ms(), keep)
        return recall(self._letters, self._processor.topic, again, since_ms, keep)

    def _probe(self, *, idle: bool) -> None:
        self._outages.probe(self._grid, idle=idle)
        if self._health.conditions["grid_reachable"]:
            self._reading.answers(with_deadline=False)  # it holds what was written to it, or this raises
            if self._partitions.stale:
                raise AbandonedError("the grid is back: what was decided without it is folded now")
        if self._ownership.resumed():
            raise AbandonedError("a halted partition was resumed")
        if idle and not self._partitions.stale:
            self._commit_past_control_records()

    def _commit_past_control_records(self) -> None:
        """Move offsets past what holds no record, such as the marks of atomic commits: else something would seem to wait."""
        owned = self._partitions.owned
        ahead = {p: at for p, at in self._source.positions().items() if p in owned and at > owned[p].published}
        if ahead and not self._completion.in_flight:
            self._completion.pass_by(ahead)

    def _keep_up(self) -> None:
        """Do what is done beside batches, while one waits: its loop does not turn. Raises AbandonedError."""
        self._report.show_when_due()
        self._outages.keep_membership(RETRY_S)
        self._follower.turn()  # what is announced may be what is waited for

    # -- one batch -----------------------------------------------------------------------------------------------

    def _process(self, records: Records, *, pressed: bool) -> None:
        now_ms, begun_s = self._clock.now_ms(), self._clock.monotonic_s()
        excluded = self._poison.screen(records, self._partitions.owned)
        decide = partial(self._decide, now_ms)
        prepared, outcome = self._isolation.decide(records, excluded, decide, self._completion.rest)
        self._break(prepared, outcome)
        self._isolation.note(self._partitions.owned, patient=self._outages.needs_grid)
        self._completion.submit(Batch(prepared, outcome, now_ms, begun_s, self._clock.monotonic_s()))
        # A batch that was not full says that there is time.
        self._pressed = pressed and not self._poison.careful

    def _decide(self, now_ms: int, records: Records, excluded: type_i64, encode: bool) -> tuple[P, R]:
        """Prepare and decide, and encode the outcome where that is not to happen beside the next batch. Raises ProcessingError, AbandonedError."""
        prepare = partial(self._processor.prepare, records, excluded)
        prepared = self._stages.time("prepare", lambda: guarded(prepare))
        emit = self._partitions.undecided(records)
        try:
            outcome = self._deciding.decide(prepared, emit, now_ms, with_deadline=not self._poison.careful)
        except CorruptProfileError as error:
            for partition in {prepared.partitions[row] for row in error.rows}:
                self._ownership.halt(partition, damaged(self._processor.log, error))
            raise AbandonedError(str(error)) from error
        if encode:
            guarded(lambda: list(outcome.outputs))
        return prepared, outcome

    def _break(self, prepared: P, outcome: R) -> None:
        """Stop partitions whose records are mostly bad, before another batch of them becomes dead letters."""
        records, owned = prepared.records, self._partitions.owned
        first = {p: int(records.offset[records.partition == p][0]) for p in set(outcome.refused.tolist())}
        seen = [p for p, offset in first.items() if offset < owned[p].claim.accepted]
        judged = records.partition[~np.isin(records.partition, seen)] if seen else records.partition
        tripped = self._breaker.add(judged, outcome.refused, self._clock.monotonic_s())
        for partition, reason in tripped.items():
            self._ownership.halt(partition, reason)
        if tripped:
            raise AbandonedError("; ".join(tripped.values()))

    def _count_published(self, batch: Batch[P, R], published_ms: int) -> None:
        """Count a batch: what is published is decided, whatever the grid says."""
        self._health.set("log_reachable", True)
        records, outcome = batch.prepared.records, batch.outcome
        self._metrics.add(m.RECORDS_IN, len(records))
        self._metrics.add(m.RECOVERED, outcome.folded_only)
        self._metrics.observe(m.BATCH_RECORDS, len(records))
        self._processor.measure(self._metrics, batch.prepared, outcome, published_ms)
        self._notices.tell(outcome.notices)
        self._poison.survived(records.next_offsets(), self._partitions.owned)
        self._isolation.survived(records)
