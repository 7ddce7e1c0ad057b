"""What a reassessor brings to its worker: a processor whose model and rules are kept up to date, and what reads the records that requests point to."""

from __future__ import annotations

from services.core.ladder import SafeDefault
from services.reassessor.processor import ReassessorProcessor
from services.runtime.assembling import Parts
from services.runtime.clock import Clock
from services.runtime.config import Settings
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.scorer.parts import keepers, ladder_of
from services.scorer.processor import ScorerProcessor
from services.scorer.warm_up import warm_up as warm_up_scorer
from services.streams.places import KafkaPlaces


def folding_processor() -> ReassessorProcessor:
    """Return a processor that works off without a model: it keeps no profiles."""
    return ReassessorProcessor(None, SafeDefault(0.0, 0.0))


def warm_up(processor: ReassessorProcessor) -> None:
    """Compile the kernels: they are the scorer's."""
    warm_up_scorer(ScorerProcessor(processor.judges.model, processor.judges.safe))


def build(settings: Settings, clock: Clock, metrics: MetricsRegistry, health: Health) -> Parts:  # noqa: ARG001
    """See :attr:`services.registry.ServiceSpec.build`."""
    processor = ReassessorProcessor(None, ladder_of(settings))
    upkeep = keepers(settings, settings.reassessor_group_id, health, metrics, processor)
    return Parts(processor, upkeep, KafkaPlaces(settings.kafka))
