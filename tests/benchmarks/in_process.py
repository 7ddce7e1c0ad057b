"""What a batch costs within the process: from its bytes to its encoded decisions, by stage, and the pieces that cannot be left out."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, Final

import numpy as np

from services.codec.transactions import TOPIC, encode_transactions
from services.core.columns import Text, type_f64
from services.core.fallback import SafeDefault
from services.core.kernels import partitions_of
from services.inference.artifact import ReleasedModel, load_model
from services.inference.released import live_model
from services.runtime.children import ChildError
from services.runtime.clock import SystemClock
from services.runtime.garbage_collection import tune_garbage_collection
from services.runtime.metrics import MetricsRegistry
from services.scorer.processor import ScorerProcessor
from services.scorer.warm_up import nothing_known, warm_up
from services.streams import Records
from services.subprocesses import end_with_parent
from tests.benchmarks.bench_system import traffic_of

SIZES: Final = (1, 10, 100, 1_000)
PARTITIONS: Final = 12
HISTORY: Final = 60_000
"""Transactions that the cards have before anything is measured."""
MEASURED: Final = {1: 3_000, 10: 1_000, 100: 300, 1_000: 30}
"""How many batches of each size."""
STAGES: Final = ("prepare", "decide", "encode", "measure")
UNTIL: Final = {"decode_to_decision_us": 2, "decode_to_encoded_us": 3}
"""What is said of batches as a whole, and how many of the stages it takes."""


class InProcess:
    """A scorer's processor with its profiles in a dictionary."""

    def __init__(self, model: ReleasedModel, kind: type[ScorerProcessor]) -> None:
        self._processor = kind(model, SafeDefault(30.0, 300.0))
        warm_up(self._processor)
        traffic = traffic_of(HISTORY + sum(size * times for size, times in MEASURED.items()), 5_000, 5)
        self.values, self._keys = encode_transactions(traffic.columns), traffic.columns.card_id.tolist()
        self._partitions = partitions_of(Text.of(self._keys), PARTITIONS)
        self._profiles: dict[bytes, bytes | None] = {}
        self._metrics, self._at = MetricsRegistry(), 0
        self._stamp_ms = SystemClock().now_ms()

    def batch(self, size: int) -> dict[str, float]:
        """Decide on the next transactions; return the seconds of each stage."""
        rows = slice(self._at, self._at + size)
        self._at += size
        records = Records(
            TOPIC, self._partitions[rows], np.arange(rows.start, rows.stop), np.full(size, self._stamp_ms),
            self._keys[rows], self.values[rows], PARTITIONS,
        )  # fmt: skip
        times = [time.perf_counter()]
        prepared = self._processor.prepare(records, np.zeros(size, np.int64))
        times.append(time.perf_counter())
        known, found = [self._profiles.get(card) for card in prepared.cards], nothing_known(prepared)
        times.append(time.perf_counter())
        outcome = self._processor.decide(prepared, known, found, np.ones(size, bool), self._stamp_ms)
        times.append(time.perf_counter())
        list(outcome.outputs)
        times.append(time.perf_counter())
        self._processor.measure(self._metrics, prepared, outcome, self._stamp_ms)
        times.append(time.perf_counter())
        self._profiles |= dict(zip(prepared.cards, outcome.profiles, strict=True))
        prepare, _, *others = np.diff(times).tolist()
        return dict(zip(STAGES, (prepare, *others), strict=True))


def measure_in_fresh_process(kind: type[ScorerProcessor]) -> dict[str, Any]:
    """Return what :func:`measure_in_process` says of the live release in a process that holds what a scorer holds, and nothing else.

    Raises:
        ChildError: it ended without an answer.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), end_with_parent, (os.getpid(),)) as pool:
        try:
            return pool.submit(_measure_live, kind).result()
        except BrokenProcessPool as error:
            raise ChildError("what was to measure within a process ended before it was done") from error


def _measure_live(kind: type[ScorerProcessor]) -> dict[str, Any]:
    return measure_in_process(load_model(live_model()), kind)


def measure_in_process(
    model: ReleasedModel, kind: type[ScorerProcessor], sizes: Sequence[int] = SIZES
) -> dict[str, Any]:
    """Return the microseconds a transaction of each stage in batches of each size, medians, and percentiles from decoding to decision and until it is encoded."""
    subject = InProcess(model, kind)
    tune_garbage_collection()  # as services do
    for _ in range(HISTORY // 1_000):
        subject.batch(1_000)
    found: dict[str, Any] = {}
    for size in sizes:
        took = [subject.batch(size) for _ in range(MEASURED[size])]
        stages = {stage: round(1e6 * float(np.median([one[stage] for one in took])) / size, 2) for stage in STAGES}
        found[str(size)] = {"us_per_record": stages} | {
            name: _reported(np.array([sum(one[stage] for stage in STAGES[:count]) for one in took]))
            for name, count in UNTIL.items()
        }
    return found


def measure_loop(times: int = 5_000) -> dict[str, float]:
    """Return the percentiles of the microseconds that the same 1,500 additions of the interpreter take: how evenly the machine itself runs."""
    took = np.empty(times)
    for at in range(times):
        begin_s, total = time.perf_counter(), 0
        for number in range(1_500):
            total += number
        took[at] = time.perf_counter() - begin_s
    return _reported(took)


def _reported(took_s: type_f64) -> dict[str, float]:
    p50, p99 = (1e6 * np.percentile(took_s, [50, 99])).tolist()
    return {"p50": round(p50, 1), "p99": round(p99, 1), "max": round(1e6 * float(took_s.max()))}
