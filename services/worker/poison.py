"""Records that kill the process which decodes them: found after two deaths, and never decoded again.

A process that ends for good releases its partitions; the next owner of one that was not released is *careful* with it for as
many records as may have been under way: it takes small batches and notes in the grid, before each, what it is about to try.
A worker that finds such a note of a dead owner tries those records in a process of their own first, halving them until each
record that kills is found alone. It is noted in the grid, becomes a dead letter without being decoded, and the partition goes
on. Nothing of this costs anything while nobody dies.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Final, Protocol

import numpy as np

from services.core.columns import type_i64
from services.core.validation import Reject
from services.grid import Attempt, Grid, GridUnavailableError
from services.grid.base import PENDING_MAX
from services.runtime import catalogue as m
from services.runtime.logs import fields
from services.runtime.metrics import MetricsRegistry
from services.streams import Records
from services.worker.excluded import Excluded, excluded_of
from services.worker.outages import Outages
from services.worker.partition_state import PartitionState

log = logging.getLogger("proact.worker")

CAREFUL_BATCH: Final = 256
"""Records of a batch while a partition is looked at carefully: bounds the search, which is logarithmic."""


class Sandbox(Protocol):
    """A process of its own in which records are tried."""

    def survives(self, records: Records) -> bool:
        """Whether a process that decodes and decides on these records, and on nothing else, ends well."""
        ...


class PoisonDetector:
    """Knows which records one worker must not decode, and finds those that kill, on its thread."""

    def __init__(self, log: str, grid: Grid, sandbox: Sandbox, outages: Outages, metrics: MetricsRegistry) -> None:
        self._log, self._grid, self._sandbox, self._outages, self._metrics = log, grid, sandbox, outages, metrics
        self._careful_until: dict[int, int] = {}
        self._attempts: dict[int, tuple[tuple[int, int], ...]] = {}
        """By partition, the records (begin, end) that dead owners were at, as long as they are still to come."""
        self._excluded: dict[int, dict[int, Excluded]] = {}
        """By partition, of the records that are still to come, by offset, those that must not be decoded, and why."""
        self._unnoted: dict[int, set[int]] = {}
        """What is excluded for an exception, and the grid was not there to be informed."""

    def begin(
        self,
        owned: Mapping[int, PartitionState],
        batch_records_max: int,
        recalled: Mapping[int, Mapping[int, Excluded]],
    ) -> None:
        """Begin with what was taken over, and what dead letters say of what is folded again, by partition and offset."""
        self._excluded = {p: known for p, o in owned.items() if (known := self._to_come(p, o, recalled.get(p, {})))}
        self._unnoted = {p: offsets for p, offsets in self._unnoted.items() if p in owned}
        self._note_errors(owned, patient=False)
        died = {p: o for p, o in owned.items() if o.claim.died}
        self._careful_until = {p: max(o.start, o.published) + batch_records_max for p, o in died.items()}
        noted = {p: o.claim.attempt.ranges for p, o in died.items() if o.claim.attempt is not None}
        self._attempts = {p: left for p, ranges in noted.items() if (left := _beyond(ranges, owned[p].start))}

    @property
    def careful(self) -> bool:
        """Whether batches must be small."""
        return bool(self._careful_until)

    def _to_come(self, partition: int, owned: PartitionState, recalled: Mapping[int, Excluded]) -> dict[int, Excluded]:
        """Return what must not be decoded from where a partition begins; what this worker found itself need not be in its claim."""
        noted = excluded_of(owned.claim.poison, owned.claim.errors)
        known = {**recalled, **self._excluded.get(partition, {}), **noted}
        return {offset: why for offset, why in known.items() if offset >= owned.start}

    def screen(self, records: Records, owned: Mapping[int, PartitionState]) -> type_i64:
        """Return, of each record, the Reject if it must not be decoded, else NONE; note what is about to be tried. Raises AbandonedError."""
        if not self._careful_until and not self._excluded:
            return np.zeros(len(records), np.int64)
        for partition in np.unique(records.partition).tolist():
            rows = np.flatnonzero(records.partition == partition)
            if partition in self._attempts:
                offsets = records.offset[rows]
                for begin, end in self._attempts[partition]:
                    fresh = self._reasons(records)[rows] == Reject.NONE
                    self._search(records, rows[(offsets >= begin) & (offsets < end) & fresh], owned[partition])
            if partition in self._careful_until:
                self._note(owned[partition], self._attempted(partition, records.offset[rows]))
        reasons = self._reasons(records)
        self._note_recalled(records, reasons, owned)
        return reasons

    def _attempted(self, partition: int, offsets: type_i64) -> Attempt:
        """Return what is about to be tried, together with what killed before and is still to come: whoever takes over must know of both."""
        end = int(offsets[-1]) + 1
        pending = _beyond(self._attempts.get(partition, ()), end)
        return Attempt(int(offsets[0]), end, tuple(sorted(set(pending)))[-PENDING_MAX:])

    def _note_recalled(self, records: Records, reasons: type_i64, owned: Mapping[int, PartitionState]) -> None:
        """Note what dead letters said, now that it is known to be about these records. Raises AbandonedError."""
        for row in np.flatnonzero(reasons).tolist():
            partition, offset = int(records.partition[row]), int(records.offset[row])
            out = self._excluded[partition][offset]
            if out.timestamp_ms is None:
                continue
            self._excluded[partition][offset] = Excluded(out.why)
            if out.why == Reject.INTERNAL_ERROR:
                self._unnoted.setdefault(partition, set()).add(offset)
            else:
                note = partial(self._grid.note_poison, self._log, owned[partition].claim, offset)
                self._outages.wait_out("redis", note)
        self._note_errors(owned, patient=False)

    def _reasons(self, records: Records) -> type_i64:
        reasons = np.zeros(len(records), np.int64)
        for partition, known in self._excluded.items():
            here = (records.partition == partition) & np.isin(records.offset, list(known))
            for row in np.flatnonzero(here).tolist():
                out = known[int(records.offset[row])]
                reasons[row] = out.why if out.holds(int(records.timestamp_ms[row])) else Reject.NONE
        return reasons

    def exclude(
        self, errors: Mapping[int, Collection[int]], owned: Mapping[int, PartitionState], *, patient: bool
    ) -> None:
        """Leave records out, by partition their offsets, because they raise an exception; note them, or later if nobody waits for the grid.

        Raises AbandonedError.
        """
        for partition, offsets in errors.items():
            self._excluded.setdefault(partition, {}).update(excluded_of((), offsets))
            self._unnoted.setdefault(partition, set()).update(offsets)
        self._note_errors(owned, patient=patient)

    def _note_errors(self, owned: Mapping[int, PartitionState], *, patient: bool) -> None:
        for partition, offsets in list(self._unnoted.items()):
            note = partial(self._grid.note_errors, self._log, owned[partition].claim, offsets)
            try:
                self._outages.wait_out("redis", note) if patient else note()
            except GridUnavailableError:
                return
            del self._unnoted[partition]

    def _note(self, owned: PartitionState, attempt: Attempt | None) -> None:
        self._outages.wait_out("redis", lambda: self._grid.note_attempt(self._log, owned.claim, attempt))

    def _search(self, records: Records, rows: np.ndarray, owned: PartitionState) -> None:
        """Halve until every record that kills is found alone."""
        if not len(rows):
            return
        chosen = np.zeros(len(records), bool)
        chosen[rows] = True
        self._outages.keep_membership(0.0)
        if self._sandbox.survives(records.take(chosen)):
            return
        if len(rows) > 1:
            middle = len(rows) // 2
            self._search(records, rows[:middle], owned)
            self._search(records, rows[middle:], owned)
            return
        partition, offset = owned.claim.partition, int(records.offset[rows[0]])
        self._outages.wait_out("redis", lambda: self._grid.note_poison(self._log, owned.claim, offset))
        self._excluded.setdefault(partition, {})[offset] = Excluded(Reject.KILLS_DECODER)
        self._metrics.add(m.POISON_RECORDS)
        log.error("a record kills the process that decodes it", extra=fields(partition=partition, offset=offset))

    def survived(self, next_offsets: Mapping[int, int], owned: Mapping[int, PartitionState]) -> None:
        """Note that a batch went well; the care for a partition ends behind what may have been under way."""
        for partition, next_offset in next_offsets.items():
            if partition in self._excluded:
                self._pass_by(partition, next_offset)
            if partition in self._attempts:
                self._attempts[partition] = _beyond(self._attempts[partition], next_offset)
                if not self._attempts[partition]:
                    del self._attempts[partition]
            if partition in self._careful_until and next_offset >= self._careful_until[partition]:
                del self._careful_until[partition]
                self._note(owned[partition], None)

    def _pass_by(self, partition: int, next_offset: int) -> None:
        """Forget what lies behind: a batch costs the same however many records were left out before it."""
        known = {offset: why for offset, why in self._excluded.pop(partition).items() if offset >= next_offset}
        if known:
            self._excluded[partition] = known


def _beyond(ranges: Iterable[tuple[int, int]], offset: int) -> tuple[tuple[int, int], ...]:
    """Return the parts of ranges (begin, end) that lie at or behind an offset."""
    return tuple((max(begin, offset), end) for begin, end in ranges if end > offset)
