"""What a broker knows of itself before a latency is measured.

A broker that lives for days has compiled its code for what it is asked to do; one that was started for a measurement compiles while it is
measured, or runs code that was compiled quickly. Java can keep what it found out about a program from one life to the next (JEP 514 and 515,
Java 25): so one broker works for a minute as those that are measured will, and they begin with what it has learned.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from services.stack.kafka import Compiling, jars_folder
from services.stack.processes import StackError
from tests.benchmarks.bench_system import TOPIC, Subject, bench_system, traffic_of
from tests.benchmarks.latency import WARM_UP_S, open_loop

BACKLOG: Final = 300_000
RATES: Final = (1_000.0, 10_000.0)
SECONDS: Final = 10.0
GUARANTEES: Final = ("exactly_once", "at_least_once")


def broker_aot_cache(subject: Subject, folder: Path, progress: Callable[[str], None]) -> Compiling:
    """Return how a broker compiles that has learned; the first time it learns, and that is kept.

    Raises:
        StackError, StreamsError, ChildError: it did not come to that.
    """
    kept = jars_folder() / "learned.aot"
    if not kept.is_file():
        progress("a broker learns what it will be asked to do, once: a minute")
        # Its name is not the one that others look for until it is whole.
        unfinished = kept.with_suffix(".new")
        _work(subject, folder, Compiling.learning(unfinished))
        if not unfinished.is_file():
            raise StackError("the broker that was to learn kept nothing of it")
        unfinished.rename(kept)
    return Compiling.aot_cache(kept)


def _work(subject: Subject, folder: Path, compiling: Compiling) -> None:
    """Give a broker a backlog and an open loop, with each guarantee."""
    paced = round(sum(rate * (WARM_UP_S + SECONDS) for rate in RATES))
    traffic = traffic_of(BACKLOG + len(GUARANTEES) * paced, 50_000, 7)
    with bench_system(subject, folder, compiling) as system:
        system.send(traffic.take(np.arange(BACKLOG)))
        for turn, guarantee in enumerate(GUARANTEES):
            own = system.of(guarantee=guarantee)
            at = BACKLOG + turn * paced
            with own.child("scorer") as scorer:
                scorer.wait_ready(120)
                system.wait_drained(TOPIC, own.settings.group_id)
                with open_loop(system.stack.kafka_address, traffic.take(np.arange(at, at + paced))) as loop:
                    for rate in RATES:
                        loop.run(rate, SECONDS)
