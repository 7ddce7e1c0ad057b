"""What a batch reads: the profiles that its worker owns, proved, and those of others, as they stand, in one round trip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from services.grid import Grid, GridAnswer, GridMovedError, GridRead, GridUnavailableError, Lookup
from services.grid.near_cache import NearCache
from services.runtime.lookups import Copies, LookupPlan
from services.runtime.outages import AbandonedError, Outages
from services.runtime.ownership import Owned, Ownership
from services.runtime.places import PlaceReading
from services.runtime.processor import LookedUp, Prepared
from services.runtime.unsaved import Unsaved

_Missing = Mapping[int, Sequence[bytes]]
"""By partition, the cards whose profiles only the grid can know."""


@dataclass(frozen=True, slots=True)
class Caches:
    """What a worker keeps to itself: of its own profiles, the ones that the grid does not know yet among them, and of others'."""

    own: NearCache
    unsaved: Unsaved
    copies: Copies


@dataclass(frozen=True, slots=True)
class Stores:
    """What a worker reads from beside its own topic."""

    grid: Grid
    places: PlaceReading


class Reading:
    """Reads for one worker, on its thread."""

    def __init__(self, topic: str, stores: Stores, ownership: Ownership, outages: Outages, caches: Caches) -> None:
        self._topic, self._grid, self._places = topic, stores.grid, stores.places
        self._ownership, self._outages, self._caches = ownership, outages, caches
        self.written: Callable[[], None] = lambda: None
        """Waits until nothing is being written to the grid. May raise AbandonedError."""
        self.missed = ""
        """Why others' profiles did not come in time, the last time that they did not."""

    @property
    def owned(self) -> dict[int, Owned]:
        """The partitions whose profiles are the worker's own."""
        return self._ownership.owned

    def forget(self) -> None:
        """Forget own profiles: claims are taken again, or a write is in doubt. Copies are proved each time."""
        self._caches.own.clear()

    def keep(self, partition: int, profiles: Mapping[bytes, bytes]) -> None:
        """Keep what was just folded: what follows is decided from it, whether it is published and saved yet or not."""
        self._caches.own.put(partition, profiles)

    def answers(self, *, hasty: bool = True) -> bool:
        """Whether the grid is there, waiting for it a moment at most. Raises AbandonedError if it does not hold what was written to it."""
        try:
            self._ask(lambda: self._read_grid(dict.fromkeys(self._ownership.owned, ()), [], hasty=hasty))
        except GridUnavailableError:
            return False
        return True

    def read(self, prepared: Prepared, *, wanted: bool) -> tuple[Sequence[bytes | None], Mapping[str, LookedUp] | None]:
        """Return the profiles of a batch's pairs and, if they are wanted, what was found of others.

        None for the latter where it did not come in time: a decision does not wait for it. Raises AbandonedError, and NotYetError while
        something is to come that the batch points to.
        """
        places = self._places.read(prepared) if wanted else {}
        profiles, found = self._read(prepared, wanted=wanted, ask=self._proved)
        if found is not None and places:
            found = {**found, **{topic: replace(found[topic], places=at) for topic, at in places.items()}}
        return profiles, found

    def _read(
        self, prepared: Prepared, *, wanted: bool, ask: Callable[[_Missing, Sequence[Lookup]], GridAnswer]
    ) -> tuple[Sequence[bytes | None], Mapping[str, LookedUp] | None]:
        profiles: list[bytes | None] = []
        for partition, pairs in prepared.stretches:
            profiles += self._caches.own.get(partition, prepared.cards[pairs])
        plan = LookupPlan(
            prepared.lookups if wanted else {},
            self._ownership.looked_up,
            self._caches.copies,
            prepared.lookup_partitions,
        )
        missing: dict[int, list[int]] = {}
        for i in [i for i, profile in enumerate(profiles) if profile is None] if None in profiles else ():
            profiles[i] = self._caches.unsaved.get(prepared.partitions[i], prepared.cards[i])
            if profiles[i] is None:
                missing.setdefault(prepared.partitions[i], []).append(i)
        if missing:
            wanted_cards = {p: [prepared.cards[i] for i in rows] for p, rows in missing.items()}
            answer = ask(wanted_cards, plan.lookups)
            for (p, rows), values in zip(missing.items(), answer.profiles, strict=True):
                seed = self._ownership.seed(p)
                for i, value in zip(rows, values, strict=True):
                    profiles[i] = seed if value is None else value
            plan.take(answer.found)
        return profiles, self._look_up(plan)

    def read_hastily(self, prepared: Prepared) -> tuple[Sequence[bytes | None] | None, Mapping[str, LookedUp] | None]:
        """Do as :meth:`read` does for a batch that is wanted, but wait for nothing: None for own profiles that do not come in time, too.

        Raises AbandonedError.
        """
        try:
            return self._read(prepared, wanted=True, ask=self._ask_hastily)
        except GridUnavailableError as error:
            self.missed = str(error)
            return None, None

    def _look_up(self, plan: LookupPlan) -> Mapping[str, LookedUp] | None:
        try:
            while lookups := plan.lookups:
                plan.take(self._grid.look_up(lookups))
        except GridUnavailableError as error:
            self.missed = str(error)
            return None
        return plan.found

    def _proved(self, wanted: _Missing, lookups: Sequence[Lookup]) -> GridAnswer:
        return self._ask(lambda: self._outages.wait_out("redis", lambda: self._read_grid(wanted, lookups, hasty=False)))

    def _ask_hastily(self, wanted: _Missing, lookups: Sequence[Lookup]) -> GridAnswer:
        return self._ask(lambda: self._read_grid(wanted, lookups, hasty=True))

    def _read_grid(self, wanted: _Missing, lookups: Sequence[Lookup], *, hasty: bool) -> GridAnswer:
        return self._grid.read(self._topic, self._reads(wanted), lookups, hasty=hasty)

    def _ask(self, ask: Callable[[], GridAnswer]) -> GridAnswer:
        try:
            return ask()
        except GridMovedError:
            # A write of this worker's own may be under way: what it leaves behind is looked at. Not within what waits outages out: it may
            # fail in ways that are none.
            self.written()
        try:
            return ask()
        except GridMovedError as error:
            raise AbandonedError(f"the grid does not hold what was written to it: {error}") from error

    def _reads(self, wanted: _Missing) -> list[GridRead]:
        owned = self._ownership.owned
        return [GridRead(owned[p].claim, owned[p].applied, cards) for p, cards in wanted.items()]
