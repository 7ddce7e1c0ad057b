"""One router, wired to Kafka and Redis by its settings."""

from __future__ import annotations

from services.router.processor import PreparedLabels, RouterProcessor
from services.runtime.clock import SystemClock
from services.runtime.config import Settings
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.processor import RefusingOutcome
from services.runtime.wiring import Membership, build_ports, build_worker
from services.runtime.worker import Worker


def membership(settings: Settings) -> Membership:
    """Return what a router reads, and as whom."""
    return Membership(RouterProcessor.topic, settings.router_group_id, "services.router.sandbox")


def build(settings: Settings, health: Health, metrics: MetricsRegistry) -> Worker[PreparedLabels, RefusingOutcome]:
    """Build everything. Raises ConfigError."""
    processor = RouterProcessor()
    health.set("kernels_compiled", True)
    return build_worker(
        settings, processor, build_ports(settings, SystemClock(), membership(settings)), health, metrics
    )
