"""One reassessor, wired to Kafka and Redis by its settings."""

from __future__ import annotations

from dataclasses import replace

from services.reassessor.processor import PreparedRequests, ReassessedOutcome, ReassessorProcessor
from services.runtime.clock import SystemClock
from services.runtime.config import Settings
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.wiring import Membership, build_ports, build_worker
from services.runtime.worker import Worker
from services.scorer.processor import ScorerProcessor
from services.scorer.warm_up import warm_up
from services.scorer.wiring import keepers, ladder_of
from services.streams.places import KafkaPlaces


def membership(settings: Settings) -> Membership:
    """Return what a reassessor reads, and as whom."""
    return Membership(ReassessorProcessor.topic, settings.reassessor_group_id, "services.reassessor.sandbox")


def build(settings: Settings, health: Health, metrics: MetricsRegistry) -> Worker[PreparedRequests, ReassessedOutcome]:
    """Build everything. Raises ConfigError."""
    processor, clock, member = ReassessorProcessor(None, ladder_of(settings)), SystemClock(), membership(settings)
    upkeep = keepers(settings, member.group_id, health, metrics, processor)
    warm_up(ScorerProcessor(processor.judges.model, ladder_of(settings)))  # the same kernels
    health.set("kernels_compiled", True)
    places = KafkaPlaces(settings.kafka)
    ports = replace(build_ports(settings, clock, member), upkeep=upkeep, places=places)
    return build_worker(settings, processor, ports, health, metrics)
