"""Records on which a processor raises an exception: found by halving, in the worker's own process, and left out for good.

A processor is pure, so that after an exception nothing has happened, and it may be asked again with fewer records. The batch is tried up to a
record, in the log's order: the first record up to which it raises is the one that raises, given all before it. It is left out, as a record
that kills the process is (:mod:`.poison_detector`), and the rest is decided as if it were not there. That holds for assertions, too: to crash is for a
state that nobody understands any more, and here there is none; the record would meet the same assertion after every restart.

What comes for every record is no record's fault. So where more records raise than do not, by ``AHEAD_MAX``, the partition is halted before any
more become dead letters. What does not come again is reported, and no more. Nothing of this costs anything while nothing raises.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

import numpy as np

from services.core.columns import type_i64
from services.core.validation import Reject
from services.runtime import catalogue as m
from services.runtime.clock import Clock
from services.runtime.logs import fields, frames_of
from services.runtime.metrics import MetricsRegistry
from services.streams import Records
from services.worker.outages import AbandonedError, Outages
from services.worker.ownership import Ownership
from services.worker.partition_state import PartitionState
from services.worker.poison import PoisonDetector
from services.worker.processor import ProcessingError

T = TypeVar("T")
log = logging.getLogger("proact.worker")

AHEAD_MAX: Final = 20
"""By how many records that raise may be ahead of those that do not, in a partition, before it is halted: records that raise one in a hundred
never are, and a program that raises on every record halts at its twentieth."""
ENCODED_MORE: Final = 10_000
"""So many offsets more are encoded on the worker's thread once outputs could not be encoded: another such batch would cost a take-over."""
REPORTED_EVERY_S: Final = 10.0
"""How often one and the same traceback is logged."""
TRACEBACKS_MAX: Final = 100


class NotOfRecordsError(Exception):
    """A batch raises whatever is left out of it."""


def isolate(
    records: Records,
    excluded: type_i64,
    work: Callable[[Records, type_i64], T],
    named: Callable[[int, ProcessingError], None],
) -> T:
    """Return what comes of a batch that raised, without the records that raise.

    Args:
        records: the batch, of n records.
        excluded: (n,) the Reject of what is left out already, NONE for the others.
        work: decides on some of the records, the first ones; may raise ProcessingError.
        named: takes the row of each record that raises, and what it raised, in their order; what it raises ends the search.

    Raises:
        NotOfRecordsError: the batch raises whatever is left out of it.
    """
    excluded, good = excluded.copy(), 0
    while True:
        try:
            return work(records, excluded)
        except ProcessingError as raised:
            row, error = _first_that_raises(records, excluded, work, good, raised)
        if excluded[row] != Reject.NONE:
            raise NotOfRecordsError(str(error)) from error
        excluded[row] = Reject.INTERNAL_ERROR
        named(row, error)
        good = row + 1


