"""Fold a partition's log without deciding anything: to rebuild its profiles, or to compare them with what the grid holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from services.core.columns import type_i64
from services.core.validation import Reject
from services.grid import Applied, Claim, Grid, GridWrite
from services.streams import Records
from services.worker.excluded import Excluded
from services.worker.isolating import Lead, LeadInBatch, NotOfRecordsError, isolate
from services.worker.processor import Outcome, Prepared, ProcessingError, Processor, guarded


class FoldError(Exception):
    """The fold could not be finished."""


Write = Callable[[int, dict[bytes, bytes]], None]
"""Takes the offset that a batch ends at, and the profiles that it changed."""


@dataclass(frozen=True, slots=True)
class FoldedLog:
    """What a partition's log comes to."""

    profiles: dict[bytes, bytes]
    """Every profile by card."""
    poison: frozenset[int]
    """Offsets of records that were left out because they kill who decodes them."""
    errors: frozenset[int]
    """Offsets of records that were left out because they raise an exception."""


def fold_log(
    processor: Processor[Any, Any],
    batches: Iterable[Records],
    excluded: Mapping[int, Excluded],
    write: Write,
    begins_ms: int | None = None,
) -> FoldedLog:
    """Fold batches of one partition, in order, from nothing, as a worker does.

    Args:
        processor: the service's deciding part; it emits nothing here.
        batches: the partition's records, from where its log begins.
        excluded: by offset, what must not be decoded, and why.
        write: called after every batch.
        begins_ms: before what time nothing is known, where the log is short.

    Raises:
        FoldError: most records raise an exception.
    """
    profiles: dict[bytes, bytes] = {}
    seed = None if begins_ms is None else processor.seed(begins_ms)
    poison: set[int] = set()
    errors: set[int] = set()
    lead = Lead()
    for records in batches:
        reasons = _reasons(records, excluded)
        poison.update(records.offset[reasons == Reject.KILLS_DECODER].tolist())
        errors.update(records.offset[reasons == Reject.INTERNAL_ERROR].tolist())
        prepared, outcome = _fold_batch(processor, records, reasons, (profiles, seed, errors, lead))
        changed = {c: p for c, p in zip(prepared.cards, outcome.profiles, strict=True) if p is not None}
        profiles |= changed
        write(int(records.offset[-1]) + 1, changed)
    return FoldedLog(profiles, frozenset(poison), frozenset(errors))


def _fold_batch(
    processor: Processor[Any, Any],
    records: Records,
    excluded: type_i64,
    so_far: tuple[dict[bytes, bytes], bytes | None, set[int], Lead],
) -> tuple[Prepared, Outcome]:
    """Fold one batch onto profiles, without what raises, whose offsets are added to the errors."""
    profiles, seed, errors, lead = so_far
    batch = LeadInBatch(lead, records)

    def work(some: Records, kept: type_i64) -> tuple[Prepared, Outcome]:
        def decide() -> tuple[Prepared, Outcome]:
            prepared = processor.prepare(some, kept)
            known = [profiles.get(card, seed) for card in prepared.cards]
            return prepared, processor.decide(prepared, known, {}, np.zeros(len(some), bool), 0)

        return guarded(decide)

    def named(row: int, error: ProcessingError) -> None:
        errors.add(int(records.offset[row]))
        if batch.add(row):
            raise FoldError(f"most records raise an exception ({error}): mend the program first") from error

    try:
        return isolate(records, excluded, work, named)
    except NotOfRecordsError as error:
        raise FoldError(f"the fold raises an exception whatever is left out: {error}") from error
    finally:
        batch.finish()


def _reasons(records: Records, excluded: Mapping[int, Excluded]) -> type_i64:
    reasons = np.zeros(len(records), np.int64)
    for row in np.flatnonzero(np.isin(records.offset, list(excluded))).tolist():
        out = excluded[int(records.offset[row])]
        reasons[row] = out.why if out.holds(int(records.timestamp_ms[row])) else Reject.NONE
    return reasons


@dataclass(slots=True)
class FoldWriter:
    """Writes a fold into the grid as it grows; only as long as its claim stands."""

    grid: Grid
    log: str
    claim: Claim
    applied: int | None = None

    def __call__(self, target: int, changed: dict[bytes, bytes]) -> None:
        """See ``Write``. Raises FoldError when somebody else has claimed the partition, GridUnavailableError."""
        write = GridWrite(self.claim, self.applied, target, list(changed), list(changed.values()))
        [answer] = self.grid.apply(self.log, [write])
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
