"""Outages are waited out: the worker stays in its group, is alive but not ready, and goes on when they are over."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from services.grid import Grid, GridRefusedError, GridUnavailableError, UnsafeGridError
from services.runtime import catalogue as m
from services.runtime.clock import Clock
from services.runtime.health import Health
from services.runtime.logs import fields
from services.runtime.metrics import MetricsRegistry
from services.runtime.remedies import with_remedy
from services.streams import Assignment, Source, StreamsError

T = TypeVar("T")
log = logging.getLogger("proact.worker")

RETRY_S = 0.2
"""How long to stay in the group between two tries of what an outage refused."""
PROBE_EVERY_S = 2.0
"""How often the stores are asked how they are."""
STOP_WITHIN_S = 4.0
"""How long a batch may go on after a request to stop; then it is given up, which loses nothing."""
REFUSED_MAX_S: Final = 30.0
"""For how long Redis may refuse a worker before it leaves its partitions to others. A Redis that does not answer is away for all of them,
as far as one can tell, and waited for within the group; one that refuses is there, and may serve the others."""
TELL_EVERY_S: Final = 30.0
"""How often at most it is logged that a store is still away."""
CONDITION_OF = {"kafka": "log_reachable", "redis": "grid_reachable"}


class AbandonedError(Exception):
    """A batch is given up: its partitions moved, its outcome is in doubt, or the worker is asked to stop."""


class RefusedError(AbandonedError):
    """Redis has refused this worker for so long that others should have its partitions."""


class StillAway:
    """Says when an outage is to be logged: as it begins, and now and then while it lasts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reported_s: float | None = None

    def due(self) -> bool:
        """Whether to log it now; says yes once each time."""
        now_s = self._clock.monotonic_s()
        if self._reported_s is not None and now_s - self._reported_s < TELL_EVERY_S:
            return False
        self._reported_s = now_s
        return True

    def over(self) -> None:
        """It is over: the next one begins anew."""
        self._reported_s = None


class Outages:
    """Waits for one worker, on its thread."""

    def __init__(self, source: Source, clock: Clock, health: Health, metrics: MetricsRegistry) -> None:
        self._source, self._clock, self._health, self._metrics = source, clock, health, metrics
        self._generation: int | None = 0
        """The assignment that the worker works under; None: whatever the present one is, it is to be taken over."""
        self._needs_grid = True
        self._stop_at_s: float | None = None
        self._probe_at_s = 0.0
        self._refused_since_s: float | None = None
        self._away = {store: StillAway(clock) for store in CONDITION_OF}

    @property
    def needs_grid(self) -> bool:
        """Whether the grid is waited for where it is away; else the worker goes on without, where it can."""
        return self._needs_grid

    def go_without_grid(self) -> None:
        """Do not wait for the grid where the worker can go on without."""
        self._needs_grid = False

    @property
    def assigned_anew(self) -> bool:
        """Whether the present assignment is still to be taken over."""
        return self._source.assignment.generation != self._generation

    def work_under(self, assignment: Assignment) -> None:
        """Note that it is taken over: as soon as there is another one, waiting ends."""
        self._generation = assignment.generation

    def begin_again(self) -> None:
        """Note that the present assignment is to be taken over again."""
        self._generation = None

    @property
    def stopping(self) -> bool:
        """Whether the worker was asked to stop."""
        return self._stop_at_s is not None

    def stop(self) -> None:
        """Give what is under way a last while; safe to call from a signal handler."""
        self._stop_at_s = self._clock.monotonic_s() + STOP_WITHIN_S

    def wait_out(self, store: str, call: Callable[[], T]) -> T:
        """Repeat a call that is safe to repeat until the outage is over, without leaving the group.

        Raises:
            AbandonedError: the partitions moved, or the worker is asked to stop.
            RefusedError: Redis refuses the worker for too long.
        """
        begin_s: float | None = None
        while True:
            try:
                result = call()
            except (GridUnavailableError, StreamsError) as error:
                if begin_s is None:
                    begin_s = self._clock.monotonic_s()
                    self._away[store].over()  # whatever was said before, what is waited for now is news
                if self._away[store].due():
                    log.warning("waits for %s", store, extra=fields(error=with_remedy(error)))
                self._health.set(CONDITION_OF[store], False)
                if self.stopping:
                    raise AbandonedError("asked to stop during an outage") from error
                self.refused(error)
                self.keep_membership(RETRY_S)
                continue
            self._set(store, None)
            if begin_s is not None:
                waited_s = self._clock.monotonic_s() - begin_s
                self._metrics.add(m.OUTAGES, waited_s, store)
                log.info("%s is back", store, extra=fields(waited_s=round(waited_s, 1)))
            return result

    def refused(self, error: Exception | None) -> None:
        """Note what Redis said last, None where it served the worker. Raises RefusedError when it has refused it for too long."""
        if error is None:
            self._refused_since_s = None
        elif isinstance(error, GridRefusedError):
            now_s = self._clock.monotonic_s()
            if self._refused_since_s is None:
                self._refused_since_s = now_s
            if now_s - self._refused_since_s > REFUSED_MAX_S:
                raise RefusedError(f"Redis has refused this worker for {REFUSED_MAX_S:.0f} s: {error}") from error

    def keep_membership(self, timeout_s: float) -> None:
        """Keep the place in the group; raise AbandonedError when going on makes no sense."""
        self._health.beat()
        self._source.keep_alive(timeout_s)
        if self.assigned_anew:
            raise AbandonedError("the partitions were assigned anew")
        if self._stop_at_s is not None and self._clock.monotonic_s() > self._stop_at_s:
            raise AbandonedError("asked to stop")

    def keep_membership_within(self) -> None:
        """Keep the place in the group within a call that is waited out.

        An error of the client there says that nothing of what was started is read any more: that is not waited out, but taken over again.
        Raises AbandonedError.
        """
        try:
            self.keep_membership(0.0)
        except StreamsError as error:
            raise AbandonedError(str(error)) from error

    def probe_due(self) -> bool:
        """Whether it is time to ask the stores how they are; says yes once each time."""
        if self._clock.monotonic_s() < self._probe_at_s:
            return False
        self._probe_at_s = self._clock.monotonic_s() + PROBE_EVERY_S
        return True

    def probe(self, grid: Grid, *, idle: bool) -> None:
        """Ask the stores: an idle worker would not notice that one is away, a busy one not that Redis may lose profiles.

        A Redis that is not set up as it must be is waited for, whatever there is to do. Raises AbandonedError meanwhile; and RefusedError
        if the grid is needed, and refuses the worker for too long.
        """
        try:
            grid.check()
            self._set("redis", None)
        except UnsafeGridError as error:
            log.error("nothing is decided on: Redis is not set up as it must be", extra=fields(error=str(error)))  # noqa: TRY400
            self.wait_out("redis", grid.check)
        except GridUnavailableError as error:
            self._set("redis", error)
            if self._needs_grid:
                self.refused(error)
        if idle:
            try:
                self._source.check()
                self._set("kafka", None)
            except StreamsError as error:
                self._set("kafka", error)

    def _set(self, store: str, error: Exception | None) -> None:
        condition = CONDITION_OF[store]
        if error is None:
            self._away[store].over()
        elif self._away[store].due():
            log.warning("a store is away", extra=fields(condition=condition, error=with_remedy(error)))
        self._health.set(condition, error is None)
        if store == "redis" and error is None:
            self.refused(None)
