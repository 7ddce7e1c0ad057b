"""``python -m services.reassessor``: one reassessor process."""

from __future__ import annotations

from services.signals import end_at_once

if __name__ == "__main__":
    end_at_once()  # before what takes its time to import, and may swallow an interrupt

    from services.reassessor.wiring import build
    from services.runtime.service import service_main

    service_main("reassessor", build)
