"""A table is maintained beside the worker's thread: small files are put together, old days and files that nobody needs are deleted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from services.lake.table import LakeError, LakeTable, first_day_kept
from services.runtime.clock import Clock
from services.runtime.logs import fields
from services.streams.background import Background, ThreadBackground

log = logging.getLogger("proact.lake")

EVERY_S: Final = 300.0
STRAYS_EVERY: Final = 288
"""Once a day files are looked for that no log names: that lists them all."""


class Maintenance:
    """Of one table, as a :class:`services.worker.followers.Follower`: it looks between two batches whether it is time."""

    def __init__(
        self,
        table: LakeTable,
        retention_days: int | None,
        clock: Clock,
        mine: Callable[[], bool],
        background: Callable[[str], Background] = ThreadBackground,
    ) -> None:
        """Maintain a table; ``mine`` says whether this worker is who does, ``retention_days`` None keeps all days."""
        self._table, self._retention_days, self._clock, self._mine = table, retention_days, clock, mine
        self._background = background("maintains a table")
        self._under_way = False
        self._turns = 0
        self._next_s = clock.monotonic_s() + EVERY_S

    def begin(self) -> None:
        """See :class:`services.worker.followers.Follower`."""

    def turn(self) -> None:
        """See :class:`services.worker.followers.Follower`."""
        if self._under_way:
            if self._background.ended():
                self._background.join()
                self._under_way = False
        elif self._clock.monotonic_s() >= self._next_s:
            self._next_s = self._clock.monotonic_s() + EVERY_S
            if self._mine():
                self._under_way = True
                self._background.start(self._keep)

    def _keep(self) -> None:
        try:
            if self._retention_days is not None:
                today = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).date()
                self._table.forget_before(first_day_kept(today, self._retention_days))
            self._table.compact()
            self._table.vacuum(strays=self._turns % STRAYS_EVERY == 0)
            self._turns += 1
        except LakeError as error:  # somebody else changed it meanwhile, or it is away: there is a next time
            log.warning("a table could not be maintained", extra=fields(table=self._table.topic, error=str(error)))

    def close(self) -> None:
        """See :class:`services.worker.followers.Follower`."""
        self._background.close()
