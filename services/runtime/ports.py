"""What a worker is given: whom it talks to, and what bounds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from services.grid import Grid
from services.runtime.clock import Clock
from services.runtime.outages import Outages
from services.runtime.recalling import Letters, NoLetters
from services.runtime.suspects import Sandbox
from services.runtime.unsaved import SavingLimits
from services.runtime.upkeep import NoUpkeep, Upkeep
from services.streams import NoPlaceReader, PlaceReader, Publisher, Source
from services.streams.background import Background, ThreadBackground


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What bounds one turn of the loop."""

    batch_records_max: int
    poll_timeout_s: float
    near_cache_bytes: int
    saving: SavingLimits
    copies_bytes: int = 64 * 1024 * 1024
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
    upkeep: Upkeep = field(default_factory=NoUpkeep)
    letters: Letters = field(default_factory=NoLetters)
    places: PlaceReader = field(default_factory=NoPlaceReader)
    background: Callable[[], Background] = ThreadBackground
    """Makes what runs beside the worker's thread: one publishes, one saves."""
