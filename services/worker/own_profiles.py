"""The profiles of the partitions that a worker owns, as far as it knows them itself: kept ones, and those that the grid does not hold yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.grid.near_cache import NearCache
from services.runtime.clock import Clock
from services.worker.processor import Prepared
from services.worker.publishing import Batch
from services.worker.write_behind import WaitingProfiles, WriteBehindBuffer


class OwnProfiles:
    """What one worker knows, on its thread. What it knows is the newest: a batch is folded before the next one is decided."""

    def __init__(self, cache: NearCache, buffer: WriteBehindBuffer, clock: Clock) -> None:
        self._cache, self._buffer, self._clock = cache, buffer, clock

    def __len__(self) -> int:
        """How many are kept beside those that wait."""
        return len(self._cache)

    def get(self, prepared: Prepared) -> tuple[list[bytes | None], dict[int, list[int]]]:
        """Return the profiles of a batch's pairs, None where only the grid can know; and which these are, by partition."""
        profiles: list[bytes | None] = []
        for partition, pairs in prepared.stretches:
            profiles += self._cache.get(partition, prepared.cards[pairs])
        missing: dict[int, list[int]] = {}
        for i in [i for i, profile in enumerate(profiles) if profile is None] if None in profiles else ():
            profiles[i] = self._buffer.get(prepared.partitions[i], prepared.cards[i])
            if profiles[i] is None:
                missing.setdefault(prepared.partitions[i], []).append(i)
        return profiles, missing

    def keep(self, batch: Batch[Any, Any], offsets: Mapping[int, int]) -> None:
        """Keep what a batch folded, up to these offsets: what follows is decided from it, whether it is published and saved yet or not."""
        prepared, outcome = batch.prepared, batch.outcome
        counts, now_s = prepared.records.counts(), self._clock.monotonic_s()
        waiting: dict[int, WaitingProfiles] = {}
        for partition, offset in offsets.items():
            waiting[partition] = self._buffer.add(partition, counts[partition], now_s)
            waiting[partition].add(offset, {}, outcome.folded_until_ms.get(partition))
        for partition, pairs in prepared.stretches:
            folded = zip(prepared.cards[pairs], outcome.profiles[pairs], strict=True)
            changed = {card: profile for card, profile in folded if profile is not None}
            waiting[partition].add(offsets[partition], changed, None)
            self._cache.put(partition, changed)

    def pass_by(self, offsets: Mapping[int, int]) -> None:
        """Note that nothing was folded up to these offsets."""
        now_s = self._clock.monotonic_s()
        for partition, offset in offsets.items():
            self._buffer.add(partition, 0, now_s).add(offset, {}, None)

    def forget(self) -> None:
        """Forget what is kept: claims are taken again, or a write is in doubt. What waits is the writer's to forget."""
        self._cache.clear()
