"""``python -m services.scorer.sandbox``: tries records that may have killed a scorer."""

from __future__ import annotations

from services.runtime.config import resolve_settings
from services.runtime.sandbox import try_records
from services.scorer.processor import ScorerProcessor
from services.scorer.wiring import released_model

if __name__ == "__main__":
    try_records(ScorerProcessor(released_model(resolve_settings({}))))
