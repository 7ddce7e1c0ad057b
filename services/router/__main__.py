"""``python -m services.router``: one router process."""

from __future__ import annotations

from services.router.wiring import build
from services.runtime.service import service_main

if __name__ == "__main__":
    service_main("router", build)
