"""What is decided is published beside the decisions on the next batch.

One batch is in flight at a time. The next one is decided meanwhile, from profiles that hold the one in flight, but nothing of it goes out
before that one is published; where it cannot be, both are given up, and what they folded with them. So Kafka sees batches one after the
other, each whole, and the grid only what Kafka has committed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic

from services.core.immutable import immutable
from services.runtime.clock import Clock
from services.streams import Publication, Publisher, publish_now
from services.streams.background import Background
from services.worker.partition_state import Partitions
from services.worker.processor import P, R
from services.worker.stages import Stages


@immutable
class Batch(Generic[P, R]):
    """A batch that was decided."""

    prepared: P
    outcome: R
    now_ms: int
    begun_s: float
    """The monotonic time of ``now_ms``."""
    decided_s: float
    """When it was decided."""


@dataclass(slots=True)
class _InFlight(Generic[P, R]):
    """A batch that is being published: called once, on the background's thread; read on the worker's when it has been joined."""

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


class PublishPipeline(Generic[P, R]):
    """Publishes decided batches, one at a time, each beside the decisions on the next.

    Who calls: the worker's thread, everything, by way of :class:`services.worker.completing.BatchCompletion`. Only the call that waits for Kafka
    runs on the background's thread; it may encode the outputs, so nothing may encode beside it (:meth:`join` first).
    In what order: :meth:`pace` before a poll; :meth:`join`, then :meth:`submit`, for each batch, in the order of the log.
    ``on_published`` is called within the next :meth:`join` (or within :meth:`submit`, where there is nothing to wait for), once a batch.
    What may fail: :meth:`join` raises what publishing raised: StreamsError where it is in doubt, ProcessingError where the outputs cannot be encoded.
    What a repeat means: nothing is published again from here. After an error nothing is in flight, a further :meth:`join` does nothing, and the
    partitions are taken over again: the committed offset says whether the batch was published.
    """

    def __init__(
        self,
        publisher: Publisher,
        background: Background,
        partitions: Partitions,
        stages: Stages,
        on_published: Callable[[Batch[P, R], int], None],
    ) -> None:
        """Publish; ``on_published`` is called for each batch, with the time in epoch milliseconds at which it was published."""
        self._publisher, self._background, self._partitions, self._stages = publisher, background, partitions, stages
        self._on_published = on_published
        self._in_flight: _InFlight[P, R] | None = None
        self._publishing_s = self._deciding_s = 0.0
        """How long a batch takes to publish, and to be decided, of late."""

    @property
    def in_flight(self) -> bool:
        """Whether a batch is being published."""
        return self._in_flight is not None

    def pace(self) -> None:
        """Wait until it is time to decide on the next batch: then it is decided when this one is published, and holds all that came until then."""
        if self._in_flight is not None:
            now_s = self._stages.clock.monotonic_s()
            self._background.wait(self._in_flight.begun_s + self._publishing_s - self._deciding_s - now_s)

    def submit(self, batch: Batch[P, R], offsets: Mapping[int, int]) -> None:
        """Begin to publish a batch, whose records end before these offsets; none is in flight. Raises StreamsError, ProcessingError."""
        assert self._in_flight is None, "one batch at a time"
        clock, owned = self._stages.clock, self._partitions.owned
        self._deciding_s = _smoothed(self._deciding_s, batch.decided_s - batch.begun_s)
        ahead = {p: offset for p, offset in offsets.items() if offset > owned[p].published}
        publication = self._publisher.publish(batch.outcome.outputs, ahead) if ahead else None
        begun = _InFlight(batch, ahead, publication, clock, clock.monotonic_s())
        if publication is None:
            begun()
            self._end(begun)
        else:
            self._in_flight = begun
            self._background.start(begun)

    def join(self) -> None:
        """Wait until nothing is in flight. Raises StreamsError, ProcessingError: see above."""
        begun, self._in_flight = self._in_flight, None
        if begun is not None:
            self._background.join()
            self._end(begun)

    def pass_by(self, offsets: Mapping[int, int]) -> None:
        """Commit offsets behind which nothing was read, such as the marks of atomic commits; nothing is in flight. Raises StreamsError."""
        publish_now(self._publisher, [], offsets)
        self._note_published(offsets)

    def confirm(self) -> None:
        """Have Kafka commit all that was published. Raises StreamsError: whether it has is in doubt."""
        self._publisher.confirm({p: state.published for p, state in self._partitions.owned.items()})
        self._note_committed()

    def confirmed(self) -> bool:
        """Say whether Kafka has committed all that was published, without asking it."""
        if self._publisher.confirmed:
            self._note_committed()
        return self._publisher.confirmed

    def _note_committed(self) -> None:
        for state in self._partitions.owned.values():
            state.commit()

    def _note_published(self, offsets: Mapping[int, int]) -> None:
        owned = self._partitions.owned
        for partition, offset in offsets.items():
            if partition in owned:
                owned[partition].publish(offset)

    def _end(self, begun: _InFlight[P, R]) -> None:
        batch, took_s = begun.batch, begun.published_s - begun.begun_s
        self._note_published(begun.offsets)
        self._publishing_s = _smoothed(self._publishing_s, took_s)
        self._stages.took("publish", took_s)
        self._on_published(batch, batch.now_ms + round(1000 * (begun.published_s - batch.begun_s)))


def _smoothed(before: float, now: float) -> float:
    return 0.8 * before + 0.2 * now
