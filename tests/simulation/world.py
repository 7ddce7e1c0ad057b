"""A whole system in one thread: models of Kafka and Redis, workers that come and go, and faults between any two effects.

A worker talks to the models through a wire, which is where faults happen: a request or its answer is lost, a request is
carried again later, the worker dies before or after it, or is frozen in it while the others take over and go on. To freeze is
to run the others inside of the frozen call, so one thread is enough and every schedule can be repeated.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from services.core.validation import Reject
from services.grid import GridMovedError, GridUnavailableError
from services.grid.memory import GridMemory, MemoryGrid
from services.runtime.clock import ManualClock
from services.streams import Records, StreamsError
from services.streams.atomic import AtomicPublisher
from services.streams.background import LateBackground, PromptBackground
from services.streams.events import ErrorEvent, Meaning, meaning_of
from services.streams.memory import MemoryLog, MemorySource
from services.streams.memory_commits import OPEN, partition_of
from services.streams.memory_publishers import MemoryAtomicProducer
from services.worker.excluded import Excluded, Letter
from services.worker.fencing import DuplicateWorkerError
from services.worker.loop import Worker
from services.worker.outages import PROBE_EVERY_S, REFUSED_MAX_S
from services.worker.ports import WorkerLimits
from services.worker.write_behind import EVERY_BATCH, WriteBehindLimits
from tests.simulation.witness import ANSWERS, POISON, RAISES, REFUSED, TOPIC, CrashError, WitnessProcessor, offsets_of
from tests.worker.harness import MemoryWorkers, Types

CRASH_BEFORE, CRASH_AFTER = "crash-before", "crash-after"
LOSE_REQUEST, LOSE_ANSWER, LATE, TWICE = "lose-request", "lose-answer", "late", "twice"
FREEZE_BRIEF, FREEZE, FREEZE_LONG = "freeze-brief", "freeze", "freeze-long"
EMPTY_GRID, ROLL_BACK, LOSE_PROFILE, AWAY = "empty-grid", "roll-back", "lose-profile", "away"
WORKER_FAULTS = (CRASH_BEFORE, CRASH_AFTER, LOSE_REQUEST, LOSE_ANSWER, LATE, TWICE, FREEZE_BRIEF, FREEZE, FREEZE_LONG)
REFUSE, REFUSE_ALL = "refuse", "refuse-all"
STORE_FAULTS = (EMPTY_GRID, ROLL_BACK, LOSE_PROFILE, AWAY)
GRID_FAULTS = (REFUSE, REFUSE_ALL)
"""Redis refuses the worker whose effect it is, or all of them, for longer than a worker stays in its group."""
EVENT = "event "
EVENT_FAULTS = tuple(
    EVENT + name
    for name in (
        "_PARTITION_EOF", "_TRANSPORT", "_ALL_BROKERS_DOWN", "_MSG_TIMED_OUT", "TOPIC_AUTHORIZATION_FAILED",
        "GROUP_AUTHORIZATION_FAILED", "_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE", "UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC",
        "_UNKNOWN_PARTITION", "_BAD_MSG", "_MAX_POLL_EXCEEDED", "ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "_FATAL",
        "FENCED_INSTANCE_ID",
    )
)  # fmt: skip
"""Errors that the worker's consumer delivers with the next poll, one of each kind at least."""
assert {meaning_of(fault.removeprefix(EVENT)) for fault in EVENT_FAULTS} == set(Meaning)

GRID_REQUESTS = {"claim", "read", "look_up", "apply", "release"}
FREEZES = {FREEZE_BRIEF: (0.1, 1), FREEZE: (1.0, 12), FREEZE_LONG: (20.0, 12)}
"""For how many seconds, and turns of the others: a brief one lets them claim, a long one outlives an open commit."""
SLOW_S = 3.0
REFUSED_FOR_S = 20.0
"""For how much longer than a worker stays in its group."""


class _Sandbox:
    def survives(self, records: Records) -> bool:
        return POISON not in records.values


