"""What the reference service does: the newest record of an account or customer is what the grid holds of it. No IO.

Records are decoded one by one: they come as often as things change at a bank, and in three forms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from services.codec.reference import ACCOUNTS, CUSTOMERS, DELETED, decode_change
from services.core.columns import type_bool, type_i64
from services.core.immutable import immutable
from services.core.kernels import group_text
from services.core.layouts import LAYOUTS
from services.core.validation import Reject, identifier_status
from services.runtime.metrics import MetricsRegistry
from services.streams import Records
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
class PreparedChanges(Prepared):
    """A batch of changes: of each pair the newest one, and of the refused records the reason."""

    newest: Sequence[bytes]
    """What the grid is to hold of each pair of ``cards``: here they are accounts or customers."""
    status: type_i64
    """(n,) the Reject of every record."""


class ReferenceProcessor:
    """Of one of the topics. See :class:`services.worker.processor.Processor` for the protocol."""

    history_ms = 0
    """The topics are compacted: their beginning will do, whenever that was."""
    looks_up: Sequence[str] = ()
    read_by_others = announces = True

    def __init__(self, topic: str) -> None:
        self.topic, self.layout = topic, LAYOUTS[topic]

    def prepare(self, records: Records, excluded: type_i64) -> PreparedChanges:
        """See :class:`services.worker.processor.Processor`."""
        keys, has_key = key_column(records.keys)
        status = identifier_status(keys)
        status[~has_key] = Reject.NULL_KEY
        refuse_excluded(status, excluded)
        held = [DELETED] * len(records)
        values = without_excluded(records.values, excluded)
        for i in np.flatnonzero(status == Reject.NONE).tolist():
            held[i], status[i] = decode_change(records.topic, records.keys[i] or b"", values[i])
        note_misplaced(status, keys, records)
        rows = np.flatnonzero(status == Reject.NONE)
        slot, first = group_text(keys.take(rows), records.partition[rows])
        last = np.zeros(len(first), np.int64)
        last[slot] = rows  # the last of several stays
        return PreparedChanges(
            records=records,
            partitions=records.partition[rows[first]].tolist(),
            cards=keys.take(rows[first]).tolist(),
            lookups={},
            newest=[held[i] for i in last.tolist()],
            status=status,
        )

    def decide(
        self,
        prepared: PreparedChanges,
        profiles: Sequence[bytes | None],
        found: Mapping[str, LookedUp],  # noqa: ARG002 - it looks nothing up
        emit: type_bool,
        now_ms: int,
    ) -> RefusingOutcome:
        """See :class:`services.worker.processor.Processor`."""
        refused = refuse(prepared.records, prepared.status, emit, now_ms)
        changed = zip(prepared.newest, profiles, strict=True)
        return RefusingOutcome(
            outputs=refused.outputs,
            profiles=[new if new != (old or DELETED) else None for new, old in changed],
            decided=int(emit.sum()) - len(refused.reasons),
            folded_only=int((~emit).sum()),
            refused=refused.partitions,
            notices=refused.notices,
            folded_until_ms={},
            rejected=refused.reasons,
        )

    def seed(self, begins_ms: int) -> bytes | None:  # noqa: ARG002 - the newest record of each is all that counts
        """See :class:`services.worker.processor.Processor`."""
        return None

    def measure(
        self,
        metrics: MetricsRegistry,
        prepared: PreparedChanges,  # noqa: ARG002
        outcome: RefusingOutcome,
        committed_ms: int,  # noqa: ARG002
    ) -> None:
        """See :class:`services.worker.processor.Processor`."""
        count_refused(metrics, outcome.rejected)


def of_accounts() -> ReferenceProcessor:
    """Return that of accounts."""
    return ReferenceProcessor(ACCOUNTS)


def of_customers() -> ReferenceProcessor:
    """Return that of customers."""
    return ReferenceProcessor(CUSTOMERS)
