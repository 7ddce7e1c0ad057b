"""What a log in memory holds: records, and the atomic commits that they are a part of."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.core.columns import Text
from services.core.kernels import partitions_of

OPEN, COMMITTED, ABORTED = "open", "committed", "aborted"


@dataclass(slots=True)
class AtomicCommit:
    """One of a producer's transactions."""

    name: str
    epoch: int
    began_s: float
    state: str = OPEN
    offsets: dict[tuple[str, int], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stored:
    """A record of a log, visible when its commit is."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    commit: AtomicCommit | None = None


def partition_of(key: bytes | None, partitions: int) -> int:
    """Return the partition of a key, as Kafka's clients choose it; 0 for a record without one."""
    return 0 if key is None else int(partitions_of(Text.of([key]), partitions)[0])
