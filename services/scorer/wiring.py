"""One scorer, wired to Kafka and Redis by its settings."""

from __future__ import annotations

import logging
from dataclasses import replace

from services.core.ladder import SafeDefault
from services.runtime.clock import SystemClock
from services.runtime.config import ConfigError, Settings
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.model_keeper import ModelKeeper
from services.runtime.rule_sets import RuleSetFollower
from services.runtime.upkeep import Upkeeps
from services.runtime.wiring import Membership, build_ports, build_worker, transactional_id
from services.runtime.worker import Worker
from services.scorer.adopting import Adopting
from services.scorer.processor import PreparedTransactions, ScoredOutcome, ScorerProcessor
from services.scorer.warm_up import warm_up

log = logging.getLogger("proact.scorer")

SANDBOX = "services.scorer.sandbox"


def ladder_of(settings: Settings) -> SafeDefault:
    """Return what is done when nobody can speak. Raises ConfigError."""
    try:
        return SafeDefault(settings.safe_challenge_from, settings.safe_review_from)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def keepers(settings: Settings, group_id: str, health: Health, metrics: MetricsRegistry, adopting: Adopting) -> Upkeeps:
    """Load the model, and return what keeps model and rules up to date."""
    clock, worker = SystemClock(), transactional_id(settings, group_id)
    model = ModelKeeper(settings, clock, health, metrics, adopting.adopt_model)
    model.load()
    follower = RuleSetFollower(settings.kafka, worker, clock, metrics, adopting.adopt_rules)
    return Upkeeps(model, follower)


def membership(settings: Settings, sandbox: str = SANDBOX) -> Membership:
    """Return what a scorer reads, and as whom."""
    return Membership(ScorerProcessor.topic, settings.group_id, sandbox)


def build(settings: Settings, health: Health, metrics: MetricsRegistry) -> Worker[PreparedTransactions, ScoredOutcome]:
    """Build everything. Raises ConfigError."""
    return build_around(ScorerProcessor(None, ladder_of(settings)), settings, health, metrics)


def build_around(
    processor: ScorerProcessor, settings: Settings, health: Health, metrics: MetricsRegistry
) -> Worker[PreparedTransactions, ScoredOutcome]:
    """Build what a scorer's processor, which has no model yet, works with. Raises ConfigError."""
    clock, member = SystemClock(), membership(settings)
    upkeep = keepers(settings, member.group_id, health, metrics, processor)
    warm_up(processor)
    health.set("kernels_compiled", True)
    log.info("kernels compiled")
    ports = replace(build_ports(settings, clock, member), upkeep=upkeep)
    worker = build_worker(settings, processor, ports, health, metrics)
    if settings.without_profiles == "ladder":
        worker.go_without_profiles(processor.decide_without_profiles)
    return worker
