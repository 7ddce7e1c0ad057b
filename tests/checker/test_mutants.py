"""The checker is itself tested: twenty-seven ways to get it wrong, each of which it must catch.

Every mutant is a small change of the worker or of what it is wired to, made here only. It runs under the schedules in which its
mistake can show; the same schedules without the mutant must be judged to be right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from services.checker.evidence import ALERTS, DECISIONS, Evidence, Seen
from services.checker.findings import Verdict
from services.codec.reassessments import REQUESTS
from services.codec.records import decode_record, encode_record
from services.codec.schemas import topics
from services.codec.terminal_events import TOPIC as TERMINAL_EVENTS
from services.codec.terminal_events import encode_terminal_events
from services.codec.transactions import TOPIC
from services.core.classes import TransactionClass
from services.core.policy import Thresholds
from services.core.terminal.windows import terminal_events
from services.grid import Applied, Claim, GridRead, GridUnavailableError, GridWrite, LogIdentity
from services.grid.memory import MemoryGrid
from services.inference.trees import ClassTable
from services.scorer.processor import ScorerProcessor
from services.streams import Output, Records
from services.streams.atomic import AtomicPublisher
from services.streams.memory import MemorySource
from services.streams.memory_commits import Stored, partition_of
from services.streams.memory_publishers import MemoryAtomicProducer
from services.worker.partition_state import PartitionState
from tests.checker.judged import evidence_of, judge, run, scorer_world
from tests.simulation.world import (
    CRASH_AFTER,
    CRASH_BEFORE,
    EMPTY_GRID,
    FREEZE,
    FREEZE_BRIEF,
    FREEZE_LONG,
    LOSE_ANSWER,
    LOSE_PROFILE,
    LOSE_REQUEST,
    TWICE,
    Schedule,
    World,
)
from tests.worker.memory_system import SAFE, released_model

EFFECTS = range(4, 60)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def schedules(*faults: str) -> list[Schedule]:
    return [Schedule({at: fault}, late_after=1) for fault in faults for at in EFFECTS] if faults else [Schedule()]


LATE_ENDS = [Schedule({at: TWICE, at + late: CRASH_BEFORE}, late_after=late) for late in range(4, 25) for at in EFFECTS]
"""The end of a commit comes once more while the next one is open, and then the process dies; the latest ones show most."""


class ApplyFirst(MemoryGrid):  # 1
    """The grid is written before Kafka: what :class:`CommitLast` was to commit is committed when it has been applied."""

    def apply(self, topic: str, writes: Any) -> list[Applied]:
        answers = super().apply(topic, writes)
        CommitLast.catch_up()
        return answers


class CommitLast(MemoryAtomicProducer):  # 1
    waiting: ClassVar[list[Callable[[], None]]] = []

    @classmethod
    def catch_up(cls) -> None:
        waiting, cls.waiting = cls.waiting, []
        for commit in waiting:
            commit()

    def begin(self) -> None:
        CommitLast.catch_up()
        super().begin()

    def commit(self) -> None:
        CommitLast.waiting.append(super().commit)


def apply_first(schedule: Schedule) -> World:
    CommitLast.waiting = []
    return scorer_world(schedule, grid_type=ApplyFirst, producer_type=CommitLast)


class NoComparison(MemoryGrid):  # 2
    def apply_one(self, topic: str, write: GridWrite) -> Applied:
        meta, _ = self.held(topic, write.claim)
        meta.owner, owner = write.claim.owner, meta.owner
        meta.profiles, expected = len(self.memory.of(topic, write.claim.partition)), meta.applied
        applied = super().apply_one(topic, replace(write, expected=expected, target=max(write.target, expected or 0)))
        meta.owner, meta.applied = owner, write.target
        if owner != write.claim.owner:
            self.memory.late_applies.append("without a comparison")
        return applied


class NoEpoch(MemoryGrid):  # 3
    def apply_one(self, topic: str, write: GridWrite) -> Applied:
        meta, _ = self.held(topic, write.claim)
        mine = replace(write, claim=replace(write.claim, owner=meta.owner)) if meta.owner else write
        late = meta.owner != write.claim.owner and meta.applied == write.expected
        if late:
            self.memory.late_applies.append("without an epoch")
        return super().apply_one(topic, mine)


class AutoCommit(MemorySource):  # 4
    def poll(self, records_max: int, timeout_s: float) -> Records:
        records = super().poll(records_max, timeout_s)
        for partition, position in self.positions().items():
            key = (self.topic, partition)
            self.log.committed[key] = max(position, self.log.committed.get(key, 0))
        return records


class NoRewind(MemorySource):  # 6
    """Reads on from where it is, whatever became of what it had read."""

    def start(self, offsets: Any) -> None:
        here = self.positions()
        super().start({p: max(offset, here.get(p, 0)) for p, offset in offsets.items()})


class NoNewProducer(AtomicPublisher):  # 7
    """Time stands still for it: no commit ever took long."""

    def __init__(self, name: str, make_producer: Any, member: Any, monotonic_s: Any) -> None:  # noqa: ARG002
        super().__init__(name, make_producer, member, lambda: 0.0)


class DeltaWrites(MemoryGrid):  # 8
    def apply(self, topic: str, writes: Any) -> list[Applied]:
        try:
            return super().apply(topic, writes)
        except GridUnavailableError:
            for write in writes:  # the client sends again what it heard no answer to; what it sends are additions
                profiles = self.memory.of(topic, write.claim.partition)
                for card in write.cards:
                    if card in profiles:
                        profiles[card] += profiles[card][-40:]
            return [Applied.APPLIED for _ in writes]


class UnstableOffset(MemorySource):  # 9
    def log_states(self, partitions: Any) -> Any:
        log = self.log
        states = {}
        for p in partitions:
            end = log.end(self.topic, p)
            from services.streams import LogState  # noqa: PLC0415

            states[p] = LogState(log.committed.get((self.topic, p)), 0, end, log.topic_id, log.partitions)
        return states


class OneShort(MemorySource):  # 10
    """Says that one record less is committed than is, so that its outputs are published once more; never less than is applied."""

    applied: Callable[[int], int] = staticmethod(lambda _: 0)

    def log_states(self, partitions: Any) -> Any:
        states = super().log_states(partitions)
        return {
            p: replace(s, committed=max(s.committed - 1, OneShort.applied(p))) if s.committed else s
            for p, s in states.items()
        }


def one_short(schedule: Schedule) -> World:
    world = scorer_world(schedule, source_type=OneShort)

    def applied(partition: int) -> int:
        meta = world.grid.metas.get((TOPIC, partition))
        return 0 if meta is None else meta.applied or 0

    OneShort.applied = staticmethod(applied)  # type: ignore[assignment]
    return world


class ResetToLatest(MemorySource):  # 11
    """Takes the end of the log for the committed offset of a group that has none."""

    def log_states(self, partitions: Any) -> Any:
        states = super().log_states(partitions)
        return {p: replace(s, committed=s.log_end if s.committed is None else s.committed) for p, s in states.items()}


class LettersApart(MemoryAtomicProducer):  # 12
    def queue(self, output: Output) -> None:
        if output.topic != "dead-letters":
            super().queue(output)
            return
        for key, value in zip(output.keys, output.values, strict=True):
            log = self.log.partition_log(output.topic, partition_of(key, self.log.partitions))
            log.append(Stored(key, value, 0))


class WallClock(ScorerProcessor):  # 13
    beats = 0

    def prepare(self, records: Records, excluded: Any) -> Any:
        prepared = super().prepare(records, excluded)
        WallClock.beats += 1
        columns = prepared.columns
        return replace(prepared, columns=replace(columns, event_time_ms=columns.event_time_ms + WallClock.beats))


class Blind(MemoryGrid):  # 14
    """Redis drops a key for room, and nobody looks whether all of them are there."""

    def read_profiles(self, topic: str, reads: list[GridRead]) -> list[list[bytes | None]]:
        return [[self.memory.of(topic, read.claim.partition).get(card) for card in read.cards] for read in reads]

    def apply_one(self, topic: str, write: GridWrite) -> Applied:
        meta, profiles = self.held(topic, write.claim)
        meta.profiles = len(profiles)
        return super().apply_one(topic, write)


class OtherOrder(ScorerProcessor):  # 15
    def fold_cards(self, prepared: Any, profiles: Any, emit: Any) -> Any:
        folded, sealed = super().fold_cards(prepared, profiles, emit)
        column = folded.vectors[:, 14]
        folded.vectors[:, 14] = np.nextafter(column, np.inf, where=~np.isnan(column), out=column.copy())
        return folded, sealed


class SmallQueue(MemoryAtomicProducer):  # 16
    def queue(self, output: Output) -> None:
        super().queue(Output(output.topic, output.keys[:3], output.values[:3]))


class Unfiltered(MemorySource):  # 17
    """Hands out what it had fetched before the partitions moved, as if they still were its own; its worker takes anything."""

    taken: Callable[[MemorySource, Records], None] = staticmethod(lambda *_: None)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.fetched: list[Records] = []
        self.late: Records | None = None

    def poll(self, records_max: int, timeout_s: float) -> Records:
        generation, fetched = self.assignment.generation, self.fetched
        records = super().poll(records_max, timeout_s)
        moved = generation != self.assignment.generation
        if not moved:
            self.fetched = [records] if len(records) else fetched
        elif fetched:
            self.late = fetched.pop()
        if not moved and self.late is not None:
            late, self.late = self.late, None
            Unfiltered.taken(self, late)
            return late
        return records


def without_filter(schedule: Schedule) -> World:
    world = scorer_world(schedule, source_type=Unfiltered)

    def take(source: MemorySource, records: Records) -> None:
        name = next(name for name, one in world.sources.items() if one is source)
        partitions = world.workers[name].partitions
        for p in set(records.partition.tolist()) - partitions.owned.keys() - partitions.halted.keys():
            first = int(records.offset[records.partition == p][0])
            state = PartitionState(p)
            state.take_over(Claim(p, "nobody", 0, None), first, first, "memory")
            partitions.add(state)

    Unfiltered.taken = staticmethod(take)  # type: ignore[assignment]
    return world


class MissingIsCurrent(MemoryGrid):  # 18
    def claim_one(self, topic: str, partition: int, identity: LogIdentity, even_if_halted: bool) -> Claim:
        claim = super().claim_one(topic, partition, identity, even_if_halted)
        if claim.applied is None and claim.epoch < 100:
            meta = self.memory.meta(topic, partition)
            meta.applied = MissingIsCurrent.committed(partition)
            claim = replace(claim, applied=meta.applied)
        return claim

    committed: Callable[[int], int | None] = staticmethod(lambda _: None)


class NobodyAnswers(ScorerProcessor):
    """Right: nothing comes of others in time, so all is decided on a lower fallback tier, which is said, and asked about."""

    def decide(self, prepared, profiles, found, emit, now_ms):  # noqa: ARG002 - it is never heard
        return super().decide(prepared, profiles, {}, emit, now_ms)


class NobodyIsAsked(NobodyAnswers):  # 19
    def decide(self, prepared, profiles, found, emit, now_ms):
        outcome = super().decide(prepared, profiles, found, emit, now_ms)
        return replace(outcome, outputs=[o for o in outcome.outputs if o.topic != REQUESTS])


class ChampionBelow(NobodyAnswers):  # 20
    def __init__(self, model, safe):
        other = copy(model)
        other.small = model.champion
        super().__init__(other, safe)


class OneForAll(ScorerProcessor):  # 21
    def __init__(self, model, safe):
        other, route = (
            copy(model),
            replace(model.manifest.routes[TransactionClass.CASH], thresholds=Thresholds(1e-4, 2e-4, 3e-4)),
        )
        boosters = model.champion.by_name
        other.champion = ClassTable(dict.fromkeys(TransactionClass, route), boosters)
        super().__init__(other, safe)


class Raises(ScorerProcessor):  # 22
    """Raises on the records of a card, all of which are good."""

    def prepare(self, records: Records, excluded: Any) -> Any:
        if any(key == b"card-1" and not excluded[i] for i, key in enumerate(records.keys)):
            raise KeyError
        return super().prepare(records, excluded)


def with_events(outcome: Any, change: Callable[[Output], Output]) -> Any:
    """Return an outcome whose terminal events are others."""
    outputs = [change(o) if o.topic == TERMINAL_EVENTS else o for o in outcome.outputs]
    return replace(outcome, outputs=[o for o in outputs if len(o.keys)])


class EventForARepeat(ScorerProcessor):  # 23
    def decide(self, prepared, profiles, found, emit, now_ms):
        outcome = super().decide(prepared, profiles, found, emit, now_ms)
        [decided] = (part.decided for part in outcome.parts)
        columns = decided.columns  # of all that was decided, repeats included
        events = Output(TERMINAL_EVENTS, columns.terminal_id.tolist(), encode_terminal_events(terminal_events(columns)))
        others = [o for o in outcome.outputs if o.topic != TERMINAL_EVENTS]
        return replace(outcome, outputs=[*others, *([events] if len(decided) else [])])


class EventMissing(ScorerProcessor):  # 24
    def decide(self, prepared, profiles, found, emit, now_ms):
        outcome = super().decide(prepared, profiles, found, emit, now_ms)
        return with_events(outcome, lambda o: Output(o.topic, o.keys[1:], o.values[1:]))


class AlertForAnApproval(ScorerProcessor):  # 25
    def decide(self, prepared, profiles, found, emit, now_ms):
        outcome = super().decide(prepared, profiles, found, emit, now_ms)
        alerts = [
            Output(o.topic, [*o.keys, o.keys[0]], [*o.values, o.values[0]])
            for o in outcome.outputs
            if o.topic == ALERTS
        ]
        return replace(outcome, outputs=[*(o for o in outcome.outputs if o.topic != ALERTS), *alerts])


class AskedTwice(NobodyAnswers):  # 26
    def decide(self, prepared, profiles, found, emit, now_ms):
        outcome = super().decide(prepared, profiles, found, emit, now_ms)
        return replace(outcome, outputs=[*outcome.outputs, *(o for o in outcome.outputs if o.topic == REQUESTS)])


class AllHigh(ScorerProcessor):  # 27
    def decide(self, prepared, profiles, found, emit, now_ms):
        outcome = super().decide(prepared, profiles, found, emit, now_ms)
        schema = topics()[ALERTS].latest
        return replace(outcome, outputs=[
            o if o.topic != ALERTS else Output(o.topic, o.keys, [
                encode_record(schema, decode_record(value)[1] | {"severity": "HIGH"}) for value in o.values
            ])
            for o in outcome.outputs
        ])  # fmt: skip


def processor_of(kind: type[ScorerProcessor]) -> Callable[[], ScorerProcessor]:
    return lambda: kind(released_model(), SAFE)


def with_missing_meta(schedule: Schedule) -> World:
    world = scorer_world(schedule, grid_type=MissingIsCurrent)
    MissingIsCurrent.committed = staticmethod(lambda p: world.log.committed.get((TOPIC, p)))  # type: ignore[assignment]
    return world


MUTANTS: dict[str, tuple[Callable[[Schedule], World], Iterable[Schedule]]] = {
    "1 apply before commit": (apply_first, schedules(CRASH_BEFORE)),
    "2 no comparison": (lambda s: scorer_world(s, grid_type=NoComparison), schedules(FREEZE_LONG)),
    "3 no epoch": (lambda s: scorer_world(s, grid_type=NoEpoch), schedules(FREEZE_BRIEF)),
    "4 auto-commit": (lambda s: scorer_world(s, source_type=AutoCommit), schedules(CRASH_BEFORE)),
    "5 assigned by hand": (lambda s: scorer_world(s, everybody_owns_all=True), schedules()),
    "6 no rewind": (lambda s: scorer_world(s, source_type=NoRewind), schedules(LOSE_REQUEST)),
    "7 the producer is used again": (lambda s: scorer_world(s, publisher_type=NoNewProducer), LATE_ENDS[::-1]),
    "8 retried additions": (lambda s: scorer_world(s, grid_type=DeltaWrites), schedules(LOSE_ANSWER)),
    "9 unstable offset": (lambda s: scorer_world(s, source_type=UnstableOffset), schedules(FREEZE)),
    "10 one record short": (one_short, schedules(CRASH_AFTER)),
    "12 letters outside": (lambda s: scorer_world(s, producer_type=LettersApart), schedules(CRASH_BEFORE)),
    "13 wall clock": (lambda s: scorer_world(s, processor=processor_of(WallClock)), schedules()),
    "14 eviction": (lambda s: scorer_world(s, grid_type=Blind, near_cache_bytes=0), schedules(LOSE_PROFILE)),
    "15 order of sums": (lambda s: scorer_world(s, processor=processor_of(OtherOrder)), schedules()),
    "16 a full queue drops": (lambda s: scorer_world(s, producer_type=SmallQueue), schedules()),
    "17 no filter": (without_filter, schedules(FREEZE, CRASH_BEFORE)),
    "18 missing is current": (with_missing_meta, schedules(EMPTY_GRID)),
    "19 nobody is asked": (lambda s: scorer_world(s, processor=processor_of(NobodyIsAsked)), schedules()),
    "20 the champion below": (lambda s: scorer_world(s, processor=processor_of(ChampionBelow)), schedules()),
    "21 one for all": (lambda s: scorer_world(s, processor=processor_of(OneForAll)), schedules()),
    "22 good records raise": (lambda s: scorer_world(s, processor=processor_of(Raises)), schedules()),
    "23 an event for a repeat": (lambda s: scorer_world(s, processor=processor_of(EventForARepeat)), schedules()),
    "24 an event is missing": (lambda s: scorer_world(s, processor=processor_of(EventMissing)), schedules()),
    "25 an alert too many": (lambda s: scorer_world(s, processor=processor_of(AlertForAnApproval)), schedules()),
    "26 asked twice": (lambda s: scorer_world(s, processor=processor_of(AskedTwice)), schedules()),
    "27 every alert is high": (lambda s: scorer_world(s, processor=processor_of(AllHigh)), schedules()),
}  # fmt: skip


def caught(make: Callable[[Schedule], World], tried: Iterable[Schedule]) -> Verdict | None:
    return next((v for v in (run(schedule, make) for schedule in tried) if not v.holds), None)


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_is_caught(name: str):
    make, tried = MUTANTS[name]

    assert caught(make, tried) is not None


def test_decisions_on_a_lower_tier_are_right_if_they_say_so():
    assert caught(lambda s: scorer_world(s, processor=processor_of(NobodyAnswers)), schedules()) is None


def test_an_exception_that_was_meant_is_right_and_in_no_fold():
    def meant(schedule: Schedule) -> World:
        return scorer_world(schedule, processor=processor_of(Raises))

    for schedule in (*schedules(), *schedules(CRASH_AFTER, EMPTY_GRID)):
        assert run(schedule, meant, excused=(b"card-1",)).holds


def evidence_at_rest() -> Evidence:
    world = scorer_world()
    world.spawn("a")
    world.settle(60)
    return evidence_of(world)


def test_what_the_readme_promises_of_each_decision_is_counted_exactly():
    """One event for a decision that is no repeat, none for a repeat; one alert where it is not APPROVE; one request below CHAMPION."""
    evidence = evidence_at_rest()
    decisions = [decode_record(seen.value or b"")[1] for seen in evidence.outputs[DECISIONS]]
    repeats = sum(one["repeat"] for one in decisions)
    counts = judge(evidence).counts

    assert repeats > 0, "the stream must have some"
    assert counts["repeats"] == repeats
    assert counts["terminal_events"] == len(decisions) - repeats
    assert counts["alerts"] == sum(one["action"] != "APPROVE" for one in decisions) > 0
    assert counts["below_champion"] == sum(one["fallback_tier"] != "CHAMPION" for one in decisions)


def tampered(topic: str, change: Callable[[list[Seen]], list[Seen]]) -> Verdict:
    evidence = evidence_at_rest()
    evidence.outputs[topic] = change(evidence.outputs[topic])
    return judge(evidence)


@pytest.mark.parametrize("topic", [TERMINAL_EVENTS, ALERTS])
def test_counts_that_somebody_tampered_with_are_found(topic: str):
    assert evidence_at_rest().outputs[topic]
    for change in (
        lambda seen: seen[:-1],
        lambda seen: [*seen, replace(seen[-1], offset=seen[-1].offset + 100)],
        lambda _: [],
    ):
        verdict = tampered(topic, change)
        assert not verdict.holds
        assert set(verdict.totals) <= {"torn-txn", "duplicate"}


def test_a_label_that_nobody_sent_is_found_whether_labels_are_routed_by_now_or_not():
    [event, *_] = evidence_at_rest().outputs[TERMINAL_EVENTS]
    record = decode_record(event.value or b"")[1] | {
        "kind": "LABEL",
        "amount_minor": 0,
        "is_fraud": True,
        "known_at_ms": 5,
    }
    invented = replace(
        event, offset=event.offset + 1_000, value=encode_record(topics()[TERMINAL_EVENTS].latest, record)
    )

    assert tampered(TERMINAL_EVENTS, lambda seen: [*seen, invented]).totals == {"G1a": 1}


def test_mutant_11_a_reset_to_the_latest_offset_is_caught():
    """The group's offsets expire while nobody works; then more comes."""
    for source_type, right in ((MemorySource, True), (ResetToLatest, False)):
        world = scorer_world()
        logs = [world.log.partition_log(TOPIC, p) for p in range(2)]
        later, latest = [log[5:8] for log in logs], [log[8:] for log in logs]
        for log in logs:
            del log[5:]
        world.spawn("a")
        world.settle()
        world.workers.clear()
        world.forget_offsets()
        world.source_type = source_type
        for batch in (later, latest):
            for log, records in zip(logs, batch, strict=True):
                log.extend(records)
            world.spawn("b") if "b" not in world.workers else None
            for _ in range(20):
                world.turn("b")
        found = judge(evidence_of(world)).totals
        # Halted is right, and to be seen; what was skipped would be gone without a word.
        assert (found["stuck"] > 0) == right
        assert (found["lost-write"] > 0) == (not right)


RIGHT = {
    "no fault": schedules(),
    **{fault: schedules(fault) for fault in (
        CRASH_BEFORE, CRASH_AFTER, FREEZE, FREEZE_LONG, LOSE_REQUEST, LOSE_ANSWER, TWICE, LOSE_PROFILE, EMPTY_GRID,
    )},
    "late ends": LATE_ENDS[::9],
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_the_same_schedules_without_a_mutant_are_right(name):
    assert len(RIGHT[name]) > 0
    assert [(s.faults, v.as_json()["anomalies"]) for s in RIGHT[name] if not (v := run(s)).holds] == []
