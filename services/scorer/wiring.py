"""One scorer, wired to Kafka and Redis by its settings."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from services.inference.artifact import XgboostModel, load_model
from services.inference.released import newest_model
from services.runtime.catalogue import MODEL_INFO
from services.runtime.clock import SystemClock
from services.runtime.config import Settings
from services.runtime.health import Health
from services.runtime.logs import fields
from services.runtime.metrics import MetricsRegistry
from services.runtime.rule_sets import RuleSetFollower
from services.runtime.wiring import Membership, build_ports, build_worker, transactional_id
from services.runtime.worker import Worker
from services.scorer.processor import PreparedTransactions, ScoredOutcome, ScorerProcessor
from services.scorer.warm_up import warm_up

log = logging.getLogger("proact.scorer")

SANDBOX = "services.scorer.sandbox"


def released_model(settings: Settings) -> XgboostModel:
    """Load and verify the model that the settings name, or the newest one. Raises ModelError."""
    return load_model(Path(settings.model_path) if settings.model_path else newest_model())


def build_processor(settings: Settings, health: Health, metrics: MetricsRegistry) -> ScorerProcessor:
    """Verify the model and compile the kernels. Raises ModelError."""
    model = released_model(settings)
    health.set("model_verified", True)
    metrics.set(MODEL_INFO, 1, model.name, model.version)
    processor = ScorerProcessor(model)
    warm_up(processor)
    health.set("kernels_compiled", True)
    log.info("model verified, kernels compiled", extra=fields(model=model.name, version=model.version))
    return processor


def membership(settings: Settings, sandbox: str = SANDBOX) -> Membership:
    """Return what a scorer reads, and as whom."""
    return Membership(ScorerProcessor.topic, settings.group_id, sandbox)


def build(settings: Settings, health: Health, metrics: MetricsRegistry) -> Worker[PreparedTransactions, ScoredOutcome]:
    """Build everything. Raises ConfigError and ModelError."""
    processor, clock, member = build_processor(settings, health, metrics), SystemClock(), membership(settings)
    worker = transactional_id(settings, member.group_id)
    follower = RuleSetFollower(settings.kafka_bootstrap_servers, worker, clock, metrics, processor.adopt_rules)
    ports = replace(build_ports(settings, clock, member), upkeep=follower)
    return build_worker(settings, processor, ports, health, metrics)
