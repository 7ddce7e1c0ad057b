"""``python -m services.warm_up``: compiles the kernels of every service, so that no process has to; the image is built with it."""

from __future__ import annotations

import numpy as np

from services.registry import SERVICES, load
from services.runtime.settings import resolve_settings
from services.streams import Records
from services.worker.assembling import sandbox_processor


def warm_up_every_service() -> None:
    """Compile, or load, whatever a service of the registry may call."""
    settings = resolve_settings({})
    nothing = np.zeros(1, np.int64)
    for spec in SERVICES:
        if spec.warm_up:
            load(spec.warm_up)(sandbox_processor(spec, settings))
        for log in spec.logs:
            # A reader compiles what it reads other versions with when it is made.
            load(log.processor)().prepare(
                Records(log.topic, nothing, nothing, nothing, [b"key"], [b"no record"]), nothing
            )


if __name__ == "__main__":
    warm_up_every_service()
