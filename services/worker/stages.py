"""How long the stages of a batch take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from services.runtime import catalogue as m
from services.runtime.clock import Clock
from services.runtime.metrics import MetricsRegistry

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stages:
    """Times the stages of a batch."""

    clock: Clock
    metrics: MetricsRegistry

    def time(self, name: str, work: Callable[[], T]) -> T:
        """Do some work, and count how long it took."""
        begin_s = self.clock.monotonic_s()
        result = work()
        self.took(name, self.clock.monotonic_s() - begin_s)
        return result

    def took(self, name: str, seconds: float) -> None:
        """Count how long a stage took."""
        self.metrics.observe(m.STAGE_SECONDS, seconds, name)
