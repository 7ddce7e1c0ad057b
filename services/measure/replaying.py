"""Recorded transactions and labels through running services, so that no partition runs ahead of what others know."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np

from services.core.columns import TransactionColumns, type_i64
from services.core.profiles import DAY_MS
from services.datasets.mapping import Dataset, DatasetError, load_mapping, read_dataset
from services.measure.parity import Parity, Recorded, VectorCollector, compare
from services.measure.session import Session, running_session
from services.replay.labels import LabelFeed, recorded_truth
from services.replay.producer import Pace, TransactionProducer
from services.runtime.clock import SystemClock
from services.runtime.config import Settings
from services.streams import StreamsError
from services.streams.reader import KafkaReader
from services.streams.sink import KafkaSink

QUIET_S_MAX: Final = 60.0
"""Without any progress for so long, something is wrong."""
LOOK_S: Final = 0.05


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
    collector = replay(settings, recorded, progress)
    progress("comparing with offline and published features")
    return compare(recorded, features, collector, "handbook")


def replay(settings: Settings, recorded: Recorded, progress: Callable[[str], None]) -> VectorCollector:
    """Replay day by day, and return what the decisions say.

    A day is sent when the day before the last one is decided on and folded: so what anybody knows of a terminal is never more than
    some two days behind, and features look at what is a week old.
    """
    collector, columns = VectorCollector(), recorded.columns
    with running_session(settings, Path(settings.data_folder) / "parity", progress, keep_ids=False) as session:
        servers = session.settings.kafka_bootstrap_servers
        reader, sink = KafkaReader(servers, ["card-decisions"], from_beginning=True), KafkaSink(servers)
        labels = LabelFeed(sink, recorded_truth(columns, recorded.fraud))
        producer, told_s, before = TransactionProducer(sink, SystemClock()), time.monotonic(), 0
        for rows in _days(columns.event_time_ms):
            producer.send(Dataset(columns.take(rows), None, None), Pace(None), labels=labels, flush_s=300.0)
            _wait(session, reader, collector, before, len(rows))
            before = producer.sent
            if time.monotonic() - told_s > 5.0:
                told_s = time.monotonic()
                progress(f"{collector.count:,} of {len(columns):,} decisions, {labels.sent:,} labels")
        _wait(session, reader, collector, before, 0)
        reader.close()
        sink.close()
    return collector


def _days(event_time_ms: type_i64) -> Iterator[type_i64]:
    """Yield the rows of each day, in order."""
    day = event_time_ms // DAY_MS
    order = np.argsort(day, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(day[order])) + 1)


def _wait(session: Session, reader: KafkaReader, collector: VectorCollector, decided: int, left: int) -> None:
    """Wait until so many are decided, and at most so many wait to be folded into their terminals. Raises StreamsError."""
    own, quiet_s = session.settings, time.monotonic()
    groups = (("fraud-labels", own.router_group_id), ("terminal-events", own.profiler_group_id))
    while True:
        for records in reader.read(LOOK_S):
            collector.add(records)
            quiet_s = time.monotonic()
        lags = [session.admin.group_lag(topic, group) for topic, group in groups]
        if collector.count >= decided and all(lag is not None and lag <= left for lag in lags):
            return
        if time.monotonic() - quiet_s > QUIET_S_MAX:
            raise StreamsError(f"only {collector.count:,} of {decided:,} transactions were decided; waiting: {lags}")
