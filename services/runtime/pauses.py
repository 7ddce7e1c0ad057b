"""Pauses of a process that are not its work."""

from __future__ import annotations

import gc


def freeze() -> None:
    """Leave what is there by now out of all later garbage collections: one of hundreds of thousands of objects stops a process for a tenth of a second and more."""
    gc.collect()
    gc.freeze()
