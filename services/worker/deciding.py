"""From a prepared batch to its outcome: read, decide, and what to do when something that is needed is not there.

Without its own profiles a worker waits. Where it is set to go without them it decides as well as it can, commits, and leaves the grid behind:
what was committed and not applied is folded when the grid is back, as after any take-over, since the committed offset is what counts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Generic, TypeVar

from services.core.columns import type_bool
from services.runtime import catalogue as m
from services.runtime.rate_limited_log import Repeated
from services.worker.outages import AbandonedError
from services.worker.partition_state import Partitions
from services.worker.processor import LookedUp, NotYetError, P, Processor, R, guarded
from services.worker.reading import Reading
from services.worker.stages import Stages
from services.worker.waiting import Waiting

T = TypeVar("T")
log = logging.getLogger("proact.worker")

_MISSED: Final = "what other services know did not come in time: decided without"
_BACK: Final = "the grid is back: what was decided without it is folded now"
WithoutProfiles = Callable[[P, Mapping[str, LookedUp], int], R]
"""Decides on a batch, all of which is to be emitted, without its own profiles; arguments as for :meth:`Processor.decide`."""


class Deciding(Generic[P, R]):
    """Decides for one worker, on its thread."""

    def __init__(
        self, processor: Processor[P, R], reading: Reading, partitions: Partitions, waiting: Waiting, stages: Stages
    ) -> None:
        self._processor, self._reading, self._partitions = processor, reading, partitions
        self._waiting, self._stages = waiting, stages
        self._missed = Repeated(log, _MISSED, stages.clock)
        self._without_profiles: WithoutProfiles[P, R] | None = None
        """Set where decisions go on without the grid."""

    def go_without_profiles(self, decide: WithoutProfiles[P, R]) -> None:
        """Decide by this when the grid is away; called before any decision."""
        self._without_profiles = decide

    def begin(self) -> None:
        """Begin anew: nothing waits."""
        self._waiting.over()

    def close(self) -> None:
        """Log what was not logged yet."""
        self._missed.pending(at_once=True)

    def decide(self, prepared: P, emit: type_bool, now_ms: int, *, with_deadline: bool) -> R:
        """Read and decide.

        Args:
            prepared: the batch.
            emit: (n,) False for records that are only folded.
            now_ms: the stamp of its outputs.
            with_deadline: whether it may be decided without its own profiles.

        Raises:
            AbandonedError: the batch is given up.
            ProcessingError: the processor raised what nobody expects.
            CorruptProfileError: the grid holds what no processor wrote.
        """
        without = self._without_profiles if with_deadline and emit.all() else None
        if self._partitions.stale and without is None:
            # What is only folded needs the grid, and the grid does not hold what was decided without it.
            while not self._reading.answers():
                self._waiting.keep_membership()
            raise AbandonedError(_BACK)
        while True:
            try:
                if without is not None:
                    return self._decide_hastily(without, prepared, emit, now_ms)
                profiles, found = self._read(prepared, lambda: self._reading.read(prepared, wanted=bool(emit.any())))
                outcome = self._decide(prepared, profiles, found, emit, now_ms)
            except NotYetError as error:
                self._waiting.wait(error)
            else:
                self._waiting.over()
                return outcome

    def _decide_hastily(self, without: WithoutProfiles[P, R], prepared: P, emit: type_bool, now_ms: int) -> R:
        if self._partitions.stale:
            if self._reading.answers():
                raise AbandonedError(_BACK)
            profiles, found = None, None
        else:
            profiles, found = self._read(prepared, lambda: self._reading.read_hastily(prepared))
        if profiles is not None:
            return self._decide(prepared, profiles, found, emit, now_ms)
        self._partitions.fall_behind()
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
        decide = partial(self._processor.decide, prepared, profiles, found or {}, emit, now_ms)
        return self._stages.time("decide", lambda: guarded(decide))
