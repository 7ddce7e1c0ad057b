"""A grid in memory: the twin of Redis for unit tests and the simulation, under the same contract suite."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.grid.base import (
    CHANGES_MAX,
    ERRORS_MAX,
    Applied,
    Attempt,
    CacheStamp,
    Claim,
    Found,
    GridAnswer,
    GridMovedError,
    GridRead,
    GridRefusedError,
    GridUnavailableError,
    GridWrite,
    HaltedError,
    LogIdentity,
    Lookup,
    PartitionStatus,
    RefusedClaimError,
)

Wire = Callable[[str, Callable[[], Any]], Any]
"""Carries a request (by name) to its server and the answer back."""


def direct(name: str, request: Callable[[], Any]) -> Any:  # noqa: ARG001 - the signature of a wire
    """Carry a request without any fault."""
    return request()


@dataclass(slots=True)
class _Meta:
    identity: LogIdentity | None = None
    owner: str = ""
    process: str = ""
    epoch: int = 0
    applied: int | None = None
    folded_until_ms: int | None = None
    profiles: int = 0
    changes: list[tuple[bytes, bytes]] | None = None
    """All that was announced under this claim, of which the last ``CHANGES_MAX`` are returned; None where something was not."""
    attempt: Attempt | None = None
    poison: frozenset[int] = frozenset()
    errors: frozenset[int] = frozenset()
    halted: str | None = None
    resumed: int = 0
    accepted: int = 0
    begins_ms: int | None = None


@dataclass(slots=True)
class GridMemory:
    """What a Redis holds, whoever is connected to it. ``available`` False is an outage."""

    metas: dict[tuple[str, int], _Meta] = field(default_factory=dict)
    profiles: dict[tuple[str, int], dict[bytes, bytes]] = field(default_factory=dict)
    available: bool = True
    refused: set[str] = field(default_factory=set)
    """Processes that it does not serve, as with a wrong password."""
    claims: int = 0
    late_applies: list[str] = field(default_factory=list)
    """Writes that happened although somebody else had claimed: there must be none."""

    def meta(self, topic: str, partition: int) -> _Meta:
        """Return a partition's meta, made if it is missing."""
        return self.metas.setdefault((topic, partition), _Meta())

    def of(self, topic: str, partition: int) -> dict[bytes, bytes]:
        """Return a partition's profiles by card."""
        return self.profiles.setdefault((topic, partition), {})


