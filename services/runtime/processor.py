"""The contract between the worker loop, which talks, and a service's processor, which decides.

For every batch the worker calls :meth:`Processor.prepare`, reads the profiles that it names, and calls
:meth:`Processor.decide`. Neither does IO, keeps anything from one batch for the next, or fails for what a record holds.
Called again with the same records and profiles, they give the same outcome but for the time stamps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from services.core.columns import type_bool, type_i64
from services.runtime.metrics import MetricsRegistry
from services.streams import Output, Records


@dataclass(frozen=True, slots=True)
class Prepared:
    """A decoded batch and the profiles that it needs: pair i is (``partitions[i]``, ``cards[i]``)."""

    records: Records
    partitions: Sequence[int]
    cards: Sequence[bytes]


P = TypeVar("P", bound=Prepared)
"""What a processor carries from preparing to deciding."""
R = TypeVar("R", bound="Outcome")
"""What it decided."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a batch comes to: outputs to emit, and the new profile of every pair of :class:`Prepared`, in its order."""

    outputs: Sequence[Output]
    profiles: Sequence[bytes | None]
    """None where the pair's profile did not change."""
    decided: int
    folded_only: int
    refused: type_i64
    """(r,) the partition of each record that became a dead letter."""
    notices: Sequence[dict[str, Any]]
    """What the log may tell of each refused record: facts and tokens, never payloads."""


class Processor(Protocol[P, R]):
    """The deciding part of a service."""

    topic: str
    layout: int
    """The version of the profiles that it writes."""

    def prepare(self, records: Records, killers: type_bool) -> P:
        """Decode and validate a batch; say which profiles it needs.

        Args:
            records: the batch, of n records.
            killers: (n,) True for records that must not be decoded: they kill whoever does, and become dead letters.
        """
        ...

    def decide(self, prepared: P, profiles: Sequence[bytes | None], emit: type_bool, now_ms: int) -> R:
        """Decide on a prepared batch.

        Args:
            prepared: what :meth:`prepare` returned.
            profiles: the stored profile of each of its pairs.
            emit: (n,) False for records that are only folded, because their outputs exist already.
            now_ms: the stamp of every output of this batch.

        Raises:
            CorruptProfileError: profiles are not what this layout and log make of them; its rows are those of the pairs.
        """
        ...

    def measure(self, metrics: MetricsRegistry, prepared: P, outcome: R, committed_ms: int) -> None:
        """Count a batch once it is done: outputs acknowledged, and offsets committed, at ``committed_ms``."""
        ...
