"""What a scorer brings to its worker: a processor whose model and rules are kept up to date."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

from services.core.control import ControlGroup
from services.core.fallback import SafeDefault
from services.decision.model_loader import ModelLoader, models_root, usable_model
from services.decision.release_follower import ModelReleaseFollower, Tools
from services.decision.release_loading import ReleaseLoader
from services.decision.release_watch import ReleaseWatch
from services.decision.releases import FollowsReleases
from services.decision.rule_sets import RuleSetFollower
from services.registry import LogSpec
from services.runtime.clock import Clock, SystemClock
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.settings import ConfigError, Settings
from services.scorer import warm_up as warming
from services.scorer.processor import ScorerProcessor
from services.streams.background import ThreadBackground
from services.worker.assembling import Parts
from services.worker.followers import Followers
from services.worker.wiring import transactional_id

log = logging.getLogger("proact.scorer")


def safe_default_of(settings: Settings) -> SafeDefault:
    """Return what is done when nobody can speak. Raises ConfigError."""
    try:
        return SafeDefault(settings.safe_challenge_from, settings.safe_review_from)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def keepers(
    settings: Settings, group_id: str, health: Health, metrics: MetricsRegistry, adopting: FollowsReleases
) -> Followers:
    """Load the model, and return what keeps models and rules up to date."""
    clock, worker = SystemClock(), transactional_id(settings, group_id)
    rules = RuleSetFollower(settings.kafka, worker, clock, metrics, adopting.adopt_rules)
    loader = ReleaseLoader(partial(models_root, settings), ThreadBackground("loads models"), clock.monotonic_s)
    models = ModelReleaseFollower(settings.kafka, worker, Tools(clock, metrics, health), loader, adopting)
    models.rules_of = rules.engine_of
    models.settings_model = ModelLoader(settings, clock, models.adopt_base)
    models.settings_model.load()
    return Followers(rules, models)


def folding_processor() -> ScorerProcessor:
    """Return a processor that folds: that takes no model."""
    return ScorerProcessor(None, SafeDefault(0.0, 0.0))


def sandbox_processor(settings: Settings) -> ScorerProcessor:
    """Return a processor as a worker's, but for the rules. Raises ConfigError."""
    return ScorerProcessor(usable_model(settings), safe_default_of(settings))


def warm_up(processor: ScorerProcessor) -> None:
    """Compile the kernels, and say so."""
    warming.warm_up(processor)
    log.info("kernels compiled")


def parts_with(processor: ScorerProcessor, settings: Settings, metrics: MetricsRegistry, health: Health) -> Parts:
    """Return a processor with what keeps its model and rules up to date."""
    processor.watch = ReleaseWatch(SystemClock().monotonic_s)
    follower = keepers(settings, settings.group_id, health, metrics, processor)
    alone = settings.without_profiles == "fallback"
    return Parts(processor, follower, without_profiles=processor.decide_without_profiles if alone else None)


def build(log: LogSpec, settings: Settings, clock: Clock, metrics: MetricsRegistry, health: Health) -> Parts:  # noqa: ARG001
    """See :attr:`services.registry.ServiceSpec.build`."""
    processor = ScorerProcessor(None, safe_default_of(settings))
    if settings.control_share:
        group = ControlGroup(settings.control_share, settings.control_amount_max, settings.control_key)
        processor.engine = replace(processor.engine, control=group)
    return parts_with(processor, settings, metrics, health)
