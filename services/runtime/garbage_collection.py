"""Pauses of a process that are not its work."""

from __future__ import annotations

import gc
from typing import Final

COLLECT_EVERY: Final = 100_000
"""How many more objects than before there must be until the garbage collector looks for what only holds itself."""


def tune_garbage_collection() -> None:
    """Leave what is there by now out of all later garbage collections, and let them be seldom.

    What a service holds once it is set up are 340,000 objects, which stay; to go through them takes a tenth of a second and more. A batch
    alone makes tens of thousands of objects that live until it is published; to go through them every 700 finds nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY)
