"""What the archiver reads and writes by: Kafka for records, the table for rows, and for where to go on.

The worker loop is the one of every service. What it publishes becomes rows that wait here, and goes into the table with the offsets that it comes
from, in one commit, once an interval or when enough has gathered. What the group has committed in Kafka is written afterwards, for whoever watches
how far it is; a take-over asks the table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from services.archiver.processor import TableRows
from services.grid import Applied, Claim, Grid, GridWrite, LogIdentity
from services.lake.columns import TOPIC_ID
from services.lake.table import LakeError, LakeMovedError, LakeTable, Move, app_id_of
from services.runtime import catalogue as m
from services.runtime.clock import Clock
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.remedies import with_remedy
from services.streams import LogState, Output, Publication, Source
from services.worker.outages import AbandonedError

WAITING_BYTES_MAX: Final = 64 * 1024 * 1024
"""So many bytes of rows are written at once, whatever the time."""
TABLE_LOST: Final = "its table was lost, and is filled again; if that was interrupted: proact grid resume"


class LakePublisher:
    """See :class:`services.streams.Publisher`: outputs are rows, and what makes them visible is a commit of the table."""

    def __init__(self, table: LakeTable, metrics: MetricsRegistry, clock: Clock, health: Health) -> None:
        self._table, self._metrics, self._clock, self._health = table, metrics, clock, health
        self._commit: Callable[[Mapping[int, int]], None] = lambda _: None
        self._assigned: Callable[[], Collection[int]] = tuple
        self._topic_id = ""
        self._done: dict[int, int | None] = {}
        """By partition, up to which offset the table has records, by the last look or commit."""
        self._starts: dict[int, int | None] = {}
        """By partition, where a take-over goes on: where the table is, but where a person accepted a gap."""
        self._ahead: dict[int, int] = {}
        """The same of what waits here."""
        self._uncommitted: dict[int, int] = {}
        """The same of what is in the table, and Kafka was not informed."""
        self._rows: list[pa.RecordBatch] = []
        self._waiting = 0
        """Bytes of these rows."""

    def publish_for(self, source: Source) -> None:
        """Publish what a source gave, and commit in its group up to where the table is."""
        self._commit, self._assigned = source.commit, lambda: source.assignment.partitions

    @property
    def confirmed(self) -> bool:
        """See :class:`services.streams.Publisher`."""
        return not self._ahead and not self._uncommitted

    def open(self) -> None:
        """See :class:`services.streams.Publisher`: what waits is read again from where the table is."""
        self._rows, self._waiting, self._ahead, self._uncommitted, self._done, self._starts = [], 0, {}, {}, {}, {}
        self._in_the_lake(self._table.open)

    def _in_the_lake(self, work: Callable[[], None]) -> None:
        """Do something with the table; where that fails this turn is given up, and the other topics' workers have theirs.

        Raises AbandonedError: it may have happened.
        """
        try:
            work()
        except LakeMovedError as error:  # somebody else has the partition, and the table is well
            raise AbandonedError(str(error)) from error
        except LakeError as error:
            self._health.set("lake_reachable", holds=False)
            self._metrics.add(m.LAKE_FAILURES, 1, self._table.topic)
            raise AbandonedError(with_remedy(error)) from error
        self._health.set("lake_reachable", holds=True)

    def committed(self, states: Mapping[int, LogState]) -> dict[int, LogState]:
        """Return what is known of partitions, with the table's word for what is done.

        Where the log does not reach to where the table is, records are missing; if a person has accepted that, Kafka has their offset.
        Raises StreamsError.
        """
        found, unsaid = {}, {}
        for partition, state in states.items():
            self._topic_id = state.topic_id
            done = self._table.next_offset(app_id_of(self._table.topic, partition, state.topic_id))
            self._done[partition] = done
            there = range(state.log_start, state.log_end + 1)
            if done is not None and done not in there and state.committed in there:
                done = state.committed
            self._starts[partition] = done
            found[partition] = replace(state, committed=done)
            if done is not None and done in there and (state.committed is None or state.committed < done):
                unsaid[partition] = done
        if unsaid:  # whoever wrote it died before Kafka was informed
            self._commit(unsaid)
        return found

    @property
    def maintains(self) -> bool:
        """Whether this worker, of all that write the table, is the one that maintains it: it has the first partition."""
        return 0 in self._assigned()

    def start_of(self, partition: int) -> int | None:
        """Return where a partition goes on, by the last look; None: the table has nothing of it."""
        return self._starts.get(partition)

    def publish(self, outputs: Sequence[Output], offsets: Mapping[int, int]) -> Publication | None:
        """See :class:`services.streams.Publisher`: rows wait, until there are many."""
        for output in outputs:
            assert isinstance(output, TableRows), "only rows have a table"
            at = output.rows.schema.get_field_index(TOPIC_ID)
            ids = pa.repeat(self._topic_id, len(output.rows))
            self._rows.append(output.rows.set_column(at, output.rows.schema.field(at), ids))
            self._waiting += self._rows[-1].nbytes
        self._ahead |= offsets
        self._metrics.set(m.LAKE_WAITING, self._waiting, self._table.topic)
        return self._write if self._waiting >= WAITING_BYTES_MAX else None

    def confirm(self, offsets: Mapping[int, int]) -> None:  # noqa: ARG002 - those that wait are among them
        """See :class:`services.streams.Publisher`."""
        if self._ahead:
            self._write()
        if self._uncommitted:
            self._commit(self._uncommitted)
            self._uncommitted = {}

    def _write(self) -> None:
        """Commit what waits to the table. Raises AbandonedError: it may have happened."""
        ahead, rows, table = self._ahead, self._rows, self._table
        moves = [
            Move(app_id_of(table.topic, p, self._topic_id), self._done.get(p), target) for p, target in ahead.items()
        ]
        begun_s = self._clock.monotonic_s()
        self._in_the_lake(lambda: table.append(rows, moves))
        self._measure(rows, self._clock.monotonic_s() - begun_s)
        self._done |= ahead
        self._uncommitted |= ahead
        self._rows, self._waiting, self._ahead = [], 0, {}

    def _measure(self, rows: Sequence[pa.RecordBatch], took_s: float) -> None:
        topic, metrics = self._table.topic, self._metrics
        metrics.add(m.LAKE_ROWS, sum(map(len, rows)), topic)
        metrics.add(m.LAKE_COMMITS, 1, topic)
        metrics.set(m.LAKE_WRITE_SECONDS, took_s, topic)
        oldest_ms = min((int(pc.min(one.column("kafka_timestamp_ms")).as_py()) for one in rows), default=None)
        behind_s = 0.0 if oldest_ms is None else max(0.0, (self._clock.now_ms() - oldest_ms) / 1000)
        metrics.set(m.LAKE_BEHIND, behind_s, topic)
        metrics.set(m.LAKE_WAITING, 0, topic)

    def close(self) -> None:
        """See :class:`services.streams.Publisher`."""


class LakeSource:
    """A source that goes on from where the table is. See :class:`services.streams.Source`; all else is Kafka's."""

    def __init__(self, source: Source, publisher: LakePublisher) -> None:
        self._source, self._publisher = source, publisher

    def log_states(self, partitions: Sequence[int]) -> Mapping[int, LogState]:
        """See :class:`services.streams.Source`."""
        return self._publisher.committed(self._source.log_states(partitions))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


class LakeGrid:
    """A grid that is not ahead of the table: one that was lost is filled again from what Kafka still has. All else is the grid's."""

    def __init__(self, grid: Grid, publisher: LakePublisher) -> None:
        self._grid, self._publisher = grid, publisher

    def claim(self, topic: str, partition: int, identity: LogIdentity, *, even_if_halted: bool = False) -> Claim:
        """See :class:`services.grid.Grid`."""
        claim = self._grid.claim(topic, partition, identity, even_if_halted=even_if_halted)
        start = self._publisher.start_of(partition)
        if claim.applied is not None and (start is None or claim.applied > start):
            self._grid.halt(topic, partition, TABLE_LOST, drop=True)
            self._grid.resume(topic, partition, 0)
            claim = self._grid.claim(topic, partition, identity)
        if claim.applied is None and start is not None:  # it was lost: nothing before need be read again
            [answer] = self._grid.apply(topic, [GridWrite(claim, None, start, [], [])])
            claim = replace(claim, applied=start) if answer is Applied.APPLIED else claim
        return claim

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)
