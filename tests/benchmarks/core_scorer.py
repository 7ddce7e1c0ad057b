"""``python -m tests.benchmarks.core_scorer``: one scorer of the workload ``core``."""

from __future__ import annotations

from dataclasses import replace

from services.registry import BY_NAME, LogSpec
from services.runtime.clock import Clock
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.settings import Settings
from services.scorer.parts import parts_with, safe_default_of
from services.worker.assembling import Parts
from services.worker.service import serve
from tests.benchmarks.core_only import CoreProcessor


def build(log: LogSpec, settings: Settings, clock: Clock, metrics: MetricsRegistry, health: Health) -> Parts:
    """See :attr:`services.registry.ServiceSpec.build`."""
    return parts_with(CoreProcessor(None, safe_default_of(settings)), settings, metrics, health)


if __name__ == "__main__":
    serve(replace(BY_NAME["scorer"], build="tests.benchmarks.core_scorer:build"))
