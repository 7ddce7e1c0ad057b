"""What happens to a batch once it is decided: it is published, it counts, and what was folded is saved; beside the next one.

One batch is in the air at a time. The next one is decided meanwhile, from profiles that hold the one in the air, but nothing of it goes out
before that one has landed; where it does not land, both are given up, and what they folded with them. So Kafka sees batches one after the
other, each whole, and the grid only what Kafka has committed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic

from services.core.immutable import immutable
from services.runtime import catalogue as m
from services.runtime.clock import Clock
from services.runtime.deciding import Deciding
from services.runtime.logs import fields
from services.runtime.outages import AbandonedError, Outages
from services.runtime.processor import P, ProcessingError, R
from services.runtime.reading import Reading
from services.runtime.saving import Saving, Shore
from services.runtime.unsaved import Part, Unsaved
from services.streams import Publication, StreamsError, publish_now

log = logging.getLogger("proact.worker")


@immutable
class Batch(Generic[P, R]):
    """A batch that was decided."""

    prepared: P
    outcome: R
    now_ms: int
    begun_s: float
    """The monotonic time of ``now_ms``."""


@dataclass(slots=True)
class _Flight(Generic[P, R]):
    """A batch that is being published, which happens beside the worker's thread."""

    batch: Batch[P, R]
    offsets: Mapping[int, int]
    publication: Publication | None
    clock: Clock
    begun_s: float
    published_s: float = 0.0

    def __call__(self) -> None:
        if self.publication is not None:
            self.publication()
        self.published_s = self.clock.monotonic_s()


class Finishing(Generic[P, R]):
    """Finishes batches for one worker, on its thread."""

    def __init__(
        self, shore: Shore, saving: Saving, unsaved: Unsaved, deciding: Deciding[P, R], reading: Reading, *,
        outages: Outages, landed: Callable[[Batch[P, R], int], None],
    ) -> None:  # fmt: skip
        """Finish batches; ``landed`` is told of each one, and when it was published."""
        self._shore, self._saving, self._unsaved = shore, saving, unsaved
        self._deciding, self._reading, self._outages, self._landed = deciding, reading, outages, landed
        self._flight: _Flight[P, R] | None = None
        self._flight_s = self._deciding_s = 0.0
        """How long a batch takes to publish, and to be decided, of late."""

    @property
    def flying(self) -> bool:
        """Whether a batch is in the air."""
        return self._flight is not None

    def linger(self) -> None:
        """Wait until it is time to decide on the next batch, so that it is decided when this one lands, and holds all that came until then."""
        if self._flight is not None:
            now_s = self._shore.clock.monotonic_s()
            self._shore.publishing.wait(self._flight.begun_s + self._flight_s - self._deciding_s - now_s)

    def launch(self, batch: Batch[P, R]) -> None:
        """Send a decided batch on its way, when the one before has landed.

        Raises:
            StreamsError: one of the two is in doubt.
            ProcessingError: one of the two cannot be encoded.
            AbandonedError: the grid does not take what it was to write.
        """
        clock, records = self._shore.clock, batch.prepared.records
        self._deciding_s = _smoothed(self._deciding_s, clock.monotonic_s() - batch.begun_s)
        self._rest()
        owned, offsets = self._reading.owned, records.next_offsets()
        ahead = {p: offset for p, offset in offsets.items() if offset > owned[p].published}
        publication = self._shore.publisher.publish(batch.outcome.outputs, ahead) if ahead else None
        self._keep(batch, offsets)
        flight = _Flight(batch, ahead, publication, clock, clock.monotonic_s())
        if publication is None:
            flight()
            self._published(flight)
        else:
            self._flight = flight
            self._shore.publishing.start(flight)

    def rest(self) -> None:
        """Do what is left to do where there are no records: land, and save what is due. Raises as :meth:`launch` does."""
        self._rest()
        self.written()

    def written(self) -> None:
        """Wait until nothing is being written to the grid; a batch may be in the air, since nothing of it is. Raises as :meth:`launch` does."""
        self._settle(self._saving.join())

    def _rest(self) -> None:
        self._join()
        self._saving.behind = self._deciding.behind
        self._settle(self._saving.go_on())

    def _settle(self, away: Exception | None) -> None:
        """Wait for a grid that was away for a write, or go on without it."""
        if away is None:
            return
        if self._deciding.without_profiles is None:
            self._saving.repeat(self._outages)
        else:
            self._deciding.leave_behind(away)
            self._saving.forget()

    def pass_by(self, offsets: Mapping[int, int]) -> None:
        """Commit offsets behind which nothing was read, such as the marks of atomic commits. Raises StreamsError."""
        publish_now(self._shore.publisher, [], offsets)
        for partition, offset in offsets.items():
            self._reading.owned[partition].published = offset
            self._unsaved.add(partition, offset, 0, self._shore.clock.monotonic_s())

    def drop(self) -> None:
        """Bring to an end what is under way, whatever comes of it, and forget what was folded: it is read anew from Kafka and the grid."""
        try:
            self._join()
        except (StreamsError, AbandonedError, ProcessingError) as error:
            log.debug("a batch is given up", extra=fields(error=str(error)))
        self._saving.forget()

    def save_all(self, *, confirmed: bool) -> None:
        """Land, and write all that waits: partitions are about to be given back. What cannot be written is folded by whoever gets them.

        Waits for no outage, and calls no source: the group may ask for the partitions within any call of it, even one that waits for the grid.

        Args:
            confirmed: False where offsets cannot be committed; then only those count that are already.
        """
        try:
            self._join()
            if confirmed:
                self._saving.confirm()
            self._saving.behind = self._deciding.behind
            if confirmed or self._shore.publisher.confirmed:
                self._saving.save_all()
        except (StreamsError, AbandonedError, ProcessingError) as error:
            log.debug("a batch is given up", extra=fields(error=str(error)))
        self.drop()

    def _join(self) -> None:
        flight, self._flight = self._flight, None
        if flight is not None:
            self._shore.publishing.join()
            self._published(flight)

    def _published(self, flight: _Flight[P, R]) -> None:
        batch, took_s = flight.batch, flight.published_s - flight.begun_s
        for partition, offset in flight.offsets.items():
            if partition in self._reading.owned:
                self._reading.owned[partition].published = offset
        self._flight_s = _smoothed(self._flight_s, took_s)
        self._shore.metrics.observe(m.STAGE_SECONDS, took_s, "publish")
        self._landed(batch, batch.now_ms + round(1000 * (flight.published_s - batch.begun_s)))

    def _keep(self, batch: Batch[P, R], offsets: Mapping[int, int]) -> None:
        """Note what a batch folded, for the next one to be decided from and for the grid."""
        prepared, outcome = batch.prepared, batch.outcome
        parts: dict[int, Part] = {}
        counts, now_s = prepared.records.counts(), self._shore.clock.monotonic_s()
        for partition, offset in offsets.items():
            part = parts[partition] = self._unsaved.add(partition, offset, counts[partition], now_s)
            if (until_ms := outcome.folded_until_ms.get(partition)) is not None:
                part.folded_until_ms = max(until_ms, part.folded_until_ms or until_ms)
        for partition, pairs in prepared.stretches:
            folded = zip(prepared.cards[pairs], outcome.profiles[pairs], strict=True)
            changed = {card: profile for card, profile in folded if profile is not None}
            parts[partition].profiles |= changed
            self._reading.keep(partition, changed)


def _smoothed(before: float, now: float) -> float:
    return 0.8 * before + 0.2 * now
