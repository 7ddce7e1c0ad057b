"""``python -m services.warm_up``: compiles the kernels of every service, so that no process has to; the image is built with it."""

from __future__ import annotations

from services.registry import SERVICES, load
from services.runtime.settings import resolve_settings
from services.worker.assembling import sandbox_processor

if __name__ == "__main__":
    settings = resolve_settings({})
    for spec in SERVICES:
        if spec.warm_up:
            load(spec.warm_up)(sandbox_processor(spec, settings))
