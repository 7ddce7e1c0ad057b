"""``python -m services.reassessor``: one reassessor process."""

from __future__ import annotations

from services.reassessor.wiring import build
from services.runtime.service import service_main

if __name__ == "__main__":
    service_main("reassessor", build)
