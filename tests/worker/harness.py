"""Workers over the twins of Kafka and Redis in memory: the one place where tests assemble them, as the product does in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from services.grid.memory import GridMemory, MemoryGrid
from services.runtime.clock import ManualClock
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.streams import NoPlaceReader, PlaceReader, Publisher
from services.streams.atomic import AtomicPublisher
from services.streams.background import LateBackground, PromptBackground
from services.streams.memory import MemoryLog, MemorySource, direct
from services.streams.memory_publishers import MemoryAtomicProducer, MemoryPublisher
from services.worker.excluded import Letters, NoDeadLetters
from services.worker.loop import Worker
from services.worker.poison import Sandbox
from services.worker.ports import Ports, WorkerLimits
from services.worker.write_behind import EVERY_BATCH


class NoSandbox:
    """Nothing is suspected."""

    def survives(self, records: Any) -> bool:  # noqa: ARG002 - the signature of a sandbox
        return True


@dataclass(kw_only=True)
class Types:
    """Classes that a test may put others in the place of: a mutant, a twin that remembers."""

    worker: type[Worker[Any, Any]] = Worker
    source: type[MemorySource] = MemorySource
    grid: type[MemoryGrid] = MemoryGrid
    publisher: type[AtomicPublisher] = AtomicPublisher
    producer: type[MemoryAtomicProducer] = MemoryAtomicProducer


@dataclass(kw_only=True)
class Assembled:
    """A worker and those of its parts that tests look at."""

    worker: Worker[Any, Any]
    source: MemorySource
    health: Health
    metrics: MetricsRegistry


@dataclass(kw_only=True)
class MemoryWorkers:
    """Makes workers of one topic over one log, one grid and one clock, which outlive them."""

    log: MemoryLog
    grid: GridMemory
    clock: ManualClock
    topic: str
    guarantee: str = "exactly_once"
    limits: WorkerLimits = field(default_factory=lambda: WorkerLimits(16, 0.0, 10_000_000, EVERY_BATCH))
    sandbox: Sandbox = field(default_factory=NoSandbox)
    letters: Letters = field(default_factory=NoDeadLetters)
    places: PlaceReader = field(default_factory=NoPlaceReader)
    background: type[LateBackground] = PromptBackground
    types: Types = field(default_factory=Types)
    adapt: Callable[[Ports], Ports] = lambda ports: ports
    """Puts a service's own in the place of some ports, as :attr:`services.worker.assembling.Parts.adapt` does."""
    health: Health | None = None
    """That of all of them, where a test asks it what they say; each has its own otherwise."""
    metrics: MetricsRegistry | None = None
    """The same."""

    def new(self, processor: Any, process: str, name: str = "the-worker", wire: Any = direct) -> Assembled:
        """Return a worker, which owns nothing before the group gives it partitions.

        Args:
            processor: what it decides by.
            process: its name as a member of the group and a writer of the grid: another one each time that it is started.
            name: its transactional id, which stays.
            wire: what each request to Kafka and Redis goes through.
        """
        source = self.types.source(self.log, self.topic, process, wire)
        ports = Ports(
            source,
            self._publisher(source, name, wire),
            self.types.grid(self.grid, process, wire),
            self.clock,
            lambda _: self.sandbox,
            letters=self.letters,
            places=self.places,
            background=self.background,
        )
        health, metrics = self.health or Health(self.clock), self.metrics or MetricsRegistry()
        worker = self.types.worker(processor, self.adapt(ports), health, metrics, self.limits)
        return Assembled(worker=worker, source=source, health=health, metrics=metrics)

    def _publisher(self, source: MemorySource, name: str, wire: Callable[[str, Callable[[], Any]], Any]) -> Publisher:
        if self.guarantee != "exactly_once":
            return MemoryPublisher(self.log, source, wire)
        return self.types.publisher(
            name,
            lambda own: self.types.producer(self.log, source.topic, own, wire),
            source.group_metadata,
            self.clock.monotonic_s,
        )
