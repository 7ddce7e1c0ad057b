"""What a reassessor brings to its worker: a processor whose model and rules are kept up to date, and what reads the records that requests point to."""

from __future__ import annotations

from services.core.fallback import SafeDefault
from services.reassessor.processor import ReassessorProcessor
from services.registry import LogSpec
from services.runtime.clock import Clock
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.settings import Settings
from services.scorer.parts import keepers, safe_default_of
from services.scorer.processor import ScorerProcessor
from services.scorer.warm_up import warm_up as warm_up_scorer
from services.streams.places import KafkaPlaces
from services.worker.assembling import Parts


def folding_processor() -> ReassessorProcessor:
    """Return a processor that works off without a model: it keeps no profiles."""
    return ReassessorProcessor(None, SafeDefault(0.0, 0.0))


def warm_up(processor: ReassessorProcessor) -> None:
    """Compile the kernels: they are the scorer's."""
    warm_up_scorer(ScorerProcessor(processor.engine.model, processor.engine.safe))


def build(log: LogSpec, settings: Settings, clock: Clock, metrics: MetricsRegistry, health: Health) -> Parts:  # noqa: ARG001
    """See :attr:`services.registry.ServiceSpec.build`."""
    processor = ReassessorProcessor(None, safe_default_of(settings))
    follower = keepers(settings, settings.reassessor_group_id, health, metrics, processor)
    return Parts(processor, follower, KafkaPlaces(settings.kafka))
