"""``bench``: everything that is measured of speed, in one run, so that all of it can be set against the same yardstick."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from services.core.vacuous import require_figures, require_positive
from services.inference.artifact import load_model
from services.inference.released import live_model
from services.runtime.settings import Settings
from services.scorer.processor import ScorerProcessor
from services.stack.kafka import Compiling
from tests.benchmarks.aot_cache import broker_aot_cache
from tests.benchmarks.bench_system import CORE, FULL, TOPIC, Subject, bench_system, traffic_of
from tests.benchmarks.core_only import CoreProcessor
from tests.benchmarks.floors import measure_floors
from tests.benchmarks.in_process import measure_in_fresh_process, measure_loop
from tests.benchmarks.latency import WARM_UP_S, median_of, open_loop
from tests.benchmarks.memory import measure_memory
from tests.benchmarks.recovery import measure_recovery
from tests.benchmarks.stalls import StageCounts
from tests.benchmarks.throughput import measure_throughput
from tests.benchmarks.yardstick import measure_plain_worker

KINDS: Final = {
    "exactly_once": (CORE, "exactly_once"),
    "at_least_once": (CORE, "at_least_once"),
    "full": (FULL, "exactly_once"),
}
"""What is measured whole: by its name in the result, the workload and the guarantee."""
RATES: Final = (1_000.0, 10_000.0)
PLAIN_RECORDS: Final = 15_000
CONDITIONING_S: Final = 20.0
"""How long a system works at the highest of the fixed rates, after warming up, before the latency of any rate counts: so long Java compiles."""
SEED: Final = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    records: int = 1_000_000
    cards: int = 50_000
    seconds: float = 20.0
    """How long each latency is measured each time, after warming up."""
    runs: int = 3
    """How often everything whole is measured, in turn; medians are reported."""
    warm_up: int = 200_000
    """Records that are worked off before throughput or latency is measured, so that Kafka's code is compiled and the cards are known."""


Progress = Callable[[str], None]


def run_bench(settings: Settings, folder: Path, progress: Progress, plan: Plan) -> dict[str, Any]:
    """Measure everything. Raises StackError, StreamsError, ChildError, ValueError."""
    model = load_model(live_model())
    subjects = {
        name: Subject(load, settings.with_values(guarantee=guarantee)) for name, (load, guarantee) in KINDS.items()
    }
    core = subjects["exactly_once"]
    aot_cache = broker_aot_cache(core, folder, progress)
    progress(f"simulating {plan.records:,} transactions of {plan.cards:,} cards")
    traffic = traffic_of(plan.warm_up + plan.records, plan.cards, SEED)
    warm_up, backlog = traffic.take(np.arange(plan.warm_up)), traffic.take(np.arange(plan.warm_up, len(traffic)))
    plain, whole = [], {name: [] for name in KINDS}  # type: ignore[var-annotated]
    for run in range(plan.runs):
        plain.append(measure_plain_worker(core, folder, backlog.take(np.arange(PLAIN_RECORDS)))["throughput_per_s"])
        progress(f"run {run + 1} of {plan.runs}: the plain worker {plain[-1]:,} a second")
        for name, subject in subjects.items():
            whole[name].append(measure_throughput(subject, folder, backlog, warm_up))
            progress(
                f"run {run + 1} of {plan.runs}: {name} {whole[name][-1]['throughput_per_s']:,} a second, {whole[name][-1]['cpu_us_per_record']}"
            )
    yardstick = require_positive("the plain worker's throughput", float(np.median(plain)))
    result: dict[str, Any] = {"plain": {"throughput_per_s": round(yardstick)}}
    for name, found in whole.items():
        reported = _medians(found)
        reported["ratio_to_plain"] = round(reported["throughput_per_s"] / yardstick, 1)
        half = reported["throughput_per_s"] / 2
        reported |= measure_latencies(subjects[name], (folder, aot_cache), progress, plan, half)
        result[name] = reported
    progress("recovery, memory, the parts")
    result["recovery"] = measure_recovery(core, folder, backlog.take(np.arange(plan.records // 2)))
    result["memory"] = measure_memory(core, folder)
    result["in_process"] = {
        "core": measure_in_fresh_process(CoreProcessor), "full": measure_in_fresh_process(ScorerProcessor),
    }  # fmt: skip
    result["machine"] = {
        "cores": os.cpu_count(), "system": platform.system(), "processor": platform.machine(), "loop_us": measure_loop(),
        "python": sys.version,
    }  # fmt: skip
    result["floors_us"] = measure_floors(core, folder, model, backlog)
    result["plan"] = {name: getattr(plan, name) for name in Plan.__slots__} | settings.topic_counts
    require_figures("bench", result)
    return result


def measure_latencies(
    subject: Subject, place: tuple[Path, Compiling], progress: Progress, plan: Plan, half: float
) -> dict[str, Any]:
    """Return the latency at each of ``RATES`` and at one more, by name, of one scorer that goes on running, and a broker that has compiled what it needs.

    The fixed rates are measured in turn, as often as the plan says, and then the other one: what that leaves behind is still written to the disk for a
    while. Medians are reported.

    Args:
        subject: the workload and the settings.
        place: the folder, and how the broker compiles.
        progress: is called for each rate.
        plan: how much is measured.
        half: the one more: half of the throughput, in transactions a second.
    """
    fixed = {f"latency_ms_{rate:.0f}": rate for rate in RATES}
    turns = [*fixed.items()] * plan.runs + [("latency_ms_half", half)] * plan.runs
    sent = RATES[-1] * (WARM_UP_S + CONDITIONING_S) + sum(rate * (WARM_UP_S + plan.seconds) for _, rate in turns)
    count = plan.warm_up + round(sent) + len(turns)
    traffic = traffic_of(count, plan.cards, SEED + 1)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name, _ in turns}
    with bench_system(subject, *place) as system, system.beside(traffic), system.child("scorer") as scorer:
        scorer.wait_ready(120)
        system.send(traffic.take(np.arange(plan.warm_up)))
        system.wait_drained(TOPIC, system.settings.group_id)
        system.wait_quiet()
        with open_loop(system.stack.kafka_address, traffic.take(np.arange(plan.warm_up, count))) as loop:
            loop.run(RATES[-1], CONDITIONING_S)
            for name, rate in turns:
                before = StageCounts.of(scorer.metrics())
                found[name].append(loop.run(rate, plan.seconds) | StageCounts.of(scorer.metrics()).since(before))
                progress(
                    f"{subject.workload.name}, {subject.settings.guarantee}: {rate:,.0f} a second: {found[name][-1]}"
                )
    return {name: median_of(runs) for name, runs in found.items()}


def _medians(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of every figure of some runs, and the runs' throughputs."""
    parts = found[0]["cpu_us_per_record"]
    return {
        "throughput_per_s": round(float(np.median([one["throughput_per_s"] for one in found]))),
        "throughputs_per_s": [one["throughput_per_s"] for one in found],
        "cpu_us_per_record": {
            part: round(float(np.median([one["cpu_us_per_record"][part] for one in found])), 1) for part in parts
        },
        "scorer_start_cpu_s": found[0]["scorer_start_cpu_s"],
        "degraded": worst_degraded([one["degraded"] for one in found]),
    }


def worst_degraded(runs: Sequence[dict[str, int]]) -> dict[str, int]:
    """Return of everything that decisions could not see the run in which most could not."""
    return {what: max(run.get(what, 0) for run in runs) for what in sorted({what for run in runs for what in run})}
