"""``python -m services.scorer``: one scorer process."""

from __future__ import annotations

from services.runtime.service import service_main
from services.scorer.wiring import build

if __name__ == "__main__":
    service_main("scorer", build)
