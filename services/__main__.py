"""``python -m services NAME``: one process of a service of :mod:`services.registry`."""

from __future__ import annotations

import sys

from services.signals import end_at_once

if __name__ == "__main__":
    end_at_once()  # before what takes its time to import, and may swallow an interrupt

    from services.worker.service import service_main

    service_main(sys.argv[1:])