class MemoryGrid:
    """One process's connection to a :class:`GridMemory`. See :class:`services.grid.Grid` for the protocol.

    What Redis does of a request is a method of its own, which a test may put a wrong one in the place of.
    """

    def __init__(self, memory: GridMemory, process: str = "process", wire: Wire = direct) -> None:
        self.memory, self._process, self._wire = memory, process, wire

    def claim(self, topic: str, partition: int, identity: LogIdentity, *, even_if_halted: bool = False) -> Claim:
        """See :class:`services.grid.Grid`."""
        return self._wire("claim", lambda: self.claim_one(topic, partition, identity, even_if_halted))

    def claim_one(self, topic: str, partition: int, identity: LogIdentity, even_if_halted: bool) -> Claim:
        """Do what Redis does of it."""
        self.check()
        meta = self.memory.meta(topic, partition)
        if meta.halted is not None and not even_if_halted:
            raise HaltedError(meta.halted)
        found = meta.identity
        if found and (found.topic_id, found.partitions) != (identity.topic_id, identity.partitions):
            raise RefusedClaimError(found, identity)
        profiles = self.memory.of(topic, partition)
        if meta.applied is None or found != identity or len(profiles) != meta.profiles:
            meta.applied, meta.folded_until_ms, meta.profiles, meta.begins_ms = None, None, 0, None
            profiles.clear()
        died = meta.process not in ("", self._process)
        self.memory.claims += 1
        meta.identity, meta.owner, meta.process = identity, f"{self._process}-{self.memory.claims}", self._process
        meta.epoch, meta.changes = meta.epoch + 1, []
        attempt = meta.attempt if died else None
        return Claim(
            partition,
            meta.owner,
            meta.epoch,
            meta.applied,
            died,
            attempt,
            meta.poison,
            meta.accepted,
            meta.errors,
            meta.begins_ms,
        )

    def read(
        self,
        topic: str,
        reads: Sequence[GridRead],
        lookups: Sequence[Lookup] = (),
        *,
        with_deadline: bool = False,  # noqa: ARG002 - it answers at once, or not at all
    ) -> GridAnswer:
        """See :class:`services.grid.Grid`."""
        return self._wire("read", lambda: GridAnswer(self.read_profiles(topic, reads), self._look_up(lookups)))

    def look_up(self, lookups: Sequence[Lookup]) -> list[Found]:
        """See :class:`services.grid.Grid`."""
        return self._wire("look_up", lambda: self._look_up(lookups))

    def _look_up(self, lookups: Sequence[Lookup]) -> list[Found]:
        self.check()
        found = []
        for lookup in lookups:
            profiles = self.memory.profiles.get((lookup.topic, lookup.partition), {})
            meta = self.memory.metas.get((lookup.topic, lookup.partition), _Meta())
            mark = None if meta.changes is None else CacheStamp(meta.owner, len(meta.changes))
            there = [profiles.get(key) for key in lookup.keys]
            found.append(Found(there, meta.folded_until_ms, meta.applied, mark, _changed(lookup.copied, mark, meta)))
        return found

    def read_profiles(self, topic: str, reads: Sequence[GridRead]) -> list[list[bytes | None]]:
        """Do what Redis does of :meth:`read`."""
        self.check()
        found: list[list[bytes | None]] = []
        for read in reads:
            meta, profiles = self.held(topic, read.claim)
            if (meta.owner, meta.applied, meta.profiles) != (read.claim.owner, read.expected, len(profiles)):
                raise GridMovedError(f"partition {read.claim.partition} stands at {meta.applied}, not {read.expected}")
            found.append([profiles.get(card) for card in read.cards])
        return found

    def held(self, topic: str, claim: Claim) -> tuple[_Meta, dict[bytes, bytes]]:
        """Return what Redis holds of a claim's partition."""
        return self.memory.metas.get((topic, claim.partition), _Meta()), self.memory.of(topic, claim.partition)

    def apply(self, topic: str, writes: Sequence[GridWrite]) -> list[Applied]:
        """See :class:`services.grid.Grid`."""
        return self._wire("apply", lambda: self._apply_all(topic, writes))

    def _apply_all(self, topic: str, writes: Sequence[GridWrite]) -> list[Applied]:
        self.check()
        return [self.apply_one(topic, write) for write in writes]

    def apply_one(self, topic: str, write: GridWrite) -> Applied:
        """Do what Redis does of one write."""
        meta, profiles = self.held(topic, write.claim)
        if not meta.owner:
            return Applied.MOVED
        if meta.owner != write.claim.owner:
            return Applied.FENCED
        if len(profiles) != meta.profiles:
            return Applied.MOVED
        if meta.applied != write.expected:
            return Applied.APPLIED if meta.applied == write.target else Applied.MOVED
        if meta.owner != write.claim.owner:
            self.memory.late_applies.append(f"partition {write.claim.partition}: {write.claim.epoch} in {meta.epoch}")
        profiles.update(zip(write.cards, write.profiles, strict=True))
        if not write.announced and write.cards:
            meta.changes = None
        elif meta.changes is not None:
            meta.changes.extend(zip(write.cards, write.profiles, strict=True))
        meta.applied, meta.profiles = write.target, len(profiles)
        if write.folded_until_ms is not None:
            meta.folded_until_ms = max(write.folded_until_ms, meta.folded_until_ms or write.folded_until_ms)
        return Applied.APPLIED

    def release(self, topic: str, claims: Sequence[Claim]) -> None:
        """See :class:`services.grid.Grid`."""
        self._wire("release", lambda: self._release(topic, claims))

    def _release(self, topic: str, claims: Sequence[Claim]) -> None:
        self.check()
        for claim in claims:
            meta, _ = self.held(topic, claim)
            if meta.owner == claim.owner:
                meta.process, meta.attempt = "", None

    def note_attempt(self, topic: str, claim: Claim, attempt: Attempt | None) -> None:
        """See :class:`services.grid.Grid`."""
        self.check()
        meta, _ = self.held(topic, claim)
        if meta.owner == claim.owner:
            meta.attempt = attempt

    def note_poison(self, topic: str, claim: Claim, offset: int) -> None:
        """See :class:`services.grid.Grid`."""
        self.check()
        meta, _ = self.held(topic, claim)
        if meta.owner == claim.owner:
            meta.poison |= {offset}

    def note_errors(self, topic: str, claim: Claim, offsets: Collection[int]) -> None:
        """See :class:`services.grid.Grid`."""
        self.check()
        meta, _ = self.held(topic, claim)
        if meta.owner == claim.owner:
            meta.errors = frozenset(sorted(meta.errors.union(offsets))[-ERRORS_MAX:])

    def note_beginning(self, topic: str, claim: Claim, begins_ms: int) -> None:
        """See :class:`services.grid.Grid`."""
        self.check()
        meta, _ = self.held(topic, claim)
        if meta.owner == claim.owner:
            meta.begins_ms = begins_ms

    def halt(self, topic: str, partition: int, reason: str, *, drop: bool = False) -> None:
        """See :class:`services.grid.Grid`."""
        self.check()
        meta = self.memory.meta(topic, partition)
        if drop:
            self.memory.of(topic, partition).clear()
            meta = self.memory.metas[topic, partition] = _Meta(epoch=meta.epoch, resumed=meta.resumed)
        meta.halted, meta.owner = reason, "nobody"

    def resume(self, topic: str, partition: int, accepted: int) -> None:
        """See :class:`services.grid.Grid`."""
        self.check()
        meta = self.memory.meta(topic, partition)
        meta.halted, meta.resumed, meta.accepted = None, meta.resumed + 1, accepted

    def resumed(self, topic: str, partitions: Sequence[int]) -> list[int]:
        """See :class:`services.grid.Grid`."""
        self.check()
        return [self.memory.metas.get((topic, p), _Meta()).resumed for p in partitions]

    def status(self, topic: str, partitions: Sequence[int]) -> list[PartitionStatus]:
        """See :class:`services.grid.Grid`."""
        self.check()
        metas = [(p, self.memory.metas.get((topic, p), _Meta())) for p in partitions]
        return [
            PartitionStatus(
                p,
                m.identity,
                m.epoch,
                m.applied,
                len(self.memory.of(topic, p)),
                m.halted,
                m.poison,
                m.errors,
                m.begins_ms,
            )
            for p, m in metas
        ]

    def dump(self, topic: str, partition: int) -> dict[bytes, bytes]:
        """See :class:`services.grid.Grid`."""
        self.check()
        return dict(self.memory.of(topic, partition))

    def check(self) -> None:
        """See :class:`services.grid.Grid`."""
        if self._process in self.memory.refused:
            raise GridRefusedError("WRONGPASS")
        if not self.memory.available:
            raise GridUnavailableError("the grid is away")


def _changed(copied: CacheStamp | None, mark: CacheStamp | None, meta: _Meta) -> dict[bytes, bytes] | None:
    if copied is None or mark is None or not mark.continues(copied):
        return None
    assert meta.changes is not None
    since = meta.changes[copied.changes :]
    return dict(since) if len(since) <= CHANGES_MAX else None
