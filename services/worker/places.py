"""What a batch points to in the logs of other topics: read, waited for while it may still come, for so long and no longer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from services.core.columns import type_bool, type_i64
from services.runtime.clock import Clock
from services.streams import AtPlaces, PlaceReader
from services.worker.outages import Outages
from services.worker.processor import NotYetError, Places, Prepared

PLACE_WAIT_MS: Final = 30_000
"""How long a record is waited for that a batch points to and that is not in its log yet, from the pointing record's Kafka timestamp on, and from
when it was first looked for: whichever is over first. So what is well-formed and points nowhere holds its neighbours up for no longer."""


class PlaceReading:
    """Reads for one worker, on its thread; remembers what the batch at hand points to, since it may be asked for again and again."""

    def __init__(self, reader: PlaceReader, outages: Outages, clock: Clock) -> None:
        self._reader, self._outages, self._clock = reader, outages, clock
        self._of: Prepared | None = None
        self._since_s = 0.0
        self._found: dict[str, AtPlaces] = {}

    def read(self, prepared: Prepared) -> Mapping[str, AtPlaces]:
        """Return by topic what lies at the places that a batch points to.

        Raises:
            NotYetError: something is not there yet, and has not been waited for long enough.
            AbandonedError: the batch is given up.
        """
        wanted = prepared.places
        if not wanted:
            return {}
        if prepared is not self._of:
            self._of, self._found, self._since_s = prepared, {}, self._clock.monotonic_s()
        for topic, places in wanted.items():
            found = self._found[topic] = self._ask(topic, places)
            waits = found.may_come & ~self._over(places)
            if waits.any():
                row = int(np.flatnonzero(waits)[0])
                where = f"{topic} {places.partition[row]}/{places.offset[row]}"
                raise NotYetError(f"{int(waits.sum())} records are not in the log yet, the first of {where}")
        return self._found

    def _over(self, places: Places) -> type_bool:
        """Whether each place has been waited for long enough."""
        if 1_000 * (self._clock.monotonic_s() - self._since_s) >= PLACE_WAIT_MS:
            return np.ones(len(places.since_ms), bool)
        return self._clock.now_ms() - places.since_ms >= PLACE_WAIT_MS

    def _ask(self, topic: str, places: Places) -> AtPlaces:
        """Return what is known of places, after another look at those where something may still come. Raises AbandonedError."""
        known = self._found.get(topic)
        if known is None:
            known = AtPlaces.nothing(len(places.offset))
            known.unread[:] = True
        rows = np.flatnonzero(known.unread | known.may_come)
        while len(rows):
            known.fill(rows, self._look(topic, places.partition[rows], places.offset[rows]))
            rows = np.flatnonzero(known.unread)
            if len(rows):
                self._outages.keep_membership(0.0)  # there may be very many, and the worker has a place in its group
        return known

    def _look(self, topic: str, partition: type_i64, offset: type_i64) -> AtPlaces:
        return self._outages.wait_out("kafka", lambda: self._reader.read(topic, partition, offset))
