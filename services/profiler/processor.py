"""What the profiler folds: terminal events and profiles in, new profiles and dead letters out. No IO."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.codec.terminal_events import TOPIC, decode_terminal_events
from services.core.columns import TerminalEventColumns, type_bool, type_i64
from services.core.immutable import immutable
from services.core.kernels import group_text
from services.core.profiles import DAY_MS, open_profiles, refuse_ahead, seal_changed
from services.core.terminal.layout import TERMINAL
from services.core.terminal.windows import BUCKETED, REPEATED, TERMINAL_KEEP_MS, entries_of, fold_terminals
from services.core.validation import Reject, validate_terminal_events
from services.runtime import catalogue as m
from services.streams import Records
from services.worker.dead_letters import key_column, note_misplaced, refuse_excluded, without_excluded
from services.worker.topic_processor import Folded, PreparedTopic, TopicProcessor


@immutable
class PreparedEvents(PreparedTopic):
    """A batch of terminal events: the valid ones in columns, the others with their reason."""

    columns: TerminalEventColumns
    rows: type_i64
    """(v,) the record that each row of ``columns`` came from."""
    slot: type_i64
    """(v,) the pair of ``cards`` that each row belongs to: here they are terminals."""


class ProfilerProcessor(TopicProcessor[PreparedEvents]):
    """Of terminal events; a terminal says itself how much it remembers."""

    topic, layout = TOPIC, TERMINAL.version
    history_ms = TERMINAL_KEEP_MS + DAY_MS
    read_by_others = True

    def prepare(self, records: Records, excluded: type_i64) -> PreparedEvents:
        """See :class:`services.worker.processor.Processor`."""
        columns, rows, status = decode_terminal_events(without_excluded(records.values, excluded))
        refuse_excluded(status, excluded)
        keys, has_key = key_column(records.keys)
        status[rows] = validate_terminal_events(columns, keys.take(rows), has_key[rows])
        note_misplaced(status, columns.terminal_id, records, rows)
        valid = status[rows] == Reject.NONE
        if not valid.all():
            columns, rows = columns.take(valid), rows[valid]
        slot, first = group_text(columns.terminal_id, records.partition[rows])
        return PreparedEvents(
            records=records,
            partitions=records.partition[rows[first]].tolist(),
            cards=columns.terminal_id.take(first).tolist(),
            lookups={},
            status=status,
            columns=columns,
            rows=rows,
            slot=slot,
        )

    def fold(
        self,
        prepared: PreparedEvents,
        profiles: Sequence[bytes | None],
        emit: type_bool,  # noqa: ARG002
    ) -> Folded:
        """Fold transactions and labels into their terminals' profiles."""
        opened = open_profiles(profiles, TERMINAL, prepared.slot)
        before, offsets = opened.last_offset.copy(), prepared.records.offset[prepared.rows]
        refuse_ahead(opened, prepared.slot, offsets)
        flags = fold_terminals(entries_of(prepared.columns), prepared.slot, offsets, opened)
        counts = {
            m.REPEATS: int((flags & REPEATED != 0).sum()),
            m.BUCKETED: int((flags & BUCKETED != 0).sum()),
        }
        return Folded(seal_changed(opened, before), [], _folded_until(prepared), counts)


def _folded_until(prepared: PreparedEvents) -> dict[int, int]:
    """Return, by partition, the newest event time of a transaction: a label tells of the past."""
    transactions = ~prepared.columns.is_label
    partitions = prepared.records.partition[prepared.rows][transactions]
    newest = np.full(int(partitions.max(initial=-1)) + 1, -1, np.int64)
    np.maximum.at(newest, partitions, prepared.columns.event_time_ms[transactions])
    return {p: int(newest[p]) for p in np.unique(partitions).tolist()}
