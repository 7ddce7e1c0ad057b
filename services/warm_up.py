"""``python -m services.warm_up``: compiles the kernels of every service, so that no process has to; the image is built with it."""

from __future__ import annotations

from services.registry import SERVICES, load
from services.runtime.assembling import sandbox_processor
from services.runtime.config import resolve_settings

if __name__ == "__main__":
    settings = resolve_settings({})
    for spec in SERVICES:
        if spec.warm_up:
            load(spec.warm_up)(sandbox_processor(spec, settings))
