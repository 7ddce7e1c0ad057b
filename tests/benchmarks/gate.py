"""A gate against becoming slower that holds on noisy machines: paired ratios against the plain worker's way of deciding, not seconds.

The two take turns, some milliseconds each, so that whatever else the machine does slows both; what is reported is the median of the pairs'
ratios. Where a ratio falls below what ``tests/benchmarks/gate.json`` asks for, something became slower.
"""

from __future__ import annotations

import importlib.util
import json
import math
import time
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from services.codec.schemas import topics
from services.core.features import FEATURES
from services.inference.artifact import load_model
from services.inference.released import live_model
from services.paths import data_folder
from tests.benchmarks.bench_system import TOPIC
from tests.benchmarks.core_only import CoreProcessor
from tests.benchmarks.in_process import InProcess
from tests.benchmarks.yardstick import PLAIN_WORKER

ASKED: Final = PLAIN_WORKER.parent / "gate.json"
PAIRS: Final = 41
PLAIN_AT_ONCE: Final = 20
SIZES: Final = {1: 20, 100: 2, 1_000: 1}
"""How many batches of each size make one half of a pair."""


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Plain:
    """The plain worker's way, one record after the other, with its past at hand."""

    def __init__(self, values: list[bytes]) -> None:
        self._plain = _load(PLAIN_WORKER)
        schema = data_folder("schemas") / TOPIC / f"v{topics()[TOPIC].latest.version}.avsc"
        self._booster, self._wanted = self._plain.open_model(str(live_model() / "champion.json"), str(schema))
        self._values, self._past, self._at = values, [(at * 40_000_000, 1_000 + at) for at in range(60)], 0

    def record_s(self) -> float:
        """Return the seconds a record takes, of a few."""
        begin = time.perf_counter()
        for _ in range(PLAIN_AT_ONCE):
            self._at = (self._at + 1) % len(self._values)
            self._plain.decide(self._booster, self._wanted, len(FEATURES), self._values[self._at], self._past)
        return (time.perf_counter() - begin) / PLAIN_AT_ONCE


def measure_ratios() -> dict[str, float]:
    """Return how many times as quick as the plain way a record of a batch of each size is, from its bytes to its encoded decision."""
    subject = InProcess(load_model(live_model()), CoreProcessor)
    plain = _Plain(subject.values[:2_000])
    for _ in range(5):
        subject.batch(1_000)
    found = {}
    for size, times in SIZES.items():
        ratios = []
        for _ in range(PAIRS):
            one = plain.record_s()
            whole = sum(sum(subject.batch(size).values()) for _ in range(times))
            ratios.append(one / (whole / (times * size)))
        found[f"batch_{size}"] = round(float(np.median(ratios)), 2)
    return found


def judge(found: dict[str, float], asked: dict[str, float]) -> list[str]:
    """Return what became slower, or was not measured, in words; nothing where all is well."""
    if not asked:
        return ["nothing is asked for"]
    # Not `< least`, of which NaN knows nothing.
    return [
        f"{name}: {found.get(name, 'not measured:')} times the plain worker, {least} are asked"
        for name, least in asked.items()
        if not (math.isfinite(found.get(name, math.nan)) and math.isfinite(least) and found[name] >= least)
    ]


def asked_ratios() -> dict[str, Any]:
    """Return what is asked for."""
    return dict(json.loads(ASKED.read_text())["least"])
