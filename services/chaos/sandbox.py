"""``python -m services.chaos.sandbox``: the victims' sandbox, in which their deadly record kills, too."""

from __future__ import annotations

from services.chaos.victim import VictimProcessor
from services.runtime.config import resolve_settings
from services.runtime.sandbox import try_records
from services.scorer.wiring import released_model

if __name__ == "__main__":
    try_records(VictimProcessor(released_model(resolve_settings({}))))
