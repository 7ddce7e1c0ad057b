"""One profiler, wired to Kafka and Redis by its settings."""

from __future__ import annotations

from services.profiler.processor import PreparedEvents, ProfilerProcessor, TerminalOutcome
from services.profiler.warm_up import warm_up
from services.runtime.clock import SystemClock
from services.runtime.config import Settings
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.wiring import Membership, build_ports, build_worker
from services.runtime.worker import Worker


def membership(settings: Settings) -> Membership:
    """Return what a profiler reads, and as whom."""
    return Membership(ProfilerProcessor.topic, settings.profiler_group_id, "services.profiler.sandbox")


def build(settings: Settings, health: Health, metrics: MetricsRegistry) -> Worker[PreparedEvents, TerminalOutcome]:
    """Build everything. Raises ConfigError."""
    processor = ProfilerProcessor()
    warm_up(processor)
    health.set("kernels_compiled", True)
    return build_worker(
        settings, processor, build_ports(settings, SystemClock(), membership(settings)), health, metrics
    )
