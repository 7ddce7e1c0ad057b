"""What happens to a batch once it is decided: it is published, it counts, and what was folded is saved; beside the next one.

One batch is in the air at a time. The next one is decided meanwhile, from profiles that hold the one in the air, but nothing of it goes out
before that one has landed; where it does not land, both are given up, and what they folded with them. So Kafka sees batches one after the
other, each whole, and the grid only what Kafka has committed.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from services.grid import Applied, Grid, GridUnavailableError, GridWrite
from services.runtime import catalogue as m
from services.runtime.background import Background
from services.runtime.clock import Clock
from services.runtime.deciding import Deciding
from services.runtime.logs import fields
from services.runtime.metrics import MetricsRegistry
from services.runtime.outages import AbandonedError, Outages
from services.runtime.ownership import Ownership
from services.runtime.processor import P, R
from services.runtime.reading import Reading
from services.runtime.unsaved import Unsaved
from services.streams import Publication, Publisher, StreamsError

log = logging.getLogger("proact.worker")


@dataclass(slots=True)
class Job:
    """What is done beside the worker's thread: the waiting."""

    publication: Publication | None
    topic: str
    writes: Sequence[GridWrite]
    grid: Grid
    clock: Clock
    begun_s: float
    published_s: float = 0.0
    ended_s: float = 0.0
    answers: Sequence[Applied] = ()
    away: GridUnavailableError | None = None

    def __call__(self) -> None:
        """Publish, and write what was due. Raises StreamsError."""
        if self.publication is not None:
            self.publication()
        self.published_s = self.clock.monotonic_s()
        if self.writes:
            try:
                self.answers = self.grid.apply(self.topic, self.writes)
            except GridUnavailableError as error:
                self.away = error
        self.ended_s = self.clock.monotonic_s()


@dataclass(frozen=True, slots=True)
class Batch(Generic[P, R]):
    """A batch that was decided."""

    prepared: P
    outcome: R
    now_ms: int
    begun_s: float
    """The monotonic time of ``now_ms``."""


@dataclass(frozen=True, slots=True)
class _Flight(Generic[P, R]):
    job: Job
    batch: Batch[P, R] | None
    offsets: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Shore:
    """What batches are finished with."""

    publisher: Publisher
    grid: Grid
    background: Background
    clock: Clock
    metrics: MetricsRegistry


