"""Writes what was folded to the grid, once an interval, piece by piece, beside everything else that a worker does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.grid import Applied, GridUnavailableError, GridWrite
from services.runtime.clock import Clock
from services.streams.background import Background
from services.worker.outages import AbandonedError
from services.worker.owned_grid import OwnedGrid
from services.worker.stages import Stages
from services.worker.write_behind import WriteBehindBuffer

log = logging.getLogger("proact.worker")


@dataclass(slots=True)
class PendingWrite:
    """One write, as it goes on beside the worker's thread: called once, there; read on the worker's thread when it has been joined."""

    writes: Sequence[GridWrite]
    grid: OwnedGrid
    clock: Clock
    took_s: float = 0.0
    answers: Sequence[Applied] = ()
    away: GridUnavailableError | None = None
    """Why it may not have happened."""

    def __call__(self) -> None:
        """Write, and keep what the grid says."""
        begin_s = self.clock.monotonic_s()
        try:
            self.answers = self.grid.apply(self.writes)
        except GridUnavailableError as error:
            self.away = error
        self.took_s = self.clock.monotonic_s() - begin_s


class GridWriter:
    """Writes what is in the write-behind buffer, one :class:`PendingWrite` at a time.

    Who calls: :class:`services.worker.completing.BatchCompletion` and :class:`services.worker.reading.Reading`, on the worker's thread; the write
    itself happens on the background's thread, and is all that does.
    In what order: :meth:`go_on` only when no batch is in flight, since what waits then is published; it has that committed before it is sealed, so
    that the grid is never ahead of Kafka. :meth:`written` at any time. :meth:`forget` before partitions are taken over or given up.
    What may fail: the grid may refuse a write (somebody else has claimed the partition, or it does not hold what was written before): AbandonedError,
    and the partitions are taken over again. It may be away: then it is waited for, or gone without, as the worker is set.
    What a repeat means: the same write, with the same offsets to compare; one that happened already says so and changes nothing.
    """

    def __init__(self, grid: OwnedGrid, buffer: WriteBehindBuffer, background: Background, stages: Stages) -> None:
        self._grid, self._buffer, self._background, self._stages = grid, buffer, background, stages
        self._pending: PendingWrite | None = None
        self._joined = True
        """Whether nothing of it is under way on the background's thread."""

    def go_on(self, confirm: Callable[[], None]) -> None:
        """Begin the next write, if there is one to begin, and the one before has ended.

        Args:
            confirm: has Kafka commit what was published; may raise StreamsError.

        Raises:
            StreamsError: what is committed is in doubt.
            AbandonedError: the grid refused the write before.
        """
        if self._pending is not None:
            # Whoever is too far behind waits: how much is folded at a take-over is bounded.
            if not (self._buffer.too_many or self._background.ended()):
                return
            if (away := self._join()) is not None:
                self._settle(away)
                return
        if self._buffer.due(self._stages.clock.monotonic_s()):
            confirm()
            self._buffer.seal()
        self._begin()

    def written(self) -> None:
        """Wait until nothing is being written. Raises AbandonedError."""
        if (away := self._join()) is not None:
            self._settle(away)

    def save_all(self) -> None:
        """Write all that waits, which is committed, piece by piece, until it is done or the grid is away. Raises AbandonedError."""
        while (self._buffer or self._pending) and self._join() is None:
            if self._buffer and not self._buffer.next():
                self._buffer.seal()
            self._begin()

    def forget(self) -> None:
        """Bring to an end what is under way, whatever comes of it, and forget what waits."""
        try:
            self._join()
        except AbandonedError as error:
            log.debug("a write was refused: %s", error)
        self._pending = None
        self._buffer.clear()

    def _join(self) -> GridUnavailableError | None:
        """Wait until nothing is being written; return why the write did not happen if the grid was away. Raises AbandonedError."""
        pending = self._pending
        if pending is None:
            return None
        if not self._joined:
            self._background.join()
            self._joined = True
        if pending.away is not None:
            return pending.away
        self._end(pending, pending.answers)
        return None

    def _settle(self, away: GridUnavailableError) -> None:
        """Repeat a write that the grid was away for, when it is back, or go on without it."""
        pending = self._pending
        assert pending is not None
        if self._grid.needed:
            self._end(pending, self._grid.apply_patiently(pending.writes))
        else:
            self._grid.fall_behind(away)
            self.forget()

    def _begin(self) -> None:
        if self._grid.stale:  # what waits is folded at the next take-over
            self._buffer.clear()
            return
        writes = self._grid.begin(self._buffer.take(self._buffer.next()))
        if writes:
            self._pending, self._joined = PendingWrite(writes, self._grid, self._stages.clock), False
            self._background.start(self._pending)

    def _end(self, pending: PendingWrite, answers: Sequence[Applied]) -> None:
        self._pending = None
        self._grid.end(pending.writes, answers)
        self._buffer.written()
        self._stages.took("apply", pending.took_s)