class _Letters:
    """What was refused, as the witness says so; what it refuses anyway may be left out, too."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _all(self) -> list[Letter]:
        log, partitions = self._world.log, range(self._world.partitions)
        reported = [ast.literal_eval((r.value or b"").decode()) for p in partitions for r in log.visible(REFUSED, p)]
        return [Letter(TOPIC, p, o, Excluded(Reject.INTERNAL_ERROR)) for p, o in sorted(reported)]

    def extent(self, since_ms: int) -> tuple[int, int]:  # noqa: ARG002 - it knows no times
        return 0, len(self._all())

    def read(self, extent: tuple[int, int]) -> Iterator[list[Letter]]:
        yield self._all()[slice(*extent)]


@dataclass
class Schedule:
    """Which fault happens at which effect; effects are counted over all workers from 1."""

    faults: dict[int, str] = field(default_factory=dict)
    late_after: int = 3
    """After how many effects a late request arrives."""
    fired: list[tuple[int, str, str]] = field(default_factory=list)


@dataclass
class World:
    """The stores, the group, and the workers by name."""

    schedule: Schedule = field(default_factory=Schedule)
    partitions: int = 2
    batch_records_max: int = 4
    guarantee: str = "exactly_once"
    worker_type: type[Worker[Any, Any]] = Worker
    producer_type: type[MemoryAtomicProducer] = MemoryAtomicProducer
    publisher_type: type[AtomicPublisher] = AtomicPublisher
    source_type: type[MemorySource] = MemorySource
    grid_type: type[MemoryGrid] = MemoryGrid
    processor: Callable[[], Any] = WitnessProcessor
    topic: str = TOPIC
    near_cache_bytes: int = 10_000
    saving: WriteBehindLimits = EVERY_BATCH
    background_type: type[LateBackground] = PromptBackground
    everybody_owns_all: bool = False
    """As with partitions that are assigned by hand: nobody is fenced by the group."""

    def __post_init__(self) -> None:
        self.clock = ManualClock(1_900_000_000_000)
        self.log = MemoryLog(self.partitions, monotonic_s=self.clock.monotonic_s, sleep=self.clock.sleep)
        self.grid = GridMemory()
        self.workers: dict[str, Worker[Any, Any]] = {}
        self.frozen: set[str] = set()
        self._in_call: set[str] = set()
        self.effects = 0
        self.births = 0
        self._late: list[tuple[int, Callable[[], Any]]] = []
        self._snapshots: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        self._away_until = 0
        self._refused_until_s: dict[str, float] = {}
        self.sources: dict[str, MemorySource] = {}
        self._high: dict[tuple[str, int], int] = {}
        self._seen: dict[tuple[str, int], list[bytes | None]] = {}

    # -- workers -----------------------------------------------------------------------------------------------------

    def spawn(self, name: str) -> None:
        """Start a worker, or start it again."""
        self.births += 1
        process = f"{name}-{self.births}"

        def wire(request: str, call: Callable[[], Any]) -> Any:
            return self._carry(name, request, call)

        workers = MemoryWorkers(
            log=self.log, grid=self.grid, clock=self.clock, topic=self.topic, guarantee=self.guarantee,
            limits=WorkerLimits(self.batch_records_max, 0.0, self.near_cache_bytes, self.saving),
            sandbox=_Sandbox(), letters=_Letters(self), background=self.background_type,
            types=Types(
                worker=self.worker_type, source=self.source_type, grid=self.grid_type, publisher=self.publisher_type,
                producer=self.producer_type,
            ),
        )  # fmt: skip
        made = workers.new(self.processor(), process, f"id-{name}", wire)
        self.sources[name], self.workers[name] = made.source, made.worker
        self.process_of = {**getattr(self, "process_of", {}), name: process}
        self.rebalance()

    def rebalance(self) -> None:
        """Give the partitions to the workers that are alive and not frozen."""
        alive = [self.process_of[name] for name in sorted(self.workers) if name not in self.frozen]
        alive = [process for process in alive if process not in self.log.absent]
        given: dict[str, tuple[int, ...]] = dict.fromkeys(alive, ())
        for partition in range(self.partitions if alive else 0):
            given[alive[partition % len(alive)]] += (partition,)
        if self.everybody_owns_all:
            given = {process: tuple(range(self.partitions)) for process in alive}
        self.log.rebalance(given)

    def turn(self, name: str) -> None:
        """Let one worker turn once; it may die of it."""
        self.clock.sleep(0.05)
        self._let_refused_in()
        worker = self.workers.get(name)
        if worker is None:  # it died while another one was frozen
            return
        try:
            worker.turn()
        except (CrashError, DuplicateWorkerError):
            if self.workers.get(name) is worker:
                del self.workers[name]
                self.rebalance()

    # -- the wire ----------------------------------------------------------------------------------------------------

    def _carry(self, name: str, request: str, call: Callable[[], Any]) -> Any:
        if request == "keep_alive":
            self._let_others_turn(name, 1)
            return call()
        self.effects += 1
        self._let_refused_in()
        self._deliver_late()
        self._check_running()
        fault = self.schedule.faults.get(self.effects)
        outage = GridUnavailableError if request in GRID_REQUESTS else StreamsError
        if self.effects < self._away_until:
            raise outage("away")
        if fault is None:
            return call()
        self.schedule.fired.append((self.effects, fault, request))
        if fault in STORE_FAULTS:
            self._break_store(fault)
            if fault == AWAY:
                raise outage("away")
            return call()
        if fault in GRID_FAULTS:
            self._refuse([name] if fault == REFUSE else sorted(self.workers))
            self._let_refused_in()
            return call()
        if fault.startswith(EVENT):
            self.sources[name].deliver(ErrorEvent(fault.removeprefix(EVENT), partition=0, offset=0))
            return call()
        return self._break_request(name, fault, call, outage)

    def _refuse(self, names: list[str]) -> None:
        until_s = self.clock.monotonic_s() + REFUSED_MAX_S + REFUSED_FOR_S
        self._refused_until_s |= {self.process_of[name]: until_s for name in names}

    def _let_refused_in(self) -> None:
        now_s = self.clock.monotonic_s()
        self.grid.refused = {process for process, until_s in self._refused_until_s.items() if now_s < until_s}

    def _break_request(self, name: str, fault: str, call: Callable[[], Any], outage: type[Exception]) -> Any:
        if fault in FREEZES:
            self._freeze(name, *FREEZES[fault])
            return call()
        if fault == CRASH_BEFORE:
            raise CrashError
        if fault == LOSE_REQUEST:
            raise outage("request lost")
        if fault == LATE:
            self._late.append((self.effects + self.schedule.late_after, call))
            raise outage("request delayed")
        answer = call()
        if fault == CRASH_AFTER:
            raise CrashError
        if fault == LOSE_ANSWER:
            raise outage("answer lost")
        # The client sent it again over another connection: the second one counts, the first one is still on its way.
        self.clock.sleep(SLOW_S)
        self._late.append((self.effects + self.schedule.late_after, call))
        return answer

    def _deliver_late(self) -> None:
        due = [call for at, call in self._late if at <= self.effects]
        self._late = [(at, call) for at, call in self._late if at > self.effects]
        for call in due:
            try:
                call()
            except (StreamsError, GridUnavailableError, GridMovedError):
                continue

    def _freeze(self, name: str, seconds: float, turns: int) -> None:
        """Stop a worker in the middle of a call; the group gives its partitions to others, who go on."""
        process = self.process_of[name]
        self.frozen.add(name)
        self.rebalance()
        self.clock.sleep(seconds)
        self._let_others_turn(name, turns)
        self.frozen.discard(name)
        if self.process_of.get(name) == process:
            self.rebalance()

    def _let_others_turn(self, name: str, turns: int) -> None:
        """Let the others turn within a call of this one, but for those that are within a call themselves."""
        again = name in self._in_call
        self._in_call.add(name)
        try:
            for _ in range(turns):
                for other in sorted(self.workers):
                    if other not in self._in_call:
                        self.turn(other)
        finally:
            if not again:
                self._in_call.discard(name)

    def _break_store(self, fault: str) -> None:
        if fault == AWAY:
            self._away_until = self.effects + 4
        elif fault == EMPTY_GRID:
            self.grid.metas.clear()
            self.grid.profiles.clear()
        elif fault == LOSE_PROFILE:
            for profiles in self.grid.profiles.values():
                if profiles:
                    profiles.pop(next(iter(profiles)))
                    return
        elif self._snapshots:
            metas, profiles = self._snapshots[max(0, len(self._snapshots) - 4)]
            self.grid.metas, self.grid.profiles = _copy(metas, profiles)

    def forget_offsets(self) -> None:
        """Let the group's committed offsets expire, as they do when nobody works for long."""
        self.log.committed.clear()
        self._high.clear()

    # -- what must always hold -----------------------------------------------------------------------------------------

    def _check_running(self) -> None:
        for (topic, partition), committed in self.log.committed.items():
            assert committed >= self._high.get((topic, partition), 0), "a committed offset went back"
            self._high[topic, partition] = committed
            meta = self.grid.metas.get((topic, partition))
            assert meta is None or (meta.applied or 0) <= committed, "the grid is ahead of the log"
        self._snapshots.append(_copy(self.grid.metas, self.grid.profiles))
        del self._snapshots[:-8]

    def check_readers(self) -> None:
        """What a reader of committed records has seen once never changes."""
        for topic in (ANSWERS, REFUSED):
            for partition in range(self.partitions):
                now = [record.value for record in self.log.visible(topic, partition)]
                before = self._seen.get((topic, partition), [])
                assert now[: len(before)] == before, "a reader saw what is not there any more"
                self._seen[topic, partition] = now

    # -- a whole run -------------------------------------------------------------------------------------------------

    def produce(self, records: list[tuple[bytes, bytes]]) -> None:
        """Append records to the input topic."""
        for key, value in records:
            self.log.append(self.topic, key, value, self.clock.now_ms(), partition_of(key, self.partitions))

    @property
    def done(self) -> bool:
        """Whether everything is committed and applied."""
        for partition in range(self.partitions):
            end, meta = self.log.end(self.topic, partition), self.grid.metas.get((self.topic, partition))
            if self.log.committed.get((self.topic, partition), 0) != end or (meta.applied if meta else None) not in (
                end,
                None,
            ):
                return False
            if end and (
                meta is None or meta.applied is None or meta.profiles != len(self.grid.of(self.topic, partition))
            ):
                return False
        return True

    def settle(self, turns: int = 400) -> None:
        """Let everybody work until all is done and stays so: dead workers are started again."""
        quiet = 0
        for _ in range(turns):
            for name in ("a", "b"):
                if name not in self.workers:
                    self.spawn(name)
            for name in sorted(self.workers):
                self.turn(name)
            self.check_readers()
            if not self.done:
                quiet = 0
                continue
            quiet += 1
            self.clock.sleep(PROBE_EVERY_S)  # time to notice what was lost meanwhile
            self.effects += 1
            if quiet > 2 and not self._late and self.effects >= self._away_until:
                return
            self._deliver_late()
        raise AssertionError(f"not done after {turns} turns: {self.log.committed}, {self.grid.metas}"[:600])

    def check(self) -> None:
        """Assert that every record was answered exactly once, in order, from the exact fold of those before it."""
        self.log.expire()
        assert not [c for c in self.log.commits if c.state == OPEN] or self._expire_all()
        answers: dict[tuple[int, int], list[tuple[int, ...] | None]] = {}
        for partition in range(self.partitions):
            last: dict[bytes | None, int] = {}
            for topic in (ANSWERS, REFUSED):
                for record in self.log.visible(topic, partition):
                    source, offset, *folded = ast.literal_eval((record.value or b"").decode())
                    answers.setdefault((source, offset), []).append(folded[0] if folded else None)
                    if topic == ANSWERS and self.guarantee == "exactly_once":
                        assert offset > last.get(record.key, -1), "answers of one card are out of order"
                        last[record.key] = offset
        self._check_against_the_log(answers)

    def _expire_all(self) -> bool:
        self.clock.sleep(60.0)
        self.log.expire()
        return True

    def _check_against_the_log(self, answers: dict[tuple[int, int], list[tuple[int, ...] | None]]) -> None:
        wanted: dict[tuple[int, int], tuple[int, ...] | None] = {}
        for partition in range(self.partitions):
            folds: dict[bytes, list[int]] = {}
            for offset, record in enumerate(self.log.partition_log(TOPIC, partition)):
                key = record.key or b""
                if record.value in (b"bad", POISON, *RAISES):
                    wanted[partition, offset] = None
                    continue
                wanted[partition, offset] = tuple(folds.setdefault(key, []))
                folds[key].append(offset)
            kept = {card: offsets_of(p) for card, p in self.grid.of(TOPIC, partition).items()}
            assert kept == folds, f"partition {partition}: the grid is not the fold of the log"
        assert answers.keys() == wanted.keys(), "lost or invented"
        for position, found in answers.items():
            assert len(found) == 1 or self.guarantee == "at_least_once", f"{position} was answered {len(found)} times"
            assert set(found) == {wanted[position]}, f"{position} was decided from another fold"


def _copy(metas: dict[Any, Any], profiles: dict[Any, Any]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    return {k: replace(v) for k, v in metas.items()}, {k: dict(v) for k, v in profiles.items()}
