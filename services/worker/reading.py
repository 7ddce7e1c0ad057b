"""What a batch reads: the profiles that its worker owns, proved, and those of others, as they stand, in one round trip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from services.grid import GridAnswer, GridMovedError, GridUnavailableError, Lookup
from services.worker.foreign import ForeignProfiles
from services.worker.grid_writer import GridWriter
from services.worker.outages import AbandonedError
from services.worker.own_profiles import OwnProfiles
from services.worker.owned_grid import OwnedGrid, WantedCards
from services.worker.places import PlaceReading
from services.worker.processor import LookedUp, Prepared

T = TypeVar("T")


class Reading:
    """Reads for one worker, on its thread."""

    def __init__(
        self, own: OwnProfiles, grid: OwnedGrid, writer: GridWriter, foreign: ForeignProfiles, places: PlaceReading
    ) -> None:
        self._own, self._grid, self._writer, self._foreign, self._places = own, grid, writer, foreign, places

    @property
    def missed(self) -> str:
        """Why others' profiles did not come in time, the last time that they did not."""
        return self._foreign.missed

    @property
    def kept(self) -> int:
        """How many own profiles are kept."""
        return len(self._own)

    @property
    def kept_of_others(self) -> int:
        """How many of others' profiles are kept."""
        return len(self._foreign)

    def answers(self, *, with_deadline: bool = True) -> bool:
        """Whether the grid is there, waiting for it a moment at most. Raises AbandonedError if it does not hold what was written to it."""
        try:
            self._proved(partial(self._grid.holds_all, with_deadline=with_deadline))
        except GridUnavailableError:
            return False
        return True

    def read(self, prepared: Prepared, *, wanted: bool) -> tuple[Sequence[bytes | None], Mapping[str, LookedUp] | None]:
        """Return the profiles of a batch's pairs and, if they are wanted, what was found of others.

        None for the latter where it did not come in time: a decision does not wait for it. Raises AbandonedError, and NotYetError while
        something is to come that the batch points to.
        """
        places = self._places.read(prepared) if wanted else {}
        profiles, found = self._read(prepared, wanted=wanted, ask=self._grid.read)
        if found is not None and places:
            found = {**found, **{topic: replace(found[topic], places=at) for topic, at in places.items()}}
        return profiles, found

    def read_hastily(self, prepared: Prepared) -> tuple[Sequence[bytes | None] | None, Mapping[str, LookedUp] | None]:
        """Do as :meth:`read` does for a batch that is wanted, but wait for nothing: None for own profiles that do not come in time, too.

        Raises AbandonedError.
        """
        try:
            return self._read(prepared, wanted=True, ask=partial(self._grid.ask, with_deadline=True))
        except GridUnavailableError as error:
            self._foreign.miss(error)
            return None, None

    def _read(
        self, prepared: Prepared, *, wanted: bool, ask: Callable[[WantedCards, Sequence[Lookup]], GridAnswer]
    ) -> tuple[Sequence[bytes | None], Mapping[str, LookedUp] | None]:
        profiles, missing = self._own.get(prepared)
        plan = self._foreign.plan(prepared, wanted=wanted)
        if missing:
            wanted_cards = {p: [prepared.cards[i] for i in rows] for p, rows in missing.items()}
            answer = self._proved(lambda: ask(wanted_cards, plan.lookups))
            for (p, rows), values in zip(missing.items(), answer.profiles, strict=True):
                seed = self._grid.seed(p)
                for i, value in zip(rows, values, strict=True):
                    profiles[i] = seed if value is None else value
            plan.take(answer.found)
        return profiles, self._foreign.finish(plan)

    def _proved(self, ask: Callable[[], T]) -> T:
        """Return what the grid says. Raises AbandonedError if it does not hold what was written to it."""
        try:
            return ask()
        except GridMovedError:
            # A write of this worker's own may be under way: what it leaves behind is looked at. Not within what waits outages out: it may
            # fail in ways that are none.
            self._writer.written()
        try:
            return ask()
        except GridMovedError as error:
            raise AbandonedError(f"the grid does not hold what was written to it: {error}") from error
