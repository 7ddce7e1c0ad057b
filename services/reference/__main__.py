"""``python -m services.reference``: one reference process."""

from __future__ import annotations

from services.reference.wiring import build
from services.runtime.service import service_main

if __name__ == "__main__":
    service_main("reference", build)
