"""``python -m services.measure.core_scorer``: one scorer of the workload ``core``."""

from __future__ import annotations

from dataclasses import replace

from services.measure.core_only import CoreProcessor
from services.registry import BY_NAME
from services.runtime.assembling import Parts
from services.runtime.clock import Clock
from services.runtime.config import Settings
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.service import serve
from services.scorer.parts import ladder_of, parts_with


def build(settings: Settings, clock: Clock, metrics: MetricsRegistry, health: Health) -> Parts:  # noqa: ARG001
    """See :attr:`services.registry.ServiceSpec.build`."""
    return parts_with(CoreProcessor(None, ladder_of(settings)), settings, metrics, health)


if __name__ == "__main__":
    serve(replace(BY_NAME["scorer"], build="services.measure.core_scorer:build"))
