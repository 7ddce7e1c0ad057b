"""``python -m services.sandbox NAME``: tries records that may have killed a worker of that service."""

from __future__ import annotations

import sys
from functools import partial

from services.registry import BY_NAME
from services.runtime.settings import resolve_settings
from services.worker.assembling import sandbox_processor
from services.worker.sandbox import try_records

if __name__ == "__main__":
    try_records(partial(sandbox_processor, BY_NAME[sys.argv[1]], resolve_settings({})))
