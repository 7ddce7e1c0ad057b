"""A batch that waits for others says so: at once in the log, after a while by not being ready."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from services.runtime.clock import Clock
from services.runtime.health import Health
from services.runtime.logs import fields

log = logging.getLogger("proact.worker")

WAITS_LONG_S: Final = 5.0
"""After how long a worker whose batch waits for others is not ready any more; a second is usual, since profiles are saved once an interval."""


class Waiting:
    """Lets the batch at hand wait, on the worker's thread, while the worker keeps its place in the group."""

    def __init__(self, health: Health, clock: Clock, keep_up: Callable[[], None]) -> None:
        """Wait; ``keep_up`` takes a moment, in which the worker does all that it does beside batches, and may raise AbandonedError."""
        self._health, self._clock, self._keep_up = health, clock, keep_up
        self._since_s: float | None = None
        self.over()

    def keep_membership(self) -> None:
        """Wait for a moment. Raises AbandonedError."""
        self._keep_up()

    def wait(self, error: Exception) -> None:
        """Do the same for a batch that needs what is not there yet, and say so."""
        now_s = self._clock.monotonic_s()
        if self._since_s is None:
            self._since_s = now_s
            log.info("a batch waits", extra=fields(error=str(error)))
        if now_s - self._since_s >= WAITS_LONG_S and self._health.conditions["nothing_waits"]:
            self._health.set("nothing_waits", False)
            log.warning("a batch waits for long", extra=fields(error=str(error)))
        self.keep_membership()

    def over(self) -> None:
        """Note that nothing waits any more."""
        self._since_s = None
        self._health.set("nothing_waits", True)
