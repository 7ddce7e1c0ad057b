"""What an auditor's workers are made of, beside what is the same for every service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from services.auditor.processor import AuditProcessor, ForwardingProcessor
from services.auditor.released import ReleasedModels
from services.checker.scoring import released_folders
from services.codec.audit_events import AUDIT_EVENTS
from services.registry import LogSpec
from services.runtime.clock import Clock
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.settings import Settings
from services.streams import Records
from services.worker.assembling import Parts


def build(log: LogSpec, settings: Settings, clock: Clock, metrics: MetricsRegistry, health: Health) -> Parts:  # noqa: ARG001
    """See :attr:`services.registry.ServiceSpec.build`."""
    if log.topic != AUDIT_EVENTS:
        forwarding: Any = ForwardingProcessor(log.topic, settings.audit_share)
        return Parts(forwarding)
    safe = settings.safe_challenge_from, settings.safe_review_from
    models = ReleasedModels(lambda: folders_of(settings), safe, clock)
    joining: Any = AuditProcessor(models, repeats=settings.guarantee == "at_least_once")
    return Parts(joining, models)


def folders_of(settings: Settings) -> list[Path]:
    """Return the folders of the models that may have decided: the released ones, and the one that the settings name."""
    named = [Path(settings.model_path)] if settings.model_path else []
    folder = Path(settings.models_path) if settings.models_path else None
    return [*released_folders(folder), *(one for one in named if (one / "manifest.json").is_file())]


def warm_up(processor: ForwardingProcessor | AuditProcessor) -> None:
    """Compile what tells audited cards from the others, by reading a record without a key."""
    nothing = np.zeros(1, np.int64)
    processor.prepare(Records(processor.topic, nothing, nothing, nothing, [None], [None], 1), nothing)
