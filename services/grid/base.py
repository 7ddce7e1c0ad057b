"""The contract that a worker has with the grid.

The worker's thread calls everything. For each partition of an assignment it calls :meth:`Grid.claim` once, before any
record of it is read; from then on it alone may write the partition's profiles, until somebody else claims, or it calls
:meth:`Grid.release` since it gives the partition back in good order. Each batch reads profiles and, once its outputs are
safe in Kafka, applies the new ones together with the offset they stand for.

What is read is proved: :meth:`Grid.read` gives profiles only if the grid still holds the fold up to the very offset that the
worker expects, with as many profiles as were written. A Redis that was emptied, went back to an earlier state or lost single
profiles is found before anything is decided from it.

Whoever looks up what others write may keep a copy of it, if they announce their changes: each lookup says up to where the copy is
true, and is given what was written since, in the same round trip.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Final, Protocol


class GridUnavailableError(Exception):
    """The grid could not be reached, or did not answer in time; a write may or may not have happened."""


class GridRefusedError(GridUnavailableError):
    """The grid answers, and refuses whoever asks: a wrong password, or no right to. Others may be served meanwhile."""


class GridAwayError(GridUnavailableError):
    """Nobody answers where the grid should be; the message says where."""

    remedy: ClassVar[str] = (
        "start one with `make up` or `proact stack up`, or name the one that runs with PROACT_REDIS_URL"
    )


class UnsafeGridError(GridUnavailableError):
    """The grid answers, but is set up so that it would lose profiles in silence: it is not used until that is mended."""


class GridMovedError(Exception):
    """The grid does not hold what this claim last wrote: it lost something, or somebody else claimed the partition."""


class HaltedError(Exception):
    """A partition was marked as halted; nothing was claimed. The message says why."""


@dataclass(frozen=True, slots=True)
class LogIdentity:
    """Which log a partition's profiles are folded from, and how they are written."""

    topic_id: str
    partitions: int
    """Of the topic: with another number the cards would be elsewhere."""
    layout: int
    """The version of the profiles' bytes."""


class RefusedClaimError(Exception):
    """The grid holds the state of another log under this partition's name; nothing was claimed."""

    def __init__(self, found: LogIdentity, wanted: LogIdentity) -> None:
        super().__init__(f"the grid holds the fold of {found}, the log is {wanted}")
        self.found, self.wanted = found, wanted


PENDING_MAX: Final = 4
"""How many attempts of earlier owners are handed on: more deaths than that, each before the range of the last one, are no record's doing."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The records [begin, end) that a worker was at when it died."""

    begin: int
    end: int
    pending: tuple[tuple[int, int], ...] = ()
    """What owners before it were at when they died and it had not come to yet, at most ``PENDING_MAX`` of them: (begin, end) each."""

    def __post_init__(self) -> None:
        assert all(0 <= begin < end for begin, end in self.ranges)
        assert len(self.pending) <= PENDING_MAX

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """All of it, (begin, end) each."""
        return ((self.begin, self.end), *self.pending)


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write one partition's profiles, and how far the grid holds its fold."""

    partition: int
    owner: str
    """A token of this claim alone: a write with an older one is refused."""
    epoch: int
    """How many times the partition was claimed."""
    applied: int | None
    """The offset up to which the grid holds the fold; None where it holds nothing."""
    died: bool = False
    """Whether the owner before was another process that did not release the partition."""
    attempt: Attempt | None = None
    """What that owner was at, if it had noted that."""
    poison: frozenset[int] = frozenset()
    """Offsets of records that kill the process that decodes them."""
    accepted: int = 0
    """Somebody resumed the partition when its log ended here: however bad its records are up to here, and however short its past
    is, is accepted."""
    errors: frozenset[int] = frozenset()
    """Offsets of records that were refused because deciding on them raises an exception."""
    begins_ms: int | None = None
    """The log did not reach back far enough when the fold began: of what was before this time nothing is known. None: all that counts is."""


@dataclass(frozen=True, slots=True)
class GridRead:
    """The profiles to read of one partition, and the applied offset at which they must stand."""

    claim: Claim
    expected: int | None
    cards: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class CacheStamp:
    """Up to where a copy of somebody else's partition is true: of this owner's writes, the first so many announced changes."""

    owner: str
    changes: int

    def continues(self, copied: CacheStamp) -> bool:
        """Whether this is a later mark of the same writes, or the same one."""
        return self.owner == copied.owner and self.changes >= copied.changes


@dataclass(frozen=True, slots=True)
class Lookup:
    """Profiles to read of a partition that another service writes: as they stand, unproved."""

    topic: str
    partition: int
    keys: Sequence[bytes]
    copied: CacheStamp | None = None
    """Where whoever asks keeps a copy of what else the partition holds: what changed since is returned."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a :class:`Lookup` found."""

    profiles: Sequence[bytes | None]
    folded_until_ms: int | None
    """The newest event time in that partition's fold; None where nobody has folded anything."""
    applied: int | None = None
    """Up to which offset that partition's log is folded."""
    mark: CacheStamp | None = None
    """Up to where a copy of these profiles is true; None where not all changes of this claim were announced."""
    changed: Mapping[bytes, bytes] | None = None
    """What changed since ``Lookup.copied``; None where that is not known any more, so that the copy is of no use."""


ERRORS_MAX: Final = 10_000
"""How many records of a partition are noted that raise an exception: a mistake that so many meet is mended long before."""
CHANGES_MAX: Final = 1_000
"""How many announced changes of a partition are remembered for those who keep copies."""


@dataclass(frozen=True, slots=True)
class GridAnswer:
    """What one round trip read: of each :class:`GridRead` its profiles, and what each :class:`Lookup` found."""

    profiles: list[list[bytes | None]]
    found: list[Found]


