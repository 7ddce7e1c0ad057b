"""``python -m services.profiler``: one profiler process."""

from __future__ import annotations

from services.profiler.wiring import build
from services.runtime.service import service_main

if __name__ == "__main__":
    service_main("profiler", build)
