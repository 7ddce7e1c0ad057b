"""Throughput: how fast a backlog is worked off, by the broker's clock, and what each process spends on a record."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from services.core.columns import type_i64
from services.core.vacuous import VacuousError, require_positive, require_varied
from services.offline.simulator.traffic import Traffic
from services.runtime import catalogue as m
from services.runtime.children import ServiceChild, samples
from services.streams.reader import KafkaReader
from tests.benchmarks.bench_system import DRAIN_TIMEOUT_S, TOPIC, BenchSystem, Subject, bench_system, cpu_seconds

DECISIONS: Final = "card-decisions"
TERMINALS: Final = "terminal-events"
EARLY, LATE = 0.1, 0.9


@dataclass(slots=True)
class BacklogProgress:
    """How much a service had worked off when."""

    at_s: list[float] = field(default_factory=list)
    done: list[float] = field(default_factory=list)

    def take(self, done: float, at_s: float) -> None:
        """Note a count of the service's own: the offsets that it commits follow once an interval."""
        self.done.append(done)
        self.at_s.append(at_s)

    def rate(self, count: int) -> int:
        """Return the records a second of the ``count`` that were worked off since the first look. Raises VacuousError."""
        require_varied("what was worked off, by look", self.done)
        early, late = np.interp([self.done[0] + share * count for share in (EARLY, LATE)], self.done, self.at_s)
        return rate_between(early, late, count)


def measure_throughput(subject: Subject, folder: Path, traffic: Traffic, warm_up: Traffic) -> dict[str, Any]:
    """Let one scorer work off a backlog; nobody else reads or writes while it does. Another one has worked ``warm_up`` off before.

    Returns:
        ``throughput_per_s``: between the 10 % and the 90 % point of the decisions, by the time that Kafka stamped them with; in the workload
        ``full`` no more than the profiler folded a second, between the same points of its own.
        ``degraded``: how many decisions could not see everything, by what: what is not looked at costs nothing.
        ``cpu_us_per_record``: of every process, from when the scorer was ready; and of the scorer's start, in seconds.
    """
    with bench_system(subject, folder) as system, system.beside(traffic) as beside:
        system.send(warm_up)
        with system.child("scorer") as scorer:
            scorer.wait_ready(120)
            system.wait_drained(TOPIC, system.settings.group_id)
        if beside:
            system.wait_drained(TERMINALS, system.settings.profiler_group_id)
        system.send(traffic)
        system.wait_quiet()
        with system.child("scorer") as scorer:
            children = {"scorer": scorer, **beside}
            scorer.wait_ready(120)
            start_s = cpu_seconds(scorer.process.pid)
            before = _cpu(system, children)
            folded = _watch_until_drained(system, beside)
            said = scorer.metrics()
            require_positive(
                "the number of decisions in the scorer's metrics", sum(samples(said, m.DECISIONS).values())
            )
            used = {name: after - before[name] for name, after in _cpu(system, children).items()}
        stamps = decision_stamps(system, len(warm_up) + len(traffic))[len(warm_up) :]
    early, late = np.quantile(stamps, [EARLY, LATE])
    decided = rate_between(early / 1000.0, late / 1000.0, len(stamps))
    return {
        "throughput_per_s": min(decided, folded.rate(len(traffic))) if folded else decided,
        "degraded": degraded_in(said),
        "cpu_us_per_record": {name: round(1e6 * seconds / len(traffic), 1) for name, seconds in used.items()},
        "scorer_start_cpu_s": round(start_s, 1),
    }


def _watch_until_drained(system: BenchSystem, beside: dict[str, ServiceChild]) -> BacklogProgress | None:
    """Wait until the backlog is decided on and, where a profiler runs, folded; return the progress of the latter."""
    settings, progress = system.settings, BacklogProgress()
    if not beside:
        system.wait_drained(TOPIC, settings.group_id)
        return None

    def look(_: int = 0) -> None:
        progress.take(sum(samples(beside["profiler"].metrics(), m.RECORDS_IN).values()), time.monotonic())

    system.wait_drained(TOPIC, settings.group_id, look)
    system.wait_drained(TERMINALS, settings.profiler_group_id, look)
    look()
    return progress


def degraded_in(said: str) -> dict[str, int]:
    """Return what a scorer's metrics say of decisions that could not see everything: their number by what they could not see."""
    return {what: round(count) for (what,), count in samples(said, m.DEGRADED).items() if count}


def rate_between(early_s: float, late_s: float, count: int) -> int:
    """Return the records a second of ``count``, of which 10 and 90 % were done at these times. Raises VacuousError."""
    took_s = require_positive("the time from 10 to 90 % of the records", late_s - early_s)
    return round(require_positive("the throughput", (LATE - EARLY) * count / took_s))


def _cpu(system: BenchSystem, children: dict[str, ServiceChild]) -> dict[str, float]:
    pids = {name: child.process.pid for name, child in children.items()}
    stack = {"kafka": system.stack.kafka.pid, "redis": system.stack.redis.pid}
    return {name: cpu_seconds(pid) for name, pid in (pids | stack).items()}


def decision_stamps(system: BenchSystem, count: int) -> type_i64:
    """Return when Kafka stamped each decision, in order. Raises VacuousError where there are not so many."""
    reader = KafkaReader(system.stack.kafka_connection, [DECISIONS], from_beginning=True)
    stamps, seen, deadline_s = [], 0, time.monotonic() + DRAIN_TIMEOUT_S
    while seen < count and time.monotonic() < deadline_s:
        for records in reader.read(1.0):
            stamps.append(records.timestamp_ms)
            seen += len(records)
    reader.close()
    if seen < count or not count:
        raise VacuousError(f"{seen:,} of {count:,} decisions were found within {DRAIN_TIMEOUT_S:.0f} s")
    return np.sort(np.concatenate(stamps))
