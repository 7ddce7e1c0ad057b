"""What a worker is given: whom it talks to, and what bounds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from services.grid import Grid
from services.runtime.clock import Clock
from services.streams import NoPlaceReader, PlaceReader, Publisher, Source
from services.streams.background import Background, ThreadBackground
from services.worker.excluded import Letters, NoDeadLetters
from services.worker.followers import Follower, NoFollower
from services.worker.outages import Outages
from services.worker.poison import Sandbox
from services.worker.write_behind import WriteBehindLimits


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What bounds one turn of the loop."""

    batch_records_max: int
    poll_timeout_s: float
    near_cache_bytes: int
    saving: WriteBehindLimits
    foreign_cache_bytes: int = 64 * 1024 * 1024
    breaker_share: float = 0.5


@dataclass(frozen=True, slots=True)
class Ports:
    """What a worker talks to."""

    source: Source
    publisher: Publisher
    grid: Grid
    clock: Clock
    sandbox: Callable[[Outages], Sandbox]
    """Makes a sandbox that shows the group signs of life by the given outages."""
    follower: Follower = field(default_factory=NoFollower)
    letters: Letters = field(default_factory=NoDeadLetters)
    places: PlaceReader = field(default_factory=NoPlaceReader)
    background: Callable[[], Background] = ThreadBackground
    """Makes what runs beside the worker's thread: one publishes, one saves."""
