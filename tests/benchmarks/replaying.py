"""Recorded transactions and labels through running services, so that no partition runs ahead of what others know."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from services.cli.session import Session, running_session
from services.codec.terminal_events import TOPIC as TERMINALS
from services.core.columns import Text, TransactionColumns, type_i64
from services.core.kernels import partitions_of
from services.core.profiles import DAY_MS
from services.grid import GridUnavailableError
from services.grid.redis import RedisGrid
from services.offline.datasets.fields import namespaced_uuid
from services.offline.datasets.mapping import Dataset, DatasetError, load_mapping, read_dataset
from services.offline.replay.labels import LabelFeed, recorded_truth
from services.offline.replay.producer import Pace, TransactionProducer
from services.runtime.clock import SystemClock
from services.runtime.settings import Settings
from services.streams import StreamsError
from services.streams.reader import KafkaReader
from services.streams.sink import KafkaSink
from tests.benchmarks.collecting import Collected, VectorCollector
from tests.benchmarks.parity import Parity, Published, Recorded, compare

QUIET_S_MAX: Final = 60.0
"""Without any progress for so long, something is wrong."""
LOOK_S: Final = 0.05
LOOKUP_TIMEOUT_MS: Final = 60_000
"""The longest that can be set."""


def read_recorded(path: Path, mapping: str) -> Recorded:
    """Return a file's transactions, in the file's order, with their truth. Raises DatasetError, also where a row has no label."""
    chunks = list(read_dataset(path, load_mapping(mapping)))
    if not chunks or any(chunk.is_fraud is None for chunk in chunks):
        raise DatasetError(f"{path} holds no transactions, or mapping {mapping} does not say where the truth is")
    labelled = np.concatenate([chunk.labelled for chunk in chunks if chunk.labelled is not None])
    if not labelled.all():
        row = int(np.argmin(labelled)) + 1
        raise DatasetError(f"{path}: row {row} has no label: the benchmark's protocol needs one of every transaction")
    return Recorded(
        TransactionColumns.joined([chunk.columns for chunk in chunks]),
        np.concatenate([chunk.is_fraud for chunk in chunks if chunk.is_fraud is not None]),
    )


def run_parity(settings: Settings, recorded: Recorded, features: Path, progress: Callable[[str], None]) -> Parity:
    """Replay, collect and compare. Raises StreamsError, ChildError, StackError."""
    collected = replay(settings, recorded, progress)
    progress("comparing with offline and published features")
    return compare(recorded.columns, recorded.offline(), collected, Published.read(features, "handbook"))


def replay(settings: Settings, recorded: Recorded, progress: Callable[[str], None]) -> Collected:
    """Replay day by day, and return what the decisions say.

    A day is sent when the day before the last one is decided and in the grid: so what anybody knows of a terminal is never more than
    some two days behind, and features look at what is a week old. The first is sent when terminals' profiles are folded in every
    partition, since before that nothing is known of any terminal; and a decision waits for what others know for
    ``LOOKUP_TIMEOUT_MS``: whether a live one's lookup is in time depends on what else the machine does, and this is not to.
    """
    collector, columns = VectorCollector(), recorded.columns
    patient = settings.with_values(lookup_timeout_ms=LOOKUP_TIMEOUT_MS)
    with running_session(patient, Path(settings.data_folder) / "parity", progress, keep_ids=False) as session:
        kafka = session.settings.kafka
        reader, sink = KafkaReader(kafka, ["card-decisions"], from_beginning=True), KafkaSink(kafka)
        labels = LabelFeed(sink, recorded_truth(columns, recorded.fraud))
        producer, reported_s = TransactionProducer(sink, SystemClock()), time.monotonic()
        opening = opening_transactions(columns, session.settings.topic_counts["terminal_partitions"])
        producer.send(Dataset(opening, None, None), Pace(None), flush_s=300.0)
        _wait(session, reader, VectorCollector(), len(opening), 0)
        before = 0
        for rows in _days(columns.event_time_ms):
            producer.send(Dataset(columns.take(rows), None, None), Pace(None), labels=labels, flush_s=300.0)
            _wait(session, reader, collector, before, len(rows))
            before = producer.sent - len(opening)
            if time.monotonic() - reported_s > 5.0:
                reported_s = time.monotonic()
                progress(f"{collector.count:,} of {len(columns):,} decisions, {labels.sent:,} labels")
        _wait(session, reader, collector, before, 0)
        reader.close()
        sink.close()
    return collector.collected()


def opening_transactions(columns: TransactionColumns, partitions: int) -> TransactionColumns:
    """Return a transaction of the day before the first one, at a terminal of its own, for each partition of the terminals' log."""
    names = Text.of([b"opening-%d" % i for i in range(100 * partitions)])
    _, rows = np.unique(partitions_of(names, partitions), return_index=True)
    n = len(rows)
    assert n == partitions, "a partition has no terminal of so many"
    first = columns.take(np.repeat(np.argmin(columns.event_time_ms), n))
    return replace(
        first,
        transaction_id=np.frombuffer(b"".join(namespaced_uuid("opening", i).bytes for i in range(n)), np.uint8).reshape(
            -1, 16
        ),
        terminal_id=names.take(rows),
        card_id=names.take(rows),
        customer_id=names.take(rows),
        account_id=names.take(rows),
        event_time_ms=first.event_time_ms - DAY_MS,
    )


def _days(event_time_ms: type_i64) -> Iterator[type_i64]:
    """Yield the rows of each day, in order."""
    day = event_time_ms // DAY_MS
    order = np.argsort(day, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(day[order])) + 1)


def _wait(session: Session, reader: KafkaReader, collector: VectorCollector, decided: int, left: int) -> None:
    """Wait until so many are decided, and at most so many wait to be folded into their terminals. Raises StreamsError."""
    own, quiet_s, grid = session.settings, time.monotonic(), RedisGrid(session.settings.grid)
    while True:
        for records in reader.read(LOOK_S):
            collector.add(records)
            quiet_s = time.monotonic()
        waiting = session.admin.group_lag("fraud-labels", own.router_group_id), _unfolded(session, grid)
        if collector.count >= decided and all(lag is not None and lag <= left for lag in waiting):
            return
        if collector.undecodable:
            raise StreamsError(f"{collector.undecodable:,} decisions cannot be read")
        if time.monotonic() - quiet_s > QUIET_S_MAX:
            raise StreamsError(f"only {collector.count:,} of {decided:,} transactions were decided; waiting: {waiting}")


def _unfolded(session: Session, grid: RedisGrid) -> int | None:
    """Return how many records of the terminals' log the grid does not hold; None where nobody answers."""
    group = session.settings.profiler_group_id
    try:
        ends = {p: end for (_, p), (_, end) in session.admin.extents(TERMINALS).items()}
        committed = session.admin.committed(TERMINALS, group, ends, stable=False)
        applied = {one.partition: one.applied or 0 for one in grid.status(TERMINALS, list(ends))}
    except (StreamsError, GridUnavailableError):
        return None
    # What is committed is in the grid a moment later, and marks behind the last record are committed, not applied.
    return sum(max(0, end - min(committed.get(p, 0), applied[p])) for p, end in ends.items()) if ends else None
