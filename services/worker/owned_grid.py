"""The grid as the owner of partitions sees it: every read proves that it holds what was written to it, every write is compared with what it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.grid import Applied, Grid, GridAnswer, GridRead, GridWrite, Lookup
from services.worker.outages import AbandonedError, Outages
from services.worker.partition_state import Partitions
from services.worker.processor import Processor
from services.worker.write_behind import WaitingProfiles

WantedCards = Mapping[int, Sequence[bytes]]
"""By owned partition, the cards whose profiles are asked for."""


class OwnedGrid:
    """Asks by the claims of one worker's partitions.

    On the worker's thread, but for :meth:`apply`, which any one thread may call at a time. The state of a partition says what the grid is
    expected to hold: :meth:`begin` and :meth:`end` around a write are what moves it.
    """

    def __init__(self, processor: Processor[Any, Any], grid: Grid, partitions: Partitions, outages: Outages) -> None:
        self._log, self._announces, self._seed = processor.log, processor.announces, processor.seed
        self._grid, self._partitions, self._outages = grid, partitions, outages

    @property
    def stale(self) -> bool:
        """Whether the grid lacks what is committed: nothing is written to it until the partitions are taken over again."""
        return self._partitions.stale

    @property
    def needed(self) -> bool:
        """Whether it is waited for where it is away."""
        return self._outages.needs_grid

    def fall_behind(self, error: Exception) -> None:
        """Go on without it."""
        self._partitions.fall_behind(error)

    def seed(self, partition: int) -> bytes | None:
        """Return what stands for the profile of a card that is not there: None, but where the log was short when the fold began."""
        begins_ms = self._partitions.owned[partition].claim.begins_ms
        return None if begins_ms is None else self._seed(begins_ms)

    def read(self, wanted: WantedCards, lookups: Sequence[Lookup]) -> GridAnswer:
        """Return profiles, waiting the grid's outages out. Raises GridMovedError, AbandonedError."""
        return self._outages.wait_out("redis", lambda: self.ask(wanted, lookups, with_deadline=False))

    def ask(self, wanted: WantedCards, lookups: Sequence[Lookup], *, with_deadline: bool) -> GridAnswer:
        """Do the same and wait for nothing. Raises GridMovedError, GridUnavailableError."""
        owned = self._partitions.owned
        reads = [GridRead(owned[p].claim, owned[p].applied, cards) for p, cards in wanted.items()]
        return self._grid.read(self._log, reads, lookups, with_deadline=with_deadline)

    def holds_all(self, *, with_deadline: bool) -> None:
        """Ask whether it holds what was written to it, of every partition. Raises GridMovedError, GridUnavailableError."""
        self.ask(dict.fromkeys(self._partitions.owned, ()), [], with_deadline=with_deadline)

    def begin(self, waiting: Mapping[int, WaitingProfiles]) -> list[GridWrite]:
        """Return the writes of what waits, and note that they are handed over: one set at a time."""
        writes = []
        for partition, part in waiting.items():
            state = self._partitions.owned[partition]
            state.save(part.target)
            writes.append(
                GridWrite(
                    state.claim,
                    state.applied,
                    part.target,
                    list(part.profiles),
                    list(part.profiles.values()),
                    part.folded_until_ms,
                    self._announces,
                )
            )
        return writes

    def apply(self, writes: Sequence[GridWrite]) -> Sequence[Applied]:
        """Write; the same writes may be repeated. Raises GridUnavailableError: it may have happened."""
        return self._grid.apply(self._log, writes)

    def apply_patiently(self, writes: Sequence[GridWrite]) -> Sequence[Applied]:
        """Do the same, waiting the grid's outages out. Raises AbandonedError."""
        return self._outages.wait_out("redis", lambda: self.apply(writes))

    def end(self, writes: Sequence[GridWrite], answers: Sequence[Applied]) -> None:
        """Note what the grid said. Raises AbandonedError: it refused one."""
        for write, answer in zip(writes, answers, strict=True):
            partition = write.claim.partition
            if answer is not Applied.APPLIED:
                raise AbandonedError(f"the grid refused the profiles of partition {partition}: {answer.value}")
            self._partitions.owned[partition].apply()
