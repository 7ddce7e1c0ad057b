"""Fold a partition's log without deciding anything: to rebuild its profiles, or to compare them with what the grid holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from services.core.columns import type_bool
from services.grid import Applied, Claim, Grid, GridWrite
from services.runtime.processor import Processor
from services.streams import Records


class FoldError(Exception):
    """The fold could not be finished."""


Write = Callable[[int, dict[bytes, bytes]], None]
"""Takes the offset that a batch ends at, and the profiles that it changed."""


def fold_log(
    processor: Processor[Any, Any],
    batches: Iterable[Records],
    killers: frozenset[int],
    write: Write,
    begins_ms: int | None = None,
) -> dict[bytes, bytes]:
    """Fold batches of one partition, in order, from nothing; return every profile by card.

    Args:
        processor: the service's deciding part; it emits nothing here.
        batches: the partition's records, from where its log begins.
        killers: offsets of records that must not be decoded.
        write: called after every batch.
        begins_ms: before what time nothing is known, where the log is short.
    """
    profiles: dict[bytes, bytes] = {}
    seed = None if begins_ms is None else processor.seed(begins_ms)
    for records in batches:
        prepared = processor.prepare(records, _at(records, killers))
        known = [profiles.get(card, seed) for card in prepared.cards]
        outcome = processor.decide(prepared, known, {}, np.zeros(len(records), bool), 0)
        changed = {c: p for c, p in zip(prepared.cards, outcome.profiles, strict=True) if p is not None}
        profiles |= changed
        write(int(records.offset[-1]) + 1, changed)
    return profiles


def _at(records: Records, offsets: frozenset[int]) -> type_bool:
    return np.isin(records.offset, list(offsets))


@dataclass(slots=True)
class GridWriter:
    """Writes a fold into the grid as it grows; only as long as its claim stands."""

    grid: Grid
    topic: str
    claim: Claim
    applied: int | None = None

    def __call__(self, target: int, changed: dict[bytes, bytes]) -> None:
        """See ``Write``. Raises FoldError when somebody else has claimed the partition, GridUnavailableError."""
        write = GridWrite(self.claim, self.applied, target, list(changed), list(changed.values()))
        [answer] = self.grid.apply(self.topic, [write])
        if answer is not Applied.APPLIED:
            raise FoldError(f"the grid refused the profiles of partition {self.claim.partition}: {answer.value}")
        self.applied = target


@dataclass(frozen=True, slots=True)
class Difference:
    """How the profiles in the grid differ from the fold of the log."""

    compared: int
    missing: int
    surplus: int
    different: int

    @property
    def holds(self) -> bool:
        """Whether there is none."""
        return not (self.missing or self.surplus or self.different)


def difference(folded: dict[bytes, bytes], held: dict[bytes, bytes]) -> Difference:
    """Compare two sets of profiles by card, byte by byte; no bytes stand for no profile, since a log may forget what was deleted."""
    folded, held = ({card: profile for card, profile in one.items() if profile} for one in (folded, held))
    shared = folded.keys() & held.keys()
    return Difference(
        compared=len(folded.keys() | held.keys()),
        missing=len(folded.keys() - held.keys()),
        surplus=len(held.keys() - folded.keys()),
        different=sum(folded[card] != held[card] for card in shared),
    )
