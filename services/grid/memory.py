"""A grid in memory: the twin of Redis for unit tests, under the same contract suite."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.grid.base import Applied, Claim, GridUnavailableError, GridWrite, RefusedClaimError


@dataclass(slots=True)
class _Meta:
    topic_id: str
    layout: int
    owner: str = ""
    epoch: int = 0
    applied: int | None = None


@dataclass(slots=True)
class MemoryGrid:
    """See :class:`services.grid.Grid` for the protocol. ``available`` False is an outage."""

    available: bool = True
    metas: dict[tuple[str, int], _Meta] = field(default_factory=dict)
    profiles: dict[tuple[str, int, bytes], bytes] = field(default_factory=dict)

    def claim(self, topic: str, partition: int, topic_id: str, layout: int) -> Claim:
        """See :class:`services.grid.Grid`."""
        self.check()
        meta = self.metas.setdefault((topic, partition), _Meta(topic_id, layout))
        if (meta.topic_id, meta.layout) != (topic_id, layout):
            raise RefusedClaimError(f"the grid holds topic id {meta.topic_id}, layout {meta.layout}")
        if meta.applied is None:
            self.profiles = {key: v for key, v in self.profiles.items() if key[:2] != (topic, partition)}
        meta.owner, meta.epoch = uuid.uuid4().hex, meta.epoch + 1
        return Claim(partition, meta.owner, meta.epoch, meta.applied)

    def read(self, topic: str, partitions: Sequence[int], cards: Sequence[bytes]) -> list[bytes | None]:
        """See :class:`services.grid.Grid`."""
        self.check()
        return [self.profiles.get((topic, p, card)) for p, card in zip(partitions, cards, strict=True)]

    def apply(self, topic: str, writes: Sequence[GridWrite]) -> list[Applied]:
        """See :class:`services.grid.Grid`."""
        self.check()
        return [self._apply(topic, write) for write in writes]

    def _apply(self, topic: str, write: GridWrite) -> Applied:
        meta = self.metas.get((topic, write.claim.partition))
        if meta is None:
            return Applied.MOVED
        if meta.owner != write.claim.owner:
            return Applied.FENCED
        if meta.applied != write.expected:
            return Applied.APPLIED if meta.applied == write.target else Applied.MOVED
        for card, profile in zip(write.cards, write.profiles, strict=True):
            self.profiles[topic, write.claim.partition, card] = profile
        meta.applied = write.target
        return Applied.APPLIED

    def check(self) -> None:
        """See :class:`services.grid.Grid`."""
        if not self.available:
            raise GridUnavailableError("the grid is away")
