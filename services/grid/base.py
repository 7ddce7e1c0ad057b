"""The contract that a worker has with the grid.

The worker's thread calls everything. For each partition of an assignment it calls :meth:`Grid.claim` once, before any
record of it is read; from then on it alone may write the partition's profiles, until somebody else claims. Each batch
reads profiles and, once its outputs are safe in Kafka, applies the new ones together with the offset they stand for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class GridUnavailableError(Exception):
    """The grid could not be reached, or did not answer in time; a write may or may not have happened."""


class RefusedClaimError(Exception):
    """The grid holds the state of another log or another layout under this partition's name."""


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


@dataclass(frozen=True, slots=True)
class GridWrite:
    """A batch's profiles of one partition, absolute values, and the offset move that goes with them."""

    claim: Claim
    expected: int | None
    """The applied offset that the batch started from."""
    target: int
    cards: Sequence[bytes]
    profiles: Sequence[bytes]

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
    """The claim stands but the applied offset is not the expected one (the grid lost its end); nothing was written."""


class Grid(Protocol):
    """The store of profiles and of the offsets that they stand for."""

    def claim(self, topic: str, partition: int, topic_id: str, layout: int) -> Claim:
        """Become the only writer of a partition.

        Raises:
            RefusedClaimError: the state there is of another topic id or layout: never mixed, never dropped in silence.
            GridUnavailableError: an outage.
        """
        ...

    def read(self, topic: str, partitions: Sequence[int], cards: Sequence[bytes]) -> list[bytes | None]:
        """Return the stored profile of each (partition, card), None where there is none.

        Raises:
            GridUnavailableError: an outage.
        """
        ...

    def apply(self, topic: str, writes: Sequence[GridWrite]) -> list[Applied]:
        """Write each partition's profiles and applied offset, all of a partition or nothing of it.

        Repeating a call whose outcome is not known is safe.

        Raises:
            GridUnavailableError: an outage.
        """
        ...

    def check(self) -> None:
        """Ask for a sign of life. Raises GridUnavailableError."""
        ...
