"""Writes what was folded to the grid, once an interval, piece by piece, beside everything else that a worker does."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from services.grid import Applied, Grid, GridUnavailableError, GridWrite
from services.runtime import catalogue as m
from services.runtime.clock import Clock
from services.runtime.metrics import MetricsRegistry
from services.runtime.outages import AbandonedError, Outages
from services.runtime.ownership import Ownership
from services.runtime.unsaved import Unsaved
from services.streams import Publisher
from services.streams.background import Background

log = logging.getLogger("proact.worker")


@dataclass(slots=True)
class Piece:
    """One write, as it goes on beside the worker's thread."""

    topic: str
    writes: Sequence[GridWrite]
    grid: Grid
    clock: Clock
    took_s: float = 0.0
    answers: Sequence[Applied] = ()
    away: GridUnavailableError | None = None
    joined: bool = False
    """Whether the worker's thread has seen its end."""

    def __call__(self) -> None:
        """Write, and keep what the grid says."""
        begin_s = self.clock.monotonic_s()
        try:
            self.answers = self.grid.apply(self.topic, self.writes)
        except GridUnavailableError as error:
            self.away = error
        self.took_s = self.clock.monotonic_s() - begin_s


@dataclass(frozen=True, slots=True)
class Shore:
    """What batches are finished with."""

    publisher: Publisher
    grid: Grid
    clock: Clock
    metrics: MetricsRegistry
    publishing: Background
    saving: Background


class Saving:
    """Saves for one worker, on its thread."""

    def __init__(self, topic: str, shore: Shore, unsaved: Unsaved, ownership: Ownership, *, announces: bool) -> None:
        self._topic, self._shore, self._unsaved, self._ownership = topic, shore, unsaved, ownership
        self._announces = announces
        self._piece: Piece | None = None
        self.behind = False
        """Whether the grid lacks what lies before: nothing is written, it is folded at the next take-over."""

    def go_on(self) -> GridUnavailableError | None:
        """Begin the next write, if there is one to begin, and the one before has ended.

        Only what has landed may wait when this is called.

        Returns:
            Why the write before did not happen, if the grid was away; it is still to be done, by :meth:`repeat`.

        Raises:
            StreamsError: what is committed is in doubt.
            AbandonedError: the grid refused the write before.
        """
        if self._piece is not None:
            # Whoever is too far behind waits: how much is folded at a take-over is bounded.
            if not (self._unsaved.too_many or self._shore.saving.ended()):
                return None
            away = self.join()
            if away is not None:
                return away
        if self._unsaved.due(self._shore.clock.monotonic_s()):
            self.confirm()
            self._unsaved.seal()
        self._begin()
        return None

    def join(self) -> GridUnavailableError | None:
        """Wait until nothing is being written. Returns and raises as :meth:`go_on` does."""
        piece = self._piece
        if piece is None:
            return None
        if not piece.joined:
            self._shore.saving.join()
            piece.joined = True
        if piece.away is not None:
            return piece.away
        self._take(piece)
        return None

    def repeat(self, outages: Outages) -> None:
        """Do a write that the grid was away for, when it is back. Raises AbandonedError."""
        piece = self._piece
        assert piece is not None
        piece.answers = outages.wait_out("redis", lambda: self._shore.grid.apply(self._topic, piece.writes))
        piece.away = None
        self._take(piece)

    def save_all(self) -> None:
        """Write all that waits, piece by piece, until it is done or the grid is away. Raises AbandonedError."""
        while (self._unsaved or self._piece) and self.join() is None:
            if self._unsaved and not self._unsaved.next():
                self._unsaved.seal()
            self._begin()

    def confirm(self) -> None:
        """Have committed what was published. Raises StreamsError."""
        self._shore.publisher.confirm({p: owned.published for p, owned in self._ownership.owned.items()})

    def forget(self) -> None:
        """Bring to an end what is under way, whatever comes of it, and forget what waits."""
        try:
            self.join()
        except AbandonedError as error:
            log.debug("a write was refused: %s", error)
        self._piece = None
        self._unsaved.clear()

    def _begin(self) -> None:
        writes = self._writes()
        if writes:
            self._piece = Piece(self._topic, writes, self._shore.grid, self._shore.clock)
            self._shore.saving.start(self._piece)

    def _writes(self) -> list[GridWrite]:
        partitions, owned = self._unsaved.next(), self._ownership.owned
        if self.behind:
            self._unsaved.clear()
            return []
        return [
            GridWrite(
                owned[p].claim,
                owned[p].applied,
                part.target,
                list(part.profiles),
                list(part.profiles.values()),
                part.folded_until_ms,
                self._announces,
            )
            for p, part in self._unsaved.take(partitions).items()
        ]

    def _take(self, piece: Piece) -> None:
        self._piece = None
        for write, answer in zip(piece.writes, piece.answers, strict=True):
            partition = write.claim.partition
            if answer is not Applied.APPLIED:
                raise AbandonedError(f"the grid refused the profiles of partition {partition}: {answer.value}")
            self._ownership.owned[partition].applied = write.target
        self._unsaved.saved()
        self._shore.metrics.observe(m.STAGE_SECONDS, piece.took_s, "apply")
