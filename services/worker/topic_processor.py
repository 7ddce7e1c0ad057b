"""What processors of one topic have in common: records in, profiles and dead letters out, and nothing looked up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from services.core.columns import type_bool, type_i64
from services.core.immutable import immutable
from services.core.kernels import group_text
from services.core.validation import Reject, identifier_status
from services.runtime.catalogue import Metric
from services.runtime.metrics import MetricsRegistry
from services.streams import Output, Records
from services.worker.dead_letters import (
    count_refused,
    key_column,
    note_misplaced,
    refuse,
    refuse_excluded,
    without_excluded,
)
from services.worker.processor import LookedUp, Prepared, RefusingOutcome


@immutable
class PreparedTopic(Prepared):
    """A decoded batch of one topic: what is valid, and of the others the reason."""

    status: type_i64
    """(n,) the Reject of every record."""


@immutable
class Folded:
    """What folding the valid records of a batch comes to."""

    profiles: Sequence[bytes | None]
    """The new profile of every pair of :class:`PreparedTopic`, in its order; None where it did not change."""
    outputs: Sequence[Output]
    """What is sent besides dead letters."""
    folded_until_ms: Mapping[int, int]
    """By partition, the newest event time that was folded."""
    counts: Mapping[Metric, int]
    """What is counted once the batch is done."""

    @classmethod
    def to(cls, profiles: Sequence[bytes | None], outputs: Sequence[Output] = ()) -> Folded:
        """Return a fold of which nothing more is said."""
        return cls(profiles, outputs, {}, {})


@immutable
class TopicOutcome(RefusingOutcome):
    """The outcome with what is counted of it."""

    counts: Mapping[Metric, int]


P = TypeVar("P", bound=PreparedTopic)
T = TypeVar("T")


class TopicProcessor(ABC, Generic[P]):
    """A :class:`services.worker.processor.Processor` of one topic, which looks nothing up: a service says how it decodes and folds."""

    topic: str
    layout: int
    history_ms = 0
    looks_up: Sequence[str] = ()
    read_by_others = announces = False

    @property
    def log(self) -> str:
        """See :class:`services.worker.processor.Processor`."""
        return self.topic

    @abstractmethod
    def prepare(self, records: Records, excluded: type_i64) -> P:
        """See :class:`services.worker.processor.Processor`."""

    @abstractmethod
    def fold(self, prepared: P, profiles: Sequence[bytes | None], emit: type_bool) -> Folded:
        """Fold the valid records of a batch.

        Args:
            prepared: what :meth:`prepare` returned.
            profiles: the stored profile of each of its pairs.
            emit: (n,) False for records whose outputs exist already.

        Raises:
            CorruptProfileError: profiles are not what this layout and log make of them.
        """

    def decide(
        self,
        prepared: P,
        profiles: Sequence[bytes | None],
        found: Mapping[str, LookedUp],  # noqa: ARG002 - it looks nothing up
        emit: type_bool,
        now_ms: int,
    ) -> TopicOutcome:
        """See :class:`services.worker.processor.Processor`."""
        return self.outcome_of(prepared, self.fold(prepared, profiles, emit), emit, now_ms)

    def outcome_of(self, prepared: P, folded: Folded, emit: type_bool, now_ms: int) -> TopicOutcome:
        """Return what a fold comes to, with the dead letters of what was refused."""
        refused = refuse(prepared.records, prepared.status, emit, now_ms)
        return TopicOutcome(
            outputs=[*folded.outputs, *refused.outputs],
            profiles=folded.profiles,
            decided=int(emit.sum()) - len(refused.reasons),
            folded_only=int((~emit).sum()),
            refused=refused.partitions,
            notices=refused.notices,
            folded_until_ms=folded.folded_until_ms,
            rejected=refused.reasons,
            counts=folded.counts,
        )

    def seed(self, begins_ms: int) -> bytes | None:  # noqa: ARG002 - whoever has no profile begins with nothing
        """See :class:`services.worker.processor.Processor`."""
        return None

    def measure(
        self,
        metrics: MetricsRegistry,
        prepared: P,  # noqa: ARG002
        outcome: TopicOutcome,
        committed_ms: int,  # noqa: ARG002
    ) -> None:
        """See :class:`services.worker.processor.Processor`."""
        count_refused(metrics, outcome.rejected)
        for metric, count in outcome.counts.items():
            metrics.add(metric, count)


@immutable
class PreparedItems(PreparedTopic, Generic[T]):
    """A batch whose records were decoded one by one: the pairs are the distinct keys of the valid ones."""

    slot: type_i64
    """(v,) the pair that each valid record belongs to."""
    items: Sequence[T]
    """(v,) what each holds."""


class ItemProcessor(TopicProcessor[PreparedItems[T]], ABC, Generic[T]):
    """One whose records are keyed by an identifier and come seldom enough to be decoded one by one."""

    @abstractmethod
    def decode(self, key: bytes, value: bytes | None) -> tuple[T, Reject]:
        """Return what a record holds, and NONE; or anything, and why it is refused."""

    def prepare(self, records: Records, excluded: type_i64) -> PreparedItems[T]:
        """See :class:`services.worker.processor.Processor`."""
        keys, has_key = key_column(records.keys)
        status = identifier_status(keys)
        status[~has_key] = Reject.NULL_KEY
        refuse_excluded(status, excluded)
        items, values = {}, without_excluded(records.values, excluded)
        for i in np.flatnonzero(status == Reject.NONE).tolist():
            items[i], status[i] = self.decode(records.keys[i] or b"", values[i])
        note_misplaced(status, keys, records)
        rows = np.flatnonzero(status == Reject.NONE)
        slot, first = group_text(keys.take(rows), records.partition[rows])
        return PreparedItems(
            records=records,
            partitions=records.partition[rows[first]].tolist(),
            cards=keys.take(rows[first]).tolist(),
            lookups={},
            status=status,
            slot=slot,
            items=[items[i] for i in rows.tolist()],
        )
