"""Records that kill the process which decodes them: found after two deaths, and never decoded again.

A process that ends for good releases its partitions; the next owner of one that was not released is *careful* with it for as
many records as may have been under way: it takes small batches and notes in the grid, before each, what it is about to try.
A worker that finds such a note of a dead owner tries those records in a process of their own first, halving them until each
record that kills is found alone. It is noted in the grid, becomes a dead letter without being decoded, and the partition goes
on. Nothing of this costs anything while nobody dies.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, Protocol

import numpy as np

from services.core.columns import type_bool
from services.grid import Attempt, Grid
from services.runtime import catalogue as m
from services.runtime.logs import fields
from services.runtime.metrics import MetricsRegistry
from services.runtime.outages import Outages
from services.runtime.ownership import Owned
from services.streams import Records

log = logging.getLogger("proact.worker")

CAREFUL_BATCH: Final = 256
"""Records of a batch while a partition is looked at carefully: bounds the search, which is logarithmic."""


class Sandbox(Protocol):
    """A process of its own in which records are tried."""

    def survives(self, records: Records) -> bool:
        """Whether a process that decodes and decides on these records, and on nothing else, ends well."""
        ...


class Suspects:
    """Finds killers for one worker, on its thread."""

    def __init__(self, topic: str, grid: Grid, sandbox: Sandbox, outages: Outages, metrics: MetricsRegistry) -> None:
        self._topic, self._grid, self._sandbox, self._outages, self._metrics = topic, grid, sandbox, outages, metrics
        self._careful_until: dict[int, int] = {}
        self._attempt: dict[int, Attempt] = {}
        self._killers: dict[int, set[int]] = {}

    def begin(self, owned: Mapping[int, Owned], batch_records_max: int) -> None:
        """Begin with what was taken over."""
        self._killers = {p: set(o.claim.killers) for p, o in owned.items() if o.claim.killers}
        died = {p: o for p, o in owned.items() if o.claim.died}
        self._careful_until = {p: max(o.start, o.published) + batch_records_max for p, o in died.items()}
        self._attempt = {
            p: o.claim.attempt for p, o in died.items() if o.claim.attempt is not None and o.claim.attempt.end > o.start
        }

    @property
    def careful(self) -> bool:
        """Whether batches must be small."""
        return bool(self._careful_until)

    def screen(self, records: Records, owned: Mapping[int, Owned]) -> type_bool:
        """Return which records must not be decoded; note what is about to be tried. Raises AbandonedError."""
        if not self._careful_until and not self._killers:
            return np.zeros(len(records), bool)
        for partition in np.unique(records.partition).tolist():
            rows = np.flatnonzero(records.partition == partition)
            if partition in self._attempt:
                attempt = self._attempt[partition]
                offsets = records.offset[rows]
                tried = rows[(offsets >= attempt.begin) & (offsets < attempt.end) & ~self._known(records, rows)]
                self._search(records, tried, owned[partition])
            if partition in self._careful_until:
                attempt = Attempt(int(records.offset[rows[0]]), int(records.offset[rows[-1]]) + 1)
                self._note(owned[partition], attempt)
        return self._known(records, np.arange(len(records)))

    def _known(self, records: Records, rows: np.ndarray) -> type_bool:
        found = np.zeros(len(rows), bool)
        for partition, offsets in self._killers.items():
            found |= (records.partition[rows] == partition) & np.isin(records.offset[rows], list(offsets))
        return found

    def _note(self, owned: Owned, attempt: Attempt | None) -> None:
        self._outages.wait_out("redis", lambda: self._grid.note_attempt(self._topic, owned.claim, attempt))

    def _search(self, records: Records, rows: np.ndarray, owned: Owned) -> None:
        """Halve until every record that kills is found alone."""
        if not len(rows):
            return
        chosen = np.zeros(len(records), bool)
        chosen[rows] = True
        self._outages.stay(0.0)
        if self._sandbox.survives(records.take(chosen)):
            return
        if len(rows) > 1:
            middle = len(rows) // 2
            self._search(records, rows[:middle], owned)
            self._search(records, rows[middle:], owned)
            return
        partition, offset = owned.claim.partition, int(records.offset[rows[0]])
        self._outages.wait_out("redis", lambda: self._grid.note_killer(self._topic, owned.claim, offset))
        self._killers.setdefault(partition, set()).add(offset)
        self._metrics.add(m.KILLERS)
        log.error("a record kills the process that decodes it", extra=fields(partition=partition, offset=offset))

    def survived(self, next_offsets: Mapping[int, int], owned: Mapping[int, Owned]) -> None:
        """Note that a batch went well; the care for a partition ends behind what may have been under way."""
        for partition, next_offset in next_offsets.items():
            attempt = self._attempt.get(partition)
            if attempt is not None and next_offset >= attempt.end:
                del self._attempt[partition]
            if partition in self._careful_until and next_offset >= self._careful_until[partition]:
                del self._careful_until[partition]
                self._note(owned[partition], None)
