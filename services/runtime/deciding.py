"""From a prepared batch to its outcome: read, decide, and what to do when something that is needed is not there.

Without its own profiles a worker waits. Where it is set to go without them it decides as well as it can, commits, and leaves the grid behind:
what was committed and not applied is folded when the grid is back, as after any take-over, since the committed offset is what counts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

from services.core.columns import type_bool
from services.core.profiles import CorruptProfileError
from services.runtime import catalogue as m
from services.runtime.clock import Clock
from services.runtime.halting import damaged
from services.runtime.health import Health
from services.runtime.logs import fields
from services.runtime.metrics import MetricsRegistry
from services.runtime.notices import Repeated
from services.runtime.outages import RETRY_S, AbandonedError, Outages
from services.runtime.ownership import Ownership
from services.runtime.processor import LookedUp, NotYetError, P, Processor, R, guarded
from services.runtime.reading import Reading
from services.runtime.upkeep import Upkeep

T = TypeVar("T")
log = logging.getLogger("proact.worker")

_MISSED: Final = "what other services know did not come in time: decided without"
_BACK: Final = "the grid is back: what was decided without it is folded now"
WithoutProfiles = Callable[[P, Mapping[str, LookedUp], int], R]
"""Decides on a batch, all of which is to be emitted, without its own profiles; arguments as for :meth:`Processor.decide`."""


@dataclass(frozen=True, slots=True)
class Stages:
    """Times the stages of a batch."""

    clock: Clock
    metrics: MetricsRegistry

    def time(self, name: str, work: Callable[[], T]) -> T:
        """Do some work, and count how long it took."""
        begin_s = self.clock.monotonic_s()
        result = work()
        self.metrics.observe(m.STAGE_SECONDS, self.clock.monotonic_s() - begin_s, name)
        return result


WAITS_LONG_S: Final = 5.0
"""After how long a worker whose batch waits for others is not ready any more; a second is usual, since profiles are saved once an interval."""


@dataclass(slots=True)
class Patience:
    """What a worker does while a batch waits for others: it stays in its group, and says that something waits."""

    outages: Outages
    upkeep: Upkeep
    health: Health
    clock: Clock
    report: Callable[[], None]
    """Shows what there is to see of the worker: a loop that waits does not turn."""
    _since_s: float | None = None

    def __post_init__(self) -> None:
        self.over()

    def stay(self) -> None:
        """Stay in the group for a moment, and keep up with what is announced: it may be what is waited for. Raises AbandonedError."""
        self.report()
        self.outages.stay(RETRY_S)
        self.upkeep.turn()

    def wait(self, error: Exception) -> None:
        """Do the same for a batch that needs what is not there yet, and say so: at once in the log, after a while by not being ready."""
        now_s = self.clock.monotonic_s()
        if self._since_s is None:
            self._since_s = now_s
            log.info("a batch waits", extra=fields(error=str(error)))
        if now_s - self._since_s >= WAITS_LONG_S and self.health.conditions["nothing_waits"]:
            self.health.set("nothing_waits", False)
            log.warning("a batch waits for long", extra=fields(error=str(error)))
        self.stay()

    def over(self) -> None:
        """Note that nothing waits any more."""
        self._since_s = None
        self.health.set("nothing_waits", True)


class Deciding(Generic[P, R]):
    """Decides for one worker, on its thread."""

    def __init__(
        self,
        processor: Processor[P, R],
        reading: Reading,
        ownership: Ownership,
        patience: Patience,
        stages: Stages,
    ) -> None:
        self._processor, self._reading, self._ownership = processor, reading, ownership
        self._patience, self._stages = patience, stages
        self._missed = Repeated(log, _MISSED, stages.clock)
        self.without_profiles: WithoutProfiles[P, R] | None = None
        """Set where decisions go on without the grid."""
        self.behind = False
        """Whether something was committed that the grid was not there to take: it is folded at the next take-over."""

    def begin(self) -> None:
        """Begin anew: the take-over folds whatever the grid does not hold."""
        self.behind = False
        self._patience.over()

    def close(self) -> None:
        """Log what was not logged yet."""
        self._missed.pending(at_once=True)

    def decide(self, prepared: P, emit: type_bool, now_ms: int, *, hasty: bool) -> R:
        """Read and decide.

        Args:
            prepared: the batch.
            emit: (n,) False for records that are only folded.
            now_ms: the stamp of its outputs.
            hasty: whether it may be decided without its own profiles.

        Raises:
            AbandonedError: the batch is given up.
            ProcessingError: the processor raised what nobody expects.
        """
        without = self.without_profiles if hasty and emit.all() else None
        if self.behind and without is None:
            # What is only folded needs the grid, and the grid does not hold what was decided without it.
            while not self._reading.answers():
                self._patience.stay()
            raise AbandonedError(_BACK)
        while True:
            try:
                if without is not None:
                    return self._decide_hastily(without, prepared, emit, now_ms)
                profiles, found = self._read(prepared, lambda: self._reading.read(prepared, wanted=bool(emit.any())))
                outcome = self._decide(prepared, profiles, found, emit, now_ms)
            except NotYetError as error:
                self._patience.wait(error)
            else:
                self._patience.over()
                return outcome

    def leave_behind(self, error: Exception | None = None) -> None:
        """Note that the grid does not hold what is committed."""
        if not self.behind:
            why = {} if error is None else {"error": str(error)}
            log.warning("goes on without the grid: decisions are made without the cards' profiles", extra=fields(**why))
        self.behind = True

    def _decide_hastily(self, without: WithoutProfiles[P, R], prepared: P, emit: type_bool, now_ms: int) -> R:
        if self.behind:
            if self._reading.answers():
                raise AbandonedError(_BACK)
            profiles, found = None, None
        else:
            profiles, found = self._read(prepared, lambda: self._reading.read_hastily(prepared))
        if profiles is not None:
            return self._decide(prepared, profiles, found, emit, now_ms)
        self.leave_behind()
        return self._stages.time("decide", lambda: guarded(lambda: without(prepared, found or {}, now_ms)))

    def _read(
        self, prepared: P, read: Callable[[], tuple[T, Mapping[str, LookedUp] | None]]
    ) -> tuple[T, Mapping[str, LookedUp] | None]:
        profiles, found = self._stages.time("read", read)
        if found is None:
            self._stages.metrics.add(m.LOOKUPS_MISSED)
            self._missed.happened(len(prepared.records), error=self._reading.missed)
        else:
            self._missed.pending()
        return profiles, found

    def _decide(
        self,
        prepared: P,
        profiles: Sequence[bytes | None],
        found: Mapping[str, LookedUp] | None,
        emit: Any,
        now_ms: int,
    ) -> R:
        try:
            decide = partial(self._processor.decide, prepared, profiles, found or {}, emit, now_ms)
            return self._stages.time("decide", lambda: guarded(decide))
        except CorruptProfileError as error:
            for partition in {prepared.partitions[row] for row in error.rows}:
                self._ownership.halt(partition, damaged(self._processor.topic, error))
            raise AbandonedError(str(error)) from error
