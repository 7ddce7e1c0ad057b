"""Recovery: how fast a scorer folds what was decided before, when the grid has lost everything."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from services.offline.simulator.traffic import Traffic
from services.runtime.catalogue import RECOVERED
from services.runtime.children import ChildError, ServiceChild, samples
from tests.benchmarks.bench_system import DRAIN_TIMEOUT_S, TOPIC, Subject, bench_system
from tests.benchmarks.throughput import EARLY, LATE, rate_between

LOOK_EVERY_S: Final = 0.05
ANOTHER_DATABASE: Final = "/1"
"""An empty one of the same Redis."""


def measure_recovery(subject: Subject, folder: Path, traffic: Traffic) -> dict[str, Any]:
    """Let a scorer decide on traffic, and then one with an empty grid fold it: return the second one's records a second, from 10 to 90 %."""
    with bench_system(subject, folder) as system:
        system.send(traffic)
        with system.child("scorer") as scorer:
            scorer.wait_ready(120)
            system.wait_drained(TOPIC, system.settings.group_id)
        url = system.stack.redis_url.rsplit("/", 1)[0] + ANOTHER_DATABASE
        with system.of(redis_url=url).child("scorer") as scorer:
            at_s, folded = _watch(scorer, len(traffic))
    early, late = np.interp([EARLY * len(traffic), LATE * len(traffic)], folded, at_s)
    return {"records_per_s": rate_between(early, late, len(traffic))}


def _watch(scorer: ServiceChild, count: int) -> tuple[list[float], list[float]]:
    at_s, folded, deadline_s = [0.0], [0.0], time.monotonic() + DRAIN_TIMEOUT_S
    while folded[-1] < count:
        if time.monotonic() > deadline_s or scorer.process.poll() is not None:
            raise ChildError(f"{folded[-1]:,.0f} of {count:,} records were folded again")
        time.sleep(LOOK_EVERY_S)
        now = _recovered(scorer)
        if now > folded[-1]:
            at_s.append(time.monotonic())
            folded.append(now)
    return at_s[1:], folded[1:]


def _recovered(scorer: ServiceChild) -> float:
    return samples(scorer.metrics(), RECOVERED).get((), 0.0)
