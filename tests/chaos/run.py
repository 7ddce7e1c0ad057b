"""A whole attack: rounds of faults under load, each with a verdict of the checker; faults that halt, each with a system of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np

from services.checker.evidence import gather
from services.checker.scoring import Scoring, released_folders
from services.checker.verdict import Checker
from services.offline.simulator.reference import simulate_reference
from services.runtime.settings import Settings
from services.stack.processes import StackError
from tests.chaos.archive import lake_faults
from tests.chaos.capacity import measure_capacity
from tests.chaos.errors import ChaosError
from tests.chaos.faults import FAULTS
from tests.chaos.halting import HALTING, run_halting
from tests.chaos.input import FORBIDDEN, endless_load, load_of
from tests.chaos.system import ChaosSystem, running
from tests.chaos.victim import RAISES
from tests.chaos.watchers import where_of

LOAD_SHARE: Final = 0.4
"""Of the capacity."""
CAPACITY_STEP_S: Final = 3.0
ROUND_FAULTS: Final = 5
BLOCK_S: Final = 20
DRAIN_S: Final = 60.0
CARDS: Final = 3_000
LIMITS: Final = {"takeover_s": 15.0, "clean_takeover_s": 2.0, "rolling_cost_p99_ms": 1_000.0}
"""What is promised: until all partitions are owned again after an unclean end and after a clean stop of a worker, and what a rolling
restart costs in latency."""
QUICK: Final = (
    "F-04", "F-05", "F-09", "F-13", "F-20", "F-25", "F-26", "F-27", "F-28", "F-32", "F-34", "F-03", "F-24",
)  # fmt: skip
"""What runs with the tests: the most telling ones, in some minutes."""
SEEN: Final = ("transactions", "decided", "samples", "seen_live")
"""What a round must have had for its verdict to say anything: work, and somebody who watched it."""
ALL: Final = tuple(sorted([*FAULTS, *(fault.name for fault in HALTING)]))


@dataclass(slots=True)
class ChaosReport:
    """What came of an attack."""

    seed: int
    asked: Sequence[str] = ()
    """The faults that were to be made."""
    faults: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def times(self) -> dict[str, dict[str, float]]:
        """Return the longest of each kind of time that a limit is promised for, and the limit."""
        rolling = [found for found in self.faults.values() if "clean_takeover_s" in found]
        took = {
            "takeover_s": [s for found in self.faults.values() for s in found.get("takeover_s", [])],
            "clean_takeover_s": [found["clean_takeover_s"] for found in rolling],
            "rolling_cost_p99_ms": [round(f["latency_p99_ms"] - f["before_p99_ms"], 1) for f in rolling],
        }
        # Of several with a NaN among them max tells any; numpy's tells the NaN, which keeps no limit.
        return {name: {"took": float(np.max(taken)), "limit": LIMITS[name]} for name, taken in took.items() if taken}

    def vacuous(self) -> list[str]:
        """Return why the attack proves less than was asked: what did not come to pass, and who saw nothing."""
        said = [f"{name} was not made" for name in self.asked if name not in self.faults]
        if not self.asked:
            said.append("no fault was asked for")
        if not self.rounds and any(name in FAULTS for name in self.asked):
            said.append("no round was judged")
        for number, one in enumerate(self.rounds):
            said += [f"round {number + 1}: no {name}" for name in SEEN if not one.get(name)]
        return said

    def as_json(self) -> dict[str, Any]:
        """Return the report for machines.

        Its ``verdict`` is ok only if every fault came to pass, every round holds and was watched, and no time is beyond its limit.
        """
        anomalies: dict[str, int] = {}
        for one in self.rounds:
            for name, found in one["anomalies"].items():
                anomalies[name] = anomalies.get(name, 0) + found["count"]
        takeovers = [s for found in self.faults.values() for s in found.get("takeover_s", [])]
        times = self.times()
        missed = [name for name, took in times.items() if not took["took"] <= took["limit"]]
        wrong = [one for one in self.rounds if one["verdict"] != "ok"]
        vacuous = self.vacuous()
        holds = not (self.failures or anomalies or wrong or missed or vacuous)
        return {
            "verdict": "ok" if holds else "broken",
            "seed": self.seed,
            "fired": sorted(self.faults),
            "failures": self.failures,
            "vacuous": vacuous,
            "missed_targets": missed,
            "targets": times,
            "transactions": sum(one["transactions"] for one in self.rounds),
            "lost": anomalies.get("lost-write", 0) + anomalies.get("unseen", 0),
            "duplicate": anomalies.get("duplicate", 0),
            "divergent_profiles": anomalies.get("divergent-state", 0),
            "anomalies": anomalies,
            "witnesses": {n: f["witnesses"][:3] for one in self.rounds for n, f in one["anomalies"].items()},
            "takeover_s": {"max": max(takeovers, default=None), "all": sorted(takeovers)},
            "capacity_per_s": [one["capacity_per_s"] for one in self.rounds],
            "load_per_s": [one["load_per_s"] for one in self.rounds],
            "faults": self.faults,
        }


def rounds_of(names: Sequence[str], rng: np.random.Generator) -> list[list[str]]:
    """Return the faults in a random order, cut into rounds."""
    order = [str(name) for name in rng.permutation([name for name in names if name in FAULTS])]
    return [order[at : at + ROUND_FAULTS] for at in range(0, len(order), ROUND_FAULTS)]


@dataclass(slots=True)
class Attack:
    """One attack on systems of its own."""

    settings: Settings
    folder: Path
    progress: Callable[[str], None]
    seed: int
    rng: np.random.Generator = field(init=False)
    report: ChaosReport = field(init=False)
    capacity_per_s: float = 0.0
    """What the services keep up with; 0: it is measured on the first system."""

    def __post_init__(self) -> None:
        self.rng, self.report = np.random.default_rng(self.seed), ChaosReport(self.seed)

    def run(self, names: Sequence[str]) -> ChaosReport:
        """Make these faults. Raises StackError, StreamsError when there is nothing to attack."""
        self.report.asked = tuple(names)
        for number, names_of_round in enumerate(rounds_of(names, self.rng)):
            self.progress(f"round {number + 1}: {', '.join(names_of_round)}")
            try:
                self._round(self.folder / f"round-{number + 1}", names_of_round)
            except (ChaosError, StackError) as error:  # the others go on
                self.report.failures.append(f"round of {', '.join(names_of_round)}: {error}")
        for halting in HALTING:
            if halting.name in names:
                self.progress(f"{halting.name}: {halting.title}")
                try:
                    found = run_halting(halting, self.settings, self.folder / halting.name, lambda _: None)
                    self.report.faults[halting.name] = found
                except (ChaosError, StackError) as error:
                    self.report.failures.append(f"{halting.name}: {error}")
        return self.report

    def _measure(self, system: ChaosSystem, seed: int) -> float:
        """Return the capacity of this machine: measured once, on the first system."""
        steps = count(seed)
        return measure_capacity(system, lambda rate: load_of(int(CAPACITY_STEP_S * rate), CARDS, next(steps)))

    def _round(self, folder: Path, names: Sequence[str]) -> None:
        """Make some faults under load, one after the other, and judge."""
        with running(self.settings, folder, lambda _: None) as system:
            system.rng = self.rng
            seed = int(self.rng.integers(0, 2**31))
            system.capacity = self.capacity_per_s = self.capacity_per_s or self._measure(system, seed)
            rate = LOAD_SHARE * system.capacity
            self.progress(f"  capacity {system.capacity:,.0f} a second, load {rate:,.0f} a second")
            load = load_of(int(BLOCK_S * rate), CARDS, seed + 1)
            system.announce(simulate_reference(load.columns, load.scenario == 0, seed))
            system.load.start(endless_load(load, self.rng), rate)
            time.sleep(2)
            for name in names:
                _make(system, name, self.report, self.progress)
                time.sleep(float(self.rng.uniform(1.5, 3.0)))
            system.load.stop()
            if system.drained_within(DRAIN_S) is None:
                self.report.failures.append(f"round of {', '.join(names)}: not drained within {DRAIN_S:.0f} s")
            time.sleep(3)  # what the last batch applies, and what a probe finds
            system.stop_victims()
            _judge(system, self.report, self.progress, rate)


def _make(system: ChaosSystem, name: str, report: ChaosReport, progress: Callable[[str], None]) -> None:
    begin_s = time.monotonic()
    try:
        measured = FAULTS[name].make(system)
    except Exception as error:  # noqa: BLE001 - a fault that fails is a finding, the others go on
        report.failures.append(f"{name}: {type(error).__name__}: {error}")
        progress(f"  {name} FAILED: {error}")
        system.heal()
        return
    took_s = round(time.monotonic() - begin_s, 1)
    report.faults[name] = {"took_s": took_s, **measured}
    progress(f"  {name} {FAULTS[name].title}: {report.faults[name]}")


def _judge(system: ChaosSystem, report: ChaosReport, progress: Callable[[str], None], rate: float) -> None:
    time.sleep(1)
    system.live.stop()
    system.sampler.stop()
    for watcher in (system.live, system.sampler):
        if watcher.failure is not None:
            report.failures.append(f"{type(watcher).__name__} looked no more: {watcher.failure}")
    own = system.settings
    evidence = gather(where_of(own), (own.group_id, own.router_group_id), lambda _: None)
    evidence.samples, evidence.live, evidence.set_back_s = system.sampler.samples, system.live.seen, system.set_backs
    verdict = (
        Checker(evidence, Scoring(released_folders()), repeats=False, forbidden=FORBIDDEN, excused=RAISES)
        .judge(lambda _: None)
        .as_json()
    )
    report.failures += lake_faults(evidence, own.lake_url)
    report.rounds.append({**verdict, "capacity_per_s": round(system.capacity), "load_per_s": round(rate)})
    counts = {k: v for k, v in verdict.items() if isinstance(v, int)}
    progress(f"  {verdict['verdict']}: {counts} {verdict['anomalies'] or ''}")
