"""Log lines about single records: a few a second, so that a flood of bad records does not become a flood of lines."""

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


class Notices:
    """Logs notices as long as its bucket of lines lasts, and counts the others."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left, self._filled_s = float(LINES_MAX), clock.monotonic_s()
        self._withheld = 0

    def tell(self, notices: Sequence[dict[str, Any]]) -> None:
        """Log what is told of each record: facts and tokens, never payloads."""
        if not notices:
            return
        now_s = self._clock.monotonic_s()
        self._left = min(float(LINES_MAX), self._left + (now_s - self._filled_s) * LINES_PER_S)
        self._filled_s = now_s
        told = notices[: int(self._left)]
        if told and self._withheld:
            log.warning("records were refused without a line of their own", extra=fields(records=self._withheld))
            self._withheld = 0
        for notice in told:
            log.warning("record refused", extra=fields(**notice))
        self._left -= len(told)
        self._withheld += len(notices) - len(told)
