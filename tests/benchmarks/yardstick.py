"""The yardstick: the plain worker of ``tests/benchmarks`` on the same Kafka and Redis, so that every figure is also a ratio."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from services.codec.schemas import topics
from services.core.features import FEATURES
from services.inference.released import live_model
from services.offline.simulator.traffic import Traffic
from services.paths import data_folder
from services.runtime.children import ChildError
from services.subprocesses import start_tied
from tests.benchmarks.bench_system import TOPIC, Subject, bench_system
from tests.benchmarks.throughput import EARLY, LATE, decision_stamps, rate_between

PLAIN_WORKER: Final = Path(__file__).parents[2] / "tests" / "benchmarks" / "plain_worker.py"
READY_WITHIN_S: Final = 60.0


def measure_plain_worker(subject: Subject, folder: Path, traffic: Traffic) -> dict[str, Any]:
    """Let the plain worker work off a backlog; return its throughput, as :func:`measure_throughput` counts it.

    Raises:
        ChildError: it is not there, or did not do it.
    """
    if not PLAIN_WORKER.is_file():
        raise ChildError(f"the yardstick is not there: {PLAIN_WORKER.name} comes with the sources, in tests/benchmarks")
    with bench_system(subject, folder) as system:
        system.send(traffic)
        ready, schema = (
            folder / "plain.ready",
            data_folder("schemas") / TOPIC / f"v{topics()[TOPIC].latest.version}.avsc",
        )
        command = [
            sys.executable, str(PLAIN_WORKER), system.stack.kafka_address, system.stack.redis_url,
            str(live_model() / "champion.json"), str(len(FEATURES)), str(schema), str(ready),
        ]  # fmt: skip
        with (folder / "plain.log").open("wb") as log:
            process = start_tied(command, stdout=log, stderr=log)
        try:
            deadline_s = time.monotonic() + READY_WITHIN_S
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > deadline_s:
                    raise ChildError(f"the plain worker did not begin: see {folder / 'plain.log'}")
                time.sleep(0.05)
            system.wait_drained(TOPIC, "plain")
        finally:
            process.terminate()
            process.wait()
        stamps = decision_stamps(system, len(traffic))
    early, late = np.quantile(stamps, [EARLY, LATE])
    return {"throughput_per_s": rate_between(early / 1000.0, late / 1000.0, len(stamps))}
