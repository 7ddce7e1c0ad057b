"""What the router does: labels in, the same labels under the key of their terminal out. It keeps no profiles. No IO."""

from __future__ import annotations

from collections.abc import Sequence

from services.codec.terminal_events import LABELS, TOPIC, decode_labels, encode_terminal_events
from services.core.columns import TerminalEventColumns, type_bool, type_i64, uuid_text
from services.core.immutable import immutable
from services.core.layouts import LABEL_LAYOUT
from services.core.validation import Reject, validate_terminal_events
from services.streams import Output, Records
from services.worker.dead_letters import key_column, refuse_excluded, without_excluded
from services.worker.topic_processor import Folded, PreparedTopic, TopicProcessor


@immutable
class PreparedLabels(PreparedTopic):
    """A batch of labels: the valid ones in columns, the others with their reason."""

    columns: TerminalEventColumns
    rows: type_i64
    """(v,) the record that each row of ``columns`` came from."""


class RouterProcessor(TopicProcessor[PreparedLabels]):
    """Of labels, which it keeps nothing of."""

    topic, layout = LABELS, LABEL_LAYOUT

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
        return PreparedLabels(records, [], [], {}, status=status, columns=columns, rows=rows)

    def fold(self, prepared: PreparedLabels, profiles: Sequence[bytes | None], emit: type_bool) -> Folded:
        """Send each label on under the key of its terminal."""
        routed = prepared.columns.take(emit[prepared.rows])
        if not len(routed):
            return Folded.to(profiles)
        return Folded.to(profiles, [Output(TOPIC, routed.terminal_id.tolist(), encode_terminal_events(routed))])
