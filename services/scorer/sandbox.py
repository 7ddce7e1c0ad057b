"""``python -m services.scorer.sandbox``: tries records that may have killed a scorer."""

from __future__ import annotations

from services.runtime.config import resolve_settings
from services.runtime.model_keeper import usable_model
from services.runtime.sandbox import try_records
from services.scorer.processor import ScorerProcessor
from services.scorer.wiring import ladder_of

if __name__ == "__main__":
    settings = resolve_settings({})
    try_records(ScorerProcessor(usable_model(settings), ladder_of(settings)))