@dataclass(frozen=True, slots=True)
class GridWrite:
    """A batch's profiles of one partition, absolute values, and the offset move that goes with them."""

    claim: Claim
    expected: int | None
    """The applied offset that the batch started from."""
    target: int
    cards: Sequence[bytes]
    profiles: Sequence[bytes]
    folded_until_ms: int | None = None
    """The newest event time of the batch, where others look at how far this fold is."""
    announced: bool = False
    """Whether others keep copies: the last ``CHANGES_MAX`` profiles written under a claim are remembered in order."""

    def __post_init__(self) -> None:
        assert len(self.cards) == len(self.profiles)
        assert self.expected is None or self.expected <= self.target, "the applied offset never goes back"


class Applied(Enum):
    """What became of a write."""

    APPLIED = "applied"
    """Done, by this call or by an earlier one whose answer was lost."""
    FENCED = "fenced"
    """Somebody else claimed the partition; nothing was written."""
    MOVED = "moved"
    """The claim stands but the grid does not hold what it should (it lost something); nothing was written."""


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """What the grid says of one partition, for people."""

    partition: int
    identity: LogIdentity | None
    epoch: int
    applied: int | None
    profiles: int
    halted: str | None
    poison: frozenset[int]
    errors: frozenset[int]
    begins_ms: int | None = None
    """As :attr:`Claim.begins_ms`."""


class Grid(Protocol):
    """The store of profiles and of the offsets that they stand for."""

    def claim(self, topic: str, partition: int, identity: LogIdentity, *, even_if_halted: bool = False) -> Claim:
        """Become the only writer of a partition.

        Profiles that stand for no known offset, are not all there, or are of another layout, are dropped first: the
        claim then has no applied offset, and they are folded again from the log.

        Raises:
            HaltedError: it was marked as halted.
            RefusedClaimError: the state there is of another topic id or number of partitions.
            GridUnavailableError: an outage.
        """
        ...

    def read(
        self, topic: str, reads: Sequence[GridRead], lookups: Sequence[Lookup] = (), *, with_deadline: bool = False
    ) -> GridAnswer:
        """Return the stored profile of each card of each read, None where there is none, and what others' partitions hold.

        Args:
            topic: whose partitions are read.
            reads: of this worker's own partitions.
            lookups: of others'.
            with_deadline: whether to give up at the deadline of :meth:`look_up`, for whoever goes on without it.

        Raises:
            GridMovedError: the grid does not stand at the expected offset, or not all profiles are there.
            GridUnavailableError: an outage.
        """
        ...

    def look_up(self, lookups: Sequence[Lookup]) -> list[Found]:
        """Return what others' partitions hold, within a deadline: for whoever goes on without it.

        Raises:
            GridUnavailableError: no answer within the deadline.
        """
        ...

    def apply(self, topic: str, writes: Sequence[GridWrite]) -> list[Applied]:
        """Write each partition's profiles and applied offset, all of a partition or nothing of it.

        Repeating a call whose outcome is not known is safe.

        Raises:
            GridUnavailableError: an outage.
        """
        ...

    def release(self, topic: str, claims: Sequence[Claim]) -> None:
        """Give partitions back in good order; those that somebody else has claimed are left alone.

        Raises:
            GridUnavailableError: an outage.
        """
        ...

    def note_attempt(self, topic: str, claim: Claim, attempt: Attempt | None) -> None:
        """Note what is tried, before it is, so that a successor knows what killed this process. None: all went well.

        Raises:
            GridUnavailableError: an outage.
        """
        ...

    def note_poison(self, topic: str, claim: Claim, offset: int) -> None:
        """Note a record that nobody must decode again. Raises GridUnavailableError."""
        ...

    def note_errors(self, topic: str, claim: Claim, offsets: Collection[int]) -> None:
        """Note records that raise an exception, so that whoever folds the log again leaves them out as well, whatever its code makes of them.

        The newest ``ERRORS_MAX`` of a partition are kept. Raises GridUnavailableError.
        """

    def note_beginning(self, topic: str, claim: Claim, begins_ms: int) -> None:
        """Note before what time nothing is known, until the profiles are dropped. Raises GridUnavailableError."""
        ...

    def halt(self, topic: str, partition: int, reason: str, *, drop: bool = False) -> None:
        """Mark a partition: whoever has claimed it is fenced, and nobody claims it by mistake, until :meth:`resume`.

        Args:
            topic: the topic.
            partition: the partition.
            reason: what people read of it.
            drop: forget the profiles, and whose fold they were.

        Raises:
            GridUnavailableError: an outage.
        """
        ...

    def resume(self, topic: str, partition: int, accepted: int) -> None:
        """Take a halt's mark away, and tell the workers to look again; bad records before ``accepted`` open no breaker.

        Raises:
            GridUnavailableError: an outage.
        """
        ...

    def resumed(self, topic: str, partitions: Sequence[int]) -> list[int]:
        """Return how many times each partition was resumed: another number than before means to look again.

        Raises:
            GridUnavailableError: an outage.
        """
        ...

    def status(self, topic: str, partitions: Sequence[int]) -> list[PartitionStatus]:
        """Return what the grid says of partitions. Raises GridUnavailableError."""
        ...

    def dump(self, topic: str, partition: int) -> dict[bytes, bytes]:
        """Return all profiles of a partition by card: for checks, not for workers. Raises GridUnavailableError."""
        ...

    def check(self) -> None:
        """Ask for a sign of life, and whether the grid is set up as it must be.

        Raises:
            UnsafeGridError: it would lose profiles in silence.
            GridUnavailableError: an outage.
        """
        ...