class Finishing(Generic[P, R]):
    """Finishes batches for one worker, on its thread."""

    def __init__(
        self, topic: str, shore: Shore, deciding: Deciding[P, R], reading: Reading, unsaved: Unsaved, *,
        ownership: Ownership, outages: Outages, announces: bool, landed: Callable[[Batch[P, R], int], None],
    ) -> None:  # fmt: skip
        """Finish the batches of a topic; ``landed`` is told of each one, and when it was published."""
        self._topic, self._shore, self._deciding, self._reading, self._unsaved = (
            topic,
            shore,
            deciding,
            reading,
            unsaved,
        )
        self._ownership, self._outages, self._announces, self._landed = ownership, outages, announces, landed
        self._flight: _Flight[P, R] | None = None

    @property
    def flying(self) -> bool:
        """Whether a batch is in the air."""
        return self._flight is not None

    def launch(self, batch: Batch[P, R]) -> None:
        """Send a decided batch on its way, when the one before has landed.

        Raises:
            StreamsError: one of the two is in doubt.
            AbandonedError: the grid does not take what the one before had it write.
        """
        self.land()
        owned, offsets = self._ownership.owned, batch.prepared.records.next_offsets()
        ahead = {p: offset for p, offset in offsets.items() if offset > owned[p].published}
        writes = self._due()
        publication = self._shore.publisher.publish(batch.outcome.outputs, ahead) if ahead else None
        self._keep(batch, offsets)
        self._start(publication, writes, batch, ahead)

    def rest(self) -> None:
        """Do what is left to do where there are no records: land, and save what is due. Raises as :meth:`launch` does."""
        self.land()
        writes = self._due()
        if writes:
            self._start(None, writes, None, {})

    def land(self) -> None:
        """Wait for the batch in the air, if there is one. Raises as :meth:`launch` does."""
        job = self._join()
        if job is not None:
            if job.away is not None and self._deciding.without_profiles is None:
                job.answers = self._outages.wait_out("redis", lambda: self._shore.grid.apply(self._topic, job.writes))
                job.away = None
            self._saved(job)

    def _join(self) -> Job | None:
        flight, self._flight = self._flight, None
        if flight is None:
            return None
        self._shore.background.join()
        self._published(flight)
        return flight.job

    def pass_by(self, offsets: Mapping[int, int]) -> None:
        """Commit offsets behind which nothing was read, such as the marks of atomic commits. Raises StreamsError."""
        publication = self._shore.publisher.publish([], offsets)
        if publication is not None:
            publication()
        for partition, offset in offsets.items():
            self._ownership.owned[partition].published = offset
            self._unsaved.add(partition, offset, self._shore.clock.monotonic_s())

    def drop(self) -> None:
        """Bring to an end what is under way, whatever comes of it, and forget what was folded: it is read anew from Kafka and the grid."""
        try:
            self._join()
        except (StreamsError, AbandonedError) as error:
            log.debug("a batch is given up", extra=fields(error=str(error)))
        self._unsaved.clear()

    def save_all(self, *, confirmed: bool) -> None:
        """Land, and write all that waits: partitions are about to be given back. What cannot be written is folded by whoever gets them.

        Waits for no outage, and calls no source: the group may ask for the partitions within any call of it, even one that waits for the grid.

        Args:
            confirmed: False where offsets cannot be committed; then only those count that are already.
        """
        try:
            job = self._join()
            if job is not None:
                self._saved(job)
            if confirmed:
                self._confirm()
            if self._unsaved and not self._unsaved.in_doubt and (confirmed or self._shore.publisher.confirms_itself):
                self._start(None, self._writes(self._unsaved.partitions), None, {})
                self._saved(self._join())
        except (StreamsError, AbandonedError) as error:
            log.debug("a batch is given up", extra=fields(error=str(error)))
        self.drop()

    # -- publishing --------------------------------------------------------------------------------------------------

    def _start(
        self, publication: Publication | None, writes: Sequence[GridWrite], batch: Batch[P, R] | None, offsets: Any
    ) -> None:
        shore = self._shore
        job = Job(publication, self._topic, writes, shore.grid, shore.clock, shore.clock.monotonic_s())
        flight = _Flight(job, batch, offsets)
        if publication is None and not writes:
            job()
            self._published(flight)
            return
        self._flight = flight
        shore.background.start(job)

    def _published(self, flight: _Flight[P, R]) -> None:
        job, batch = flight.job, flight.batch
        for partition, offset in flight.offsets.items():
            if partition in self._ownership.owned:
                self._ownership.owned[partition].published = offset
        if batch is not None:
            self._shore.metrics.observe(m.STAGE_SECONDS, job.published_s - job.begun_s, "publish")
            self._landed(batch, batch.now_ms + round(1000 * (job.published_s - batch.begun_s)))

    # -- saving ------------------------------------------------------------------------------------------------------

    def _keep(self, batch: Batch[P, R], offsets: Mapping[int, int]) -> None:
        """Note what a batch folded, for the next one to be decided from and for the grid."""
        changed: defaultdict[int, dict[bytes, bytes]] = defaultdict(dict)
        prepared, outcome = batch.prepared, batch.outcome
        for partition, card, profile in zip(prepared.partitions, prepared.cards, outcome.profiles, strict=True):
            if profile is not None:
                changed[partition][card] = profile
        counts = prepared.records.counts()
        for partition, offset in offsets.items():
            part = self._unsaved.add(partition, offset, self._shore.clock.monotonic_s())
            part.records += counts[partition]
            if (until_ms := outcome.folded_until_ms.get(partition)) is not None:
                part.folded_until_ms = max(until_ms, part.folded_until_ms or until_ms)
            if partition in changed:
                part.profiles |= changed[partition]
                self._reading.keep(partition, changed[partition])

    def _due(self) -> Sequence[GridWrite]:
        partitions = self._unsaved.due(self._shore.clock.monotonic_s())
        if partitions:
            self._confirm()
        return self._writes(partitions)

    def _confirm(self) -> None:
        self._shore.publisher.confirm({p: owned.published for p, owned in self._ownership.owned.items()})

    def _writes(self, partitions: list[int]) -> list[GridWrite]:
        if self._deciding.behind:
            self._unsaved.clear()  # the grid lacks what lies before: it is folded at the next take-over
            return []
        if not partitions:
            return []
        parts, owned = self._unsaved.take(partitions), self._ownership.owned
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
            for p, part in parts.items()
        ]

    def _saved(self, job: Job | None) -> None:
        """Take what the grid answered, if it did."""
        if job is None or not job.writes:
            return
        if job.away is not None:
            if self._deciding.without_profiles is not None:
                self._deciding.leave_behind(job.away)
            return
        for write, answer in zip(job.writes, job.answers, strict=True):
            partition = write.claim.partition
            if answer is not Applied.APPLIED:
                raise AbandonedError(f"the grid refused the profiles of partition {partition}: {answer.value}")
            self._ownership.owned[partition].applied = write.target
        self._unsaved.saved()
        self._shore.metrics.observe(m.STAGE_SECONDS, job.ended_s - job.published_s, "apply")
