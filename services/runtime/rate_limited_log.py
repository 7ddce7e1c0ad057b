"""Log lines about what may happen thousands of times a second: a few, with a count, so that no flood becomes a flood of lines."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from services.runtime.clock import Clock
from services.runtime.logs import fields

log = logging.getLogger("proact.records")

LINES_PER_S: Final = 10.0
LINES_MAX: Final = 20
"""How many may come at once after a quiet time."""
REPEAT_S: Final = 10.0
"""How often at most it is logged that the same goes on."""


class RateLimitedLog:
    """Logs notices as long as its bucket of lines lasts, and counts the others."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left, self._filled_s = float(LINES_MAX), clock.monotonic_s()
        self._withheld = 0

    def tell(self, notices: Sequence[dict[str, Any]]) -> None:
        """Log what is said of each record: facts and tokens, never payloads."""
        if not notices:
            return
        now_s = self._clock.monotonic_s()
        self._left = min(float(LINES_MAX), self._left + (now_s - self._filled_s) * LINES_PER_S)
        self._filled_s = now_s
        logged = notices[: int(self._left)]
        if logged and self._withheld:
            log.warning("records were refused without a line of their own", extra=fields(records=self._withheld))
            self._withheld = 0
        for notice in logged:
            log.warning("record refused", extra=fields(**notice))
        self._left -= len(logged)
        self._withheld += len(notices) - len(logged)


class Repeated:
    """Logs that something happened the first time, and then at most every ``REPEAT_S``, with how often it did meanwhile."""

    def __init__(self, logger: logging.Logger, message: str, clock: Clock) -> None:
        self._logger, self._message, self._clock = logger, message, clock
        self._logged_s: float | None = None
        self._batches = self._records = 0
        self._facts: dict[str, object] = {}

    def happened(self, records: int, **facts: object) -> None:
        """Note that it happened to a batch of so many records; ``facts`` are of the last time."""
        self._batches, self._records, self._facts = self._batches + 1, self._records + records, facts
        self.pending()

    def pending(self, *, at_once: bool = False) -> None:
        """Log what was not logged yet, if it is time for that: called now and again, and at the end."""
        if not self._batches:
            return
        now_s = self._clock.monotonic_s()
        if at_once or self._logged_s is None or now_s - self._logged_s >= REPEAT_S:
            counts = fields(batches=self._batches, records=self._records, **self._facts)
            self._logger.warning(self._message, extra=counts)
            self._logged_s, self._batches, self._records = now_s, 0, 0
