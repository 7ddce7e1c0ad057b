"""What the archiver does with a topic: records in, rows of its table out. It keeps no profiles. No IO.

What cannot be kept (it cannot be decoded, or looks like it holds a card number) is counted and left out, and becomes no dead letter: of topics that
others send, the service that works them off has answered it with one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from services.codec.schemas import Topic, topics
from services.core.columns import type_bool, type_i64
from services.core.immutable import immutable
from services.core.layouts import ARCHIVE_LAYOUT
from services.core.validation import AHEAD_MS_MAX, EARLIEST_MS, Reject
from services.lake.columns import KAFKA_FIELDS, reader_of
from services.registry import LAKE_PREFIX
from services.runtime import catalogue as m
from services.runtime.metrics import MetricsRegistry
from services.streams import Output, Records
from services.worker.dead_letters import notices, refuse_excluded, without_excluded
from services.worker.processor import LookedUp, Prepared, RefusingOutcome

_DAY_MS = 86_400_000


@immutable
class TableRows(Output):
    """Rows for a topic's table, in the place of records for a topic."""

    rows: pa.RecordBatch


@immutable
class PreparedRows(Prepared):
    """A batch as rows of its table."""

    status: type_i64
    """(n,) the Reject of every record."""
    kept: type_i64
    """(m,) which records the rows are."""
    rows: pa.RecordBatch


class ArchiveProcessor:
    """Of one topic. See :class:`services.worker.processor.Processor`."""

    layout = ARCHIVE_LAYOUT
    history_ms = 0
    looks_up: Sequence[str] = ()
    read_by_others = announces = False

    def __init__(self, topic: Topic) -> None:
        assert topic.lake_date is not None, f"{topic.name} has no table"
        self.topic, self.log = topic.name, LAKE_PREFIX + topic.name
        self._date_of = topic.lake_date
        self._reader = reader_of(topic)
        self.schema: pa.Schema = self._reader.types.schema

    def prepare(self, records: Records, excluded: type_i64) -> PreparedRows:
        """See :class:`services.worker.processor.Processor`."""
        read = self._reader.read(without_excluded(records.values, excluded))
        refuse_excluded(read.status, excluded)
        kept = read.rows
        timestamp_ms = records.timestamp_ms[kept]
        at_ms = read.columns[self.schema.get_field_index(self._date_of)].to_numpy(zero_copy_only=False)
        # A time that no record of ours has is the sender's mistake: it makes no table of a thousand days.
        at_ms = np.where((at_ms < EARLIEST_MS) | (at_ms > timestamp_ms + AHEAD_MS_MAX), timestamp_ms, at_ms)
        # The topic's id is known to who publishes.
        of_kafka = (
            None,
            records.partition[kept],
            records.offset[kept],
            timestamp_ms,
            (at_ms // _DAY_MS).astype(np.int32),
        )
        added = [
            pa.nulls(len(kept), field.type) if values is None else pa.array(values).cast(field.type)
            for values, field in zip(of_kafka, KAFKA_FIELDS, strict=True)
        ]
        rows = pa.RecordBatch.from_arrays([*read.columns, *added], schema=self.schema)
        return PreparedRows(records, [], [], {}, status=read.status, kept=kept, rows=rows)

    def decide(
        self,
        prepared: PreparedRows,
        profiles: Sequence[bytes | None],
        found: Mapping[str, LookedUp],  # noqa: ARG002 - it looks nothing up
        emit: type_bool,
        now_ms: int,  # noqa: ARG002 - rows are stamped by Kafka
    ) -> RefusingOutcome:
        """See :class:`services.worker.processor.Processor`."""
        new = emit[prepared.kept]
        rows = prepared.rows if new.all() else prepared.rows.filter(pa.array(new))
        bad = (prepared.status != Reject.NONE) & emit
        refused = np.flatnonzero(bad)
        return RefusingOutcome(
            outputs=[TableRows(self.topic, [], [], rows)] if len(rows) else [],
            profiles=profiles,
            decided=len(rows),
            folded_only=int((~emit).sum()),
            refused=prepared.records.partition[refused],
            notices=notices(prepared.records, prepared.status, bad, {}),
            folded_until_ms={},
            rejected=prepared.status[refused],
        )

    def seed(self, begins_ms: int) -> bytes | None:  # noqa: ARG002 - there are no profiles
        """See :class:`services.worker.processor.Processor`."""
        return None

    def measure(
        self,
        metrics: MetricsRegistry,
        prepared: PreparedRows,  # noqa: ARG002
        outcome: RefusingOutcome,
        committed_ms: int,  # noqa: ARG002
    ) -> None:
        """See :class:`services.worker.processor.Processor`."""
        metrics.add(m.LAKE_LEFT_OUT, len(outcome.rejected), self.topic)


def of_topic(name: str) -> ArchiveProcessor:
    """Return that of a topic."""
    return ArchiveProcessor(topics()[name])


of_card_transactions = partial(of_topic, "card-transactions")
of_card_decisions = partial(of_topic, "card-decisions")
of_fraud_labels = partial(of_topic, "fraud-labels")
of_card_reassessments = partial(of_topic, "card-reassessments")
of_rule_sets = partial(of_topic, "rule-sets")
of_model_releases = partial(of_topic, "model-releases")
of_shadow_decisions = partial(of_topic, "shadow-decisions")
