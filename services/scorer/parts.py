"""What a scorer brings to its worker: a processor whose model and rules are kept up to date."""

from __future__ import annotations

import logging

from services.core.ladder import SafeDefault
from services.runtime.assembling import Parts
from services.runtime.clock import Clock, SystemClock
from services.runtime.config import ConfigError, Settings
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.model_keeper import ModelKeeper, usable_model
from services.runtime.rule_sets import RuleSetFollower
from services.runtime.upkeep import Upkeeps
from services.runtime.wiring import transactional_id
from services.scorer import warm_up as warming
from services.scorer.adopting import Adopting
from services.scorer.processor import ScorerProcessor

log = logging.getLogger("proact.scorer")


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


def folding_processor() -> ScorerProcessor:
    """Return a processor that folds: that takes no model."""
    return ScorerProcessor(None, SafeDefault(0.0, 0.0))


def sandbox_processor(settings: Settings) -> ScorerProcessor:
    """Return a processor as a worker's, but for the rules. Raises ConfigError."""
    return ScorerProcessor(usable_model(settings), ladder_of(settings))


def warm_up(processor: ScorerProcessor) -> None:
    """Compile the kernels, and say so."""
    warming.warm_up(processor)
    log.info("kernels compiled")


def parts_with(processor: ScorerProcessor, settings: Settings, metrics: MetricsRegistry, health: Health) -> Parts:
    """Return a processor with what keeps its model and rules up to date."""
    upkeep = keepers(settings, settings.group_id, health, metrics, processor)
    alone = settings.without_profiles == "ladder"
    return Parts(processor, upkeep, without_profiles=processor.decide_without_profiles if alone else None)


def build(settings: Settings, clock: Clock, metrics: MetricsRegistry, health: Health) -> Parts:  # noqa: ARG001
    """See :attr:`services.registry.ServiceSpec.build`."""
    return parts_with(ScorerProcessor(None, ladder_of(settings)), settings, metrics, health)
