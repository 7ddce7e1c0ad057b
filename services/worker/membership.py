"""Whether a worker is in its group: not while Redis does not take it, since others may be able to work on its partitions.

Where Redis takes nobody, all leave, once each, and join again when it does: nothing is decided meanwhile either way, and nobody takes
turns in joining, since only who was served joins.
"""

from __future__ import annotations

import logging
from typing import Final

from services.grid import Grid, GridUnavailableError
from services.runtime.clock import Clock
from services.runtime.health import Health
from services.runtime.logs import fields
from services.runtime.remedies import with_remedy
from services.streams import Source
from services.worker.outages import RETRY_S, StillAway

log = logging.getLogger("proact.worker")

TRY_AFTER_S: Final = 0.5
"""After how long Redis is asked again for the first time; each further pause is twice as long."""
TRY_AFTER_S_MAX: Final = 5.0


class GroupMembership:
    """Leaves and joins for one worker, on its thread."""

    def __init__(self, source: Source, grid: Grid, clock: Clock, health: Health) -> None:
        self._source, self._grid, self._clock, self._health = source, grid, clock, health
        self.present = True
        self._pause_s = TRY_AFTER_S
        self._try_at_s = 0.0
        self._away = StillAway(clock)

    def begin(self) -> None:
        """Stay out of the group if Redis does not serve this worker at its start: its address or password may be wrong for it alone."""
        try:
            self._grid.check()
        except GridUnavailableError as error:
            self.leave(with_remedy(error))

    def leave(self, reason: str) -> None:
        """Leave the group until Redis takes this worker. Raises StreamsError."""
        log.error(
            "stays out of its group until Redis takes it: others may have its partitions", extra=fields(reason=reason)
        )
        self._away.over()
        self._away.due()  # said just now
        self.present, self._pause_s = False, TRY_AFTER_S
        self._try_at_s = self._clock.monotonic_s() + self._pause_s
        self._health.set("partitions_assigned", False)
        self._health.set("grid_reachable", False)
        self._health.show({"partitions": [], "halted": {}, "left": reason})
        self._source.leave()

    def turn(self) -> bool:
        """Say whether the worker is in its group; if it is not, see whether it can be again. Raises StreamsError."""
        if self.present:
            return True
        self._source.keep_alive(RETRY_S)
        if self._clock.monotonic_s() < self._try_at_s:
            return False
        try:
            self._grid.check()
        except GridUnavailableError as error:
            if self._away.due():
                log.warning("still out of its group: Redis does not take it", extra=fields(reason=with_remedy(error)))
            self._pause_s = min(2 * self._pause_s, TRY_AFTER_S_MAX)
            self._try_at_s = self._clock.monotonic_s() + self._pause_s
            return False
        log.info("joins its group: Redis takes it")
        self._source.join()
        self.present = True
        return True
