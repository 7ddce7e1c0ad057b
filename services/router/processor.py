"""What the router does: labels in, the same labels under the key of their terminal out. It keeps no profiles. No IO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.codec.terminal_events import LABELS, TOPIC, decode_labels, encode_terminal_events
from services.core.columns import TerminalEventColumns, type_bool, type_i64, uuid_text
from services.core.immutable import immutable
from services.core.layouts import LABEL_LAYOUT
from services.core.validation import Reject, validate_terminal_events
from services.runtime.metrics import MetricsRegistry
from services.streams import Output, Records
from services.worker.dead_letters import count_refused, key_column, refuse, refuse_excluded, without_excluded
from services.worker.processor import LookedUp, Prepared, RefusingOutcome


@immutable
class PreparedLabels(Prepared):
    """A batch of labels: the valid ones in columns, the others with their reason."""

    columns: TerminalEventColumns
    rows: type_i64
    """(v,) the record that each row of ``columns`` came from."""
    status: type_i64
    """(n,) the Reject of every record."""


class RouterProcessor:
    """See :class:`services.worker.processor.Processor` for the protocol."""

    topic = LABELS
    layout = LABEL_LAYOUT
    history_ms = 0
    looks_up: Sequence[str] = ()
    read_by_others = announces = False

    def prepare(self, records: Records, excluded: type_i64) -> PreparedLabels:
        """See :class:`services.worker.processor.Processor`."""
        columns, rows, status = decode_labels(without_excluded(records.values, excluded))
        refuse_excluded(status, excluded)
        keys, has_key = key_column(records.keys)
        # All labels of a transaction lie in one partition, in order: under any other key an older one could come last, and count.
        status[rows] = validate_terminal_events(
            columns, keys.take(rows), has_key[rows], uuid_text(columns.transaction_id)
        )
        valid = status[rows] == Reject.NONE
        if not valid.all():
            columns, rows = columns.take(valid), rows[valid]
        return PreparedLabels(records, [], [], {}, columns=columns, rows=rows, status=status)

    def decide(
        self,
        prepared: PreparedLabels,
        profiles: Sequence[bytes | None],
        found: Mapping[str, LookedUp],  # noqa: ARG002 - it looks nothing up
        emit: type_bool,
        now_ms: int,
    ) -> RefusingOutcome:
        """See :class:`services.worker.processor.Processor`."""
        routed = prepared.columns.take(emit[prepared.rows])
        refused = refuse(prepared.records, prepared.status, emit, now_ms)
        outputs = []
        if len(routed):
            outputs.append(Output(TOPIC, routed.terminal_id.tolist(), encode_terminal_events(routed)))
        return RefusingOutcome(
            outputs=[*outputs, *refused.outputs],
            profiles=profiles,
            decided=len(routed),
            folded_only=int((~emit).sum()),
            refused=refused.partitions,
            notices=refused.notices,
            folded_until_ms={},
            rejected=refused.reasons,
        )

    def seed(self, begins_ms: int) -> bytes | None:  # noqa: ARG002 - it keeps no profiles
        """See :class:`services.worker.processor.Processor`."""
        return None

    def measure(
        self,
        metrics: MetricsRegistry,
        prepared: PreparedLabels,  # noqa: ARG002
        outcome: RefusingOutcome,
        committed_ms: int,  # noqa: ARG002
    ) -> None:
        """See :class:`services.worker.processor.Processor`."""
        count_refused(metrics, outcome.rejected)
