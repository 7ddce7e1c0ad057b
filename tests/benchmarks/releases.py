"""What releasing a model costs: a shadow, in processor time a transaction; a switch, in the latency of those that flow meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

from services.codec.model_releases import ModelRelease, Stage
from services.decision.release_loading import files_of
from services.rulebook.releases import ModelReleases
from services.runtime.children import ChildError
from services.runtime.clock import SystemClock
from tests.benchmarks.bench_system import BenchSystem, Subject, bench_system, cpu_seconds, traffic_of
from tests.benchmarks.latency import WARM_UP_S, open_loop
from tests.decision.candidates import candidate

RATE: Final = 1_000.0
SECONDS: Final = 8.0
"""How long a latency is measured: the switch lies in its middle."""
BACKLOG: Final = 200_000
_CARDS: Final = 20_000
_ANNOUNCED_S: Final = 30.0


class Releaser:
    """Announces the stages of one candidate, and says how long the scorer took to follow."""

    def __init__(self, system: BenchSystem, folder: Path) -> None:
        self._book = ModelReleases(system.stack.kafka_connection, SystemClock())
        self._files = files_of(folder)
        self.took_s: list[float] = []

    def announce(self, stage: Stage) -> None:
        """Announce a stage, and wait until the scorer does it. Raises ChildError."""
        now_ms, begun_s = time.time_ns() // 1_000_000, time.monotonic()
        one = ModelRelease("fraud/v5", stage, now_ms, "fraud/v5", self._files, "bench", now_ms)
        self._book.announce(one)
        done, waiting, refused = self._book.wait(one, _ANNOUNCED_S)
        if waiting or refused or not done:
            raise ChildError(f"the scorer does not follow: {waiting or refused}")
        self.took_s.append(time.monotonic() - begun_s)


def measure_releases(subject: Subject, folder: Path, runs: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure switches under load, and backlogs with and without a shadow, in turn. Raises ChildError, StackError, StreamsError."""
    models = folder.with_name(f"{folder.name}-models").absolute()  # the folder itself is emptied with each stack
    v5 = models / "fraud/v5"
    if not v5.exists():
        candidate(models)
    own = subject.of(models_path=str(models))
    found: dict[str, Any] = {"switch": _switches(own, folder, v5, runs, progress)}
    return found | {"shadow": _shadow_costs(own, folder, v5, runs, progress)}


def _switches(subject: Subject, folder: Path, v5: Path, runs: int, progress: Callable[[str], None]) -> dict[str, Any]:
    traffic = traffic_of(int((1 + 3 * runs) * RATE * (WARM_UP_S + SECONDS)) + 1_000, _CARDS, 3)
    quiet, live, back, took, rolled_s = [], [], [], [], []
    with bench_system(subject, folder) as system, system.child("scorer") as scorer:
        scorer.wait_ready(120)
        releaser = Releaser(system, v5)
        with open_loop(system.stack.kafka_address, traffic) as loop:
            loop.run(RATE, SECONDS)  # all is warm
            for run in range(runs):
                quiet.append(loop.run(RATE, SECONDS)["p99"])
                live.append(_during(lambda: releaser.announce(Stage.LIVE), loop.run))
                took.append(releaser.took_s[-1])
                back.append(_during(lambda: releaser.announce(Stage.WITHDRAWN), loop.run))
                rolled_s.append(releaser.took_s[-1])
                progress(
                    f"run {run + 1}: p99 {quiet[-1]} ms, {live[-1]} while a model goes live, {back[-1]} while it is taken back; "
                    f"everywhere after {took[-1]:.2f} and {rolled_s[-1]:.2f} s"
                )
    medians = {
        "quiet_p99_ms": quiet,
        "live_p99_ms": live,
        "rollback_p99_ms": back,
        "live_s": took,
        "rollback_s": rolled_s,
    }
    return {name: round(median(values), 2) for name, values in medians.items()} | {"rate_per_s": RATE, "runs": runs}


def _during(change: Callable[[], None], run: Callable[[float, float], dict[str, Any]]) -> float:
    """Return the p99 of a stretch of traffic in whose middle something changes."""
    failed: list[BaseException] = []

    def later() -> None:
        time.sleep(WARM_UP_S + SECONDS / 2)
        try:
            change()
        except BaseException as error:  # noqa: BLE001 - raised by whoever waits for it
            failed.append(error)

    thread = threading.Thread(target=later, daemon=True)
    thread.start()
    found = run(RATE, SECONDS)
    thread.join(_ANNOUNCED_S)
    if failed:
        raise failed[0]
    return float(found["p99"])


def _shadow_costs(
    subject: Subject, folder: Path, v5: Path, runs: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    traffic = traffic_of(BACKLOG, _CARDS, 5)
    without: list[float] = []
    beside: list[float] = []
    for run in range(runs):
        for costs, stage in ((without, Stage.WITHDRAWN), (beside, Stage.SHADOW)):
            with bench_system(subject, folder) as system, system.child("scorer") as scorer:
                scorer.wait_ready(120)
                Releaser(system, v5).announce(stage)
                system.send(traffic)  # compiled, connected, and every card is known
                system.wait_drained("card-transactions", system.settings.group_id)
                pid = scorer.process.pid
                before_s = cpu_seconds(pid)
                system.send(traffic_of(BACKLOG, _CARDS, 7 + run))
                system.wait_drained("card-transactions", system.settings.group_id)
                costs.append(1e6 * (cpu_seconds(pid) - before_s) / BACKLOG)
        progress(
            f"run {run + 1}: {without[-1]:.2f} us of the scorer's processor a transaction, {beside[-1]:.2f} with a shadow"
        )
    return {
        "us_per_transaction": round(median(without), 2),
        "with_shadow_us": round(median(beside), 2),
        "cost_us": round(median([b - a for a, b in zip(without, beside, strict=True)]), 2),
    }