def _first_that_raises(
    records: Records, excluded: type_i64, work: Callable[[Records, type_i64], T], good: int, error: ProcessingError
) -> tuple[int, ProcessingError]:
    """Return the first record up to which a batch raises, and what; up to ``good`` it does not, and all of it did raise this error."""

    def raised_by(count: int) -> ProcessingError | None:
        first = np.arange(len(records)) < count
        try:
            work(records.take(first), excluded[:count])
        except ProcessingError as raised:
            return raised
        return None

    low, high, step = good, len(records), 1
    while high - low > 1:
        # In steps that double until one raises, then by halves: where many raise, the next one is near.
        middle = min(low + step, (low + high) // 2)
        raised = raised_by(middle)
        if raised is None:
            low, step = middle, 2 * step
        else:
            high, error = middle, raised
    return high - 1, error


class Lead:
    """By how many records of each partition those that raise are ahead of those that do not; each record counts once.

    A batch that is given up is decided again, by the same worker or after another one: its records must not count as new ones.
    """

    def __init__(self) -> None:
        self._ahead: dict[int, int] = {}
        self._until: dict[int, int] = {}
        """By partition, the offset before which records were counted."""

    def __bool__(self) -> bool:
        """Return whether any are ahead."""
        return bool(self._ahead)

    def add(self, partition: int, raising: int, others: int) -> bool:
        """Count what came, those that did not raise first; return whether that is too many."""
        ahead = max(0, self._ahead.pop(partition, 0) - others) + raising
        if ahead:
            self._ahead[partition] = ahead
        return ahead >= AHEAD_MAX

    def fresh(self, records: Records) -> np.ndarray:
        """Return, of each record, whether it was not counted yet."""
        until = [self._until.get(partition, 0) for partition in records.partition.tolist()]
        return records.offset >= np.array(until, np.int64)

    def count_until(self, partition: int, offset: int) -> None:
        """Note up to where records are counted."""
        self._until[partition] = max(offset, self._until.get(partition, 0))

    def forget(self, partition: int) -> None:
        """Begin anew."""
        self._ahead.pop(partition, None)
        self._until.pop(partition, None)


class LeadInBatch:
    """Counts one batch, as its records are named in their order."""

    def __init__(self, lead: Lead, records: Records) -> None:
        self._lead, self._records, self._partition = lead, records, records.partition
        self._fresh = lead.fresh(records)
        self._counted: dict[int, int] = {}

    def add(self, row: int) -> bool:
        """Count a record that raises, and those of its partition before it; return whether that is too many."""
        partition = int(self._partition[row])
        others = self._others(partition, row)
        self._counted[partition] = row + 1
        self._lead.count_until(partition, int(self._records.offset[row]) + 1)
        return self._lead.add(partition, int(self._fresh[row]), others)

    def finish(self) -> None:
        """Count what came behind them, or all there is."""
        for partition, next_offset in self._records.next_offsets().items() if self._lead else ():
            self._lead.add(partition, 0, self._others(partition, len(self._partition)))
            self._lead.count_until(partition, next_offset)

    def _others(self, partition: int, until: int) -> int:
        rows = slice(self._counted.get(partition, 0), until)
        return int(np.count_nonzero((self._partition[rows] == partition) & self._fresh[rows]))


Work = Callable[[Records, type_i64, bool], T]
"""Prepares and decides on some records, without what is excluded; if the last is true, encodes the outcome, too. May raise ProcessingError."""


class Isolation(Generic[T]):
    """Finds records that raise for one worker, on its thread."""

    def __init__(
        self,
        poison_detector: PoisonDetector,
        ownership: Ownership,
        outages: Outages,
        clock: Clock,
        metrics: MetricsRegistry,
    ) -> None:
        self._poison, self._ownership, self._outages = poison_detector, ownership, outages
        self._clock, self._metrics = clock, metrics
        self._lead = Lead()
        self._found: dict[tuple[int, int], ProcessingError] = {}
        """By partition and offset, what was found in the batch at hand."""
        self._encode_until: dict[int, int] = {}
        self._reported_s: dict[str, float] = {}

    def begin(self) -> None:
        """Begin anew with what was taken over."""
        for partition in self._ownership.halted:
            self._lead.forget(partition)
        self._encode_until = {p: o for p, o in self._encode_until.items() if p in self._ownership.owned}

    def encode_until(self, positions: Mapping[int, int]) -> None:
        """Note that a batch before these offsets could not be encoded, beside this thread: until then, and for a while, that is tried here."""
        self._encode_until |= {p: position + ENCODED_MORE for p, position in positions.items()}

    def decide(self, records: Records, excluded: type_i64, work: Work[T], rest: Callable[[], None]) -> T:
        """Decide on a batch, without what raises.

        Args:
            records: the batch, of n records.
            excluded: (n,) as :meth:`Processor.prepare` takes it.
            work: decides.
            rest: waits until nothing of an earlier batch is under way, since it may be encoding with what this one would encode with.

        Raises:
            AbandonedError: the batch is given up; more raises than does not, and its partition was halted.
        """
        self._found = {}
        encode = bool(self._encode_until)
        if encode:
            rest()
        try:
            return work(records, excluded, encode)
        except ProcessingError as error:
            rest()
            return self._search(records, excluded, work, error)

    def _search(self, records: Records, excluded: type_i64, work: Work[T], first: ProcessingError) -> T:
        batch = LeadInBatch(self._lead, records)

        def tried(some: Records, kept: type_i64) -> T:
            self._outages.keep_membership(0.0)
            return work(some, kept, True)

        def named(row: int, error: ProcessingError) -> None:
            partition, offset = int(records.partition[row]), int(records.offset[row])
            self._found[partition, offset] = error
            if offset >= self._ownership.owned[partition].claim.accepted and batch.add(row):
                self._halt([partition], error)

        try:
            outcome = isolate(records, excluded, tried, named)
        except NotOfRecordsError as error:
            self._halt(sorted(set(records.partition.tolist())), error)
        batch.finish()
        if not self._found:
            self._metrics.add(m.INTERNAL_ERRORS, 1, "not_again")
            self._report_error("an exception did not come again: nothing is refused for it", first)
        return outcome

    def _halt(self, partitions: list[int], error: Exception) -> Any:
        """Halt partitions, on which more raises than does not. Raises AbandonedError."""
        self._metrics.add(m.INTERNAL_ERRORS, 1, "halted")
        self._report_error("most records raise an exception: their partition is halted", error)
        reason = f"internal errors: {error} on most records, see the log; mend the program"
        for partition in partitions:
            self._ownership.halt(partition, reason)
        raise AbandonedError(reason)

    def note(self, owned: Mapping[int, PartitionState], *, patient: bool) -> None:
        """Note what was found, before it becomes dead letters. Raises AbandonedError."""
        if not self._found:
            return
        offsets: dict[int, list[int]] = {}
        for partition, offset in self._found:
            offsets.setdefault(partition, []).append(offset)
        self._poison.exclude(offsets, owned, patient=patient)
        self._metrics.add(m.INTERNAL_ERRORS, len(self._found), "refused")
        for (partition, offset), error in self._found.items():
            self._report_error("a record raises an exception: it is refused", error, partition=partition, offset=offset)
        self._found = {}

    def _report_error(self, what: str, error: Exception, **where: int) -> None:
        """Log where an exception was raised: its own words may hold what a record holds."""
        frames = frames_of(error.__cause__ or error)
        key, now_s = f"{what} {frames}", self._clock.monotonic_s()
        if now_s < self._reported_s.get(key, -REPORTED_EVERY_S) + REPORTED_EVERY_S:
            return
        if len(self._reported_s) >= TRACEBACKS_MAX:
            self._reported_s.clear()
        self._reported_s[key] = now_s
        log.error(what, extra=fields(**where, error=str(error), traceback=frames))

    def survived(self, records: Records) -> None:
        """Note that a batch was published."""
        if self._lead:
            LeadInBatch(self._lead, records).finish()
        if self._encode_until:
            for partition, next_offset in records.next_offsets().items():
                if next_offset >= self._encode_until.get(partition, next_offset + 1):
                    del self._encode_until[partition]
