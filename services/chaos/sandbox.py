"""``python -m services.chaos.sandbox``: the victims' sandbox, in which their deadly record kills, too."""

from __future__ import annotations

from services.chaos.victim import VictimProcessor
from services.runtime.config import resolve_settings
from services.runtime.model_keeper import usable_model
from services.runtime.sandbox import try_records
from services.scorer.wiring import ladder_of

if __name__ == "__main__":
    settings = resolve_settings({})
    try_records(VictimProcessor(usable_model(settings), ladder_of(settings)))
