"""What one worker looks up of other services' profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.grid import Grid, GridUnavailableError
from services.streams import Source
from services.worker.lookups import ForeignCache, LookupPlan
from services.worker.outages import Outages
from services.worker.processor import LookedUp, Prepared


class ForeignProfiles:
    """Looks up, on the worker's thread; a decision never waits for what does not come in time."""

    def __init__(self, topics: Sequence[str], grid: Grid, copies: ForeignCache) -> None:
        self._topics, self._grid, self._foreign_cache = topics, grid, copies
        self._partitions: dict[str, int] = {}
        """How many each topic has."""
        self._missed = ""

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._foreign_cache)

    @property
    def missed(self) -> str:
        """Why they did not come in time, the last time that they did not."""
        return self._missed

    def begin(self, source: Source, outages: Outages) -> None:
        """Ask Kafka how many partitions the topics have that they are of. Raises AbandonedError."""
        count = lambda: {topic: source.partition_count(topic) for topic in self._topics}  # noqa: E731
        self._partitions = outages.wait_out("kafka", count)

    def plan(self, prepared: Prepared, *, wanted: bool) -> LookupPlan:
        """Return what is to be looked up for a batch: nothing unless it is wanted."""
        keys = prepared.lookups if wanted else {}
        return LookupPlan(keys, self._partitions, self._foreign_cache, prepared.lookup_partitions)

    def finish(self, plan: LookupPlan) -> Mapping[str, LookedUp] | None:
        """Ask for what a plan still lacks, and return what was found; None where it did not come in time."""
        try:
            while lookups := plan.lookups:
                plan.take(self._grid.look_up(lookups))
        except GridUnavailableError as error:
            self.miss(error)
            return None
        return plan.found

    def miss(self, error: Exception) -> None:
        """Note why they did not come in time."""
        self._missed = str(error)
