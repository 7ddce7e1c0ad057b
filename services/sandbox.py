"""``python -m services.sandbox NAME``: tries records that may have killed a worker of that service."""

from __future__ import annotations

import sys

from services.registry import BY_NAME
from services.runtime.assembling import sandbox_processor
from services.runtime.config import resolve_settings
from services.runtime.sandbox import try_records

if __name__ == "__main__":
    try_records(sandbox_processor(BY_NAME[sys.argv[1]], resolve_settings({})))
