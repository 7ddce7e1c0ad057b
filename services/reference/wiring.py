"""One reference service, wired to Kafka and Redis by its settings: a worker for accounts and one for customers, on one thread."""

from __future__ import annotations

from typing import Final

from services.codec.reference import ACCOUNTS, CUSTOMERS
from services.reference.processor import ReferenceProcessor
from services.runtime.clock import SystemClock
from services.runtime.config import Settings
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.team import Team
from services.runtime.wiring import Membership, build_ports, build_worker

TOPICS: Final = (ACCOUNTS, CUSTOMERS)
POLL_TIMEOUT_MS: Final = 20
"""How long one worker waits for a record while the other may have one."""


def membership(settings: Settings, topic: str) -> Membership:
    """Return what one of the workers reads, and as whom."""
    return Membership(topic, settings.reference_group(topic), "services.reference.sandbox")


def build(settings: Settings, health: Health, metrics: MetricsRegistry) -> Team:
    """Build everything. Raises ConfigError."""
    workers = []
    for topic in TOPICS:
        # Of two producers with one name each would fence the other.
        name = f"{settings.transactional_id}-{topic}" if settings.transactional_id else ""
        poll_timeout_ms = min(settings.poll_timeout_ms, POLL_TIMEOUT_MS)
        own = settings.with_values(poll_timeout_ms=poll_timeout_ms, transactional_id=name)
        part = health.part(topic)
        part.set("kernels_compiled", True)
        ports = build_ports(own, SystemClock(), membership(own, topic))
        workers.append(build_worker(own, ReferenceProcessor(topic), ports, part, metrics.part()))
    return Team(workers)
