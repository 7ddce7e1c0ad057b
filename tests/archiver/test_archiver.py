"""An archiver over twins in memory and a table on disk: each record is in the table once, whatever crashes, and as it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import services.archiver.publisher as publishing
from services.archiver.parts import into_the_lake
from services.archiver.processor import ArchiveProcessor, of_topic
from services.archiver.publisher import LakeGrid, LakePublisher
from services.checker.evidence import Seen
from services.checker.lake import ArchivedTopic, TableVerdict, compare_table
from services.codec.records import encode_record
from services.codec.schemas import topics
from services.codec.transactions import TOPIC, encode_transactions
from services.grid import LogIdentity
from services.grid.memory import GridMemory, MemoryGrid
from services.lake.queries import Lake
from services.lake.table import LakeError, LakeTable, Move, app_id_of
from services.runtime import catalogue as m
from services.runtime.clock import ManualClock
from services.runtime.health import CONDITIONS, Health
from services.runtime.metrics import MetricsRegistry
from services.streams import LogState, Records
from services.streams.memory import MemoryLog, direct
from services.streams.memory_commits import partition_of
from services.worker.ports import WorkerLimits
from services.worker.write_behind import EVERY_BATCH, WriteBehindLimits
from tests.codec.fuzzing import examples_of
from tests.generators import random_events, to_columns
from tests.worker.harness import Assembled, MemoryWorkers
from tests.worker.memory_system import KAFKA_TIMESTAMP_MS, CrashError, Crashing

EVENTS, PARTITIONS = 90, 2


class WiredTable(LakeTable):
    """A table whose commits go through a wire, as requests to Kafka and Redis do."""

    wire: Callable[[str, Callable[[], Any]], Any] = staticmethod(direct)

    def append(self, *arguments: Any) -> None:
        self.wire("append", lambda: super(WiredTable, self).append(*arguments))


class Archive:
    """A log, a grid and a table, and archivers that come and go."""

    def __init__(self, folder: Path, saving: WriteBehindLimits = EVERY_BATCH) -> None:
        self.folder, self.saving, self.births = folder, saving, 0
        self.clock, self.grid = ManualClock(KAFKA_TIMESTAMP_MS), GridMemory()
        self.log = MemoryLog(PARTITIONS, monotonic_s=self.clock.monotonic_s, sleep=self.clock.sleep)
        self.processor: ArchiveProcessor = of_topic(TOPIC)

    def produce(self, seed: int = 1, bad: int = 0) -> None:
        columns = to_columns(random_events(seed, EVENTS, cards=6))
        for i, (key, value) in enumerate(zip(columns.card_id.tolist(), encode_transactions(columns), strict=True)):
            sent = b"bad" if bad and i % bad == 0 else value
            self.log.append(TOPIC, key, sent, KAFKA_TIMESTAMP_MS, partition_of(key, PARTITIONS))

    def archiver(self, wire: Any = direct, *, alone: bool = True, **changes: Any) -> Assembled:
        """Start one that gets every partition."""
        self.births += 1
        member = f"archiver-{self.births}"
        health, metrics = (
            Health(self.clock, dict.fromkeys((*CONDITIONS, "lake_reachable"), False)),
            MetricsRegistry(m.ARCHIVER_METRICS),
        )
        table = WiredTable(str(self.folder), TOPIC, self.processor.schema)
        table.wire = wire
        publisher = LakePublisher(table, metrics, self.clock, health)
        workers = MemoryWorkers(
            log=self.log,
            grid=self.grid,
            clock=self.clock,
            topic=TOPIC,
            limits=WorkerLimits(16, 0.0, 0, self.saving),
            adapt=partial(into_the_lake, publisher),
            health=health,
            metrics=metrics,
        )
        made = replace(workers, **changes).new(self.processor, member, "the-archiver", wire)
        if alone:
            self.log.rebalance({member: tuple(range(PARTITIONS))})
        return made

    def drain(self, made: Assembled, turns: int = 300) -> None:
        for _ in range(turns):
            made.worker.turn()
            self.clock.sleep(0.3)
            committed = {p: self.log.committed.get((TOPIC, p), 0) for p in range(PARTITIONS)}
            if committed == {p: self.log.end(TOPIC, p) for p in range(PARTITIONS)}:
                return
        raise AssertionError("the archiver did not finish")

    def records(self) -> Iterator[Seen]:
        for p in range(PARTITIONS):
            for offset, record in enumerate(self.log.partition_log(TOPIC, p)):
                yield Seen(p, offset, record.timestamp_ms, record.key, record.value)

    def verdict(self) -> TableVerdict:
        ends = {p: self.log.end(TOPIC, p) for p in range(PARTITIONS)}
        rows = Lake(str(self.folder), [TOPIC]).rows("card_transactions")
        return compare_table(ArchivedTopic(TOPIC), self.records(), rows, dict.fromkeys(ends, 0), ends)


def assert_whole(archive: Archive, left_out: int = 0, runs: int = 1) -> None:
    verdict = archive.verdict()
    assert verdict.holds, verdict.as_json()
    assert (verdict.compared, verdict.left_out) == (runs * EVENTS - left_out, left_out)


def test_without_faults_each_record_is_in_the_table_once_as_it_was_and_rubbish_is_left_out(tmp_path: Path):
    archive = Archive(tmp_path)
    archive.produce(bad=10)
    made = archive.archiver()
    archive.drain(made)

    assert_whole(archive, left_out=9)
    assert made.metrics.value(m.LAKE_ROWS, TOPIC) == EVENTS - 9
    assert made.metrics.value(m.LAKE_LEFT_OUT, TOPIC) == 9
    assert made.health.conditions["lake_reachable"]
    assert not [one for p in range(PARTITIONS) for one in archive.log.visible("dead-letters", p)]


def test_the_grid_knows_the_archivers_partitions_by_a_name_of_their_own(tmp_path: Path):
    archive = Archive(tmp_path)
    archive.produce()
    archive.drain(archive.archiver())

    assert {topic for topic, _ in archive.grid.metas} == {f"lake-{TOPIC}"}


def effects(folder: Path) -> int:
    archive, counting = Archive(folder), Crashing()
    archive.produce()
    archive.drain(archive.archiver(counting))
    return counting.calls


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_crash_around_every_single_effect_loses_nothing_and_keeps_nothing_twice(before: bool, tmp_path: Path):
    calls = effects(tmp_path / "count")
    assert calls > 20

    for at in range(1, calls + 1):
        archive = Archive(tmp_path / str(at))
        archive.produce()
        with pytest.raises(CrashError):
            archive.drain(archive.archiver(Crashing(at, before=before)))
        archive.drain(archive.archiver())
        assert_whole(archive)


def test_rows_of_several_batches_wait_and_are_written_together(tmp_path: Path):
    archive = Archive(tmp_path, WriteBehindLimits(10.0, 1_000_000))
    archive.produce()
    made = archive.archiver()
    archive.drain(made)

    assert_whole(archive)
    assert made.metrics.value(m.LAKE_COMMITS, TOPIC) < made.metrics.value(m.RECORDS_IN) / 16


def test_many_rows_are_written_before_their_time(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(publishing, "WAITING_BYTES_MAX", 5_000)
    archive = Archive(tmp_path, WriteBehindLimits(10.0, 1_000_000))
    archive.produce()
    made = archive.archiver()
    for _ in range(12):
        made.worker.turn()

    assert made.metrics.value(m.LAKE_COMMITS, TOPIC) >= 2
    archive.drain(made)
    assert_whole(archive)


def test_one_that_lost_its_partitions_and_does_not_know_it_writes_nothing_of_them(tmp_path: Path):
    """A frozen one, with rows that wait: another one archives them meanwhile."""
    archive = Archive(tmp_path, WriteBehindLimits(60.0, 1_000_000))
    archive.produce()
    frozen = archive.archiver()
    for _ in range(6):
        frozen.worker.turn()
    archive.saving = EVERY_BATCH
    other = archive.archiver()
    archive.drain(other)

    frozen.worker.release()

    assert_whole(archive)


def full_disk(calls: list[str], times: int) -> Any:
    """A wire on which some commits find no room, one of them after the fact."""

    def wire(name: str, request: Callable[[], Any]) -> Any:
        if name != "append":
            return request()
        calls.append(name)
        if len(calls) <= times:
            if len(calls) == times:
                request()
            raise LakeError("no space left on device")
        return request()

    return wire


def test_a_full_disk_is_waited_out_and_a_commit_that_happened_all_the_same_is_not_repeated(tmp_path: Path):
    archive, calls = Archive(tmp_path), []
    archive.produce()
    made = archive.archiver(full_disk(calls, 4))
    archive.drain(made)

    assert_whole(archive)
    assert made.metrics.value(m.LAKE_FAILURES, TOPIC) == 4


def test_a_table_that_was_deleted_is_filled_again_from_what_kafka_keeps(tmp_path: Path):
    archive = Archive(tmp_path)
    archive.produce()
    archive.drain(archive.archiver())
    shutil.rmtree(tmp_path / "card_transactions")
    archive.produce(seed=2)

    made = archive.archiver()
    for _ in range(60):
        made.worker.turn()
        archive.clock.sleep(0.3)

    assert_whole(archive, runs=2)


@pytest.mark.parametrize("lost", ["grid", "committed"])
def test_a_grid_that_was_lost_and_offsets_that_kafka_forgot_change_nothing(tmp_path: Path, lost: str):
    """The table knows better where to go on than Redis, or the group: somebody reset it, or its offsets expired."""
    archive = Archive(tmp_path)
    archive.produce()
    archive.drain(archive.archiver())
    (archive.grid.metas if lost == "grid" else archive.log.committed).clear()
    archive.produce(seed=2)
    archive.drain(archive.archiver())

    assert_whole(archive, runs=2)


@pytest.mark.parametrize(("log_start", "log_end"), [(0, 30), (50, 90)], ids=["Kafka lost its end", "records expired"])
def test_a_gap_that_a_person_accepted_is_where_it_goes_on_and_the_grid_is_not_put_back(
    tmp_path: Path, log_start: int, log_end: int
):
    table = LakeTable(str(tmp_path), TOPIC, of_topic(TOPIC).schema)
    table.open()
    table.append([], [Move(app_id_of(TOPIC, 0, "id"), None, 40)])
    publisher = LakePublisher(
        table, MetricsRegistry(m.ARCHIVER_METRICS), ManualClock(0), Health(ManualClock(0), {"lake_reachable": False})
    )
    accepted = log_start or log_end

    def taken_over(committed: int) -> int | None:
        publisher.open()
        return publisher.committed({0: LogState(committed, log_start, log_end, "id", 1)})[0].committed

    assert taken_over(40) == publisher.start_of(0) == 40, "halted: nobody accepted it"
    assert taken_over(accepted) == publisher.start_of(0) == accepted
    claim = LakeGrid(MemoryGrid(GridMemory(), "one"), publisher).claim(f"lake-{TOPIC}", 0, LogIdentity("id", 1, 1))
    assert claim.applied == accepted


def test_an_event_time_that_is_none_is_kept_under_the_day_of_kafkas_timestamp():
    processor = of_topic("fraud-labels")
    example = examples_of("fraud-labels")[0]
    times = [example["event_time_ms"], 0, -(2**62), 2**62]
    values = [encode_record(topics()["fraud-labels"].latest, example | {"event_time_ms": ms}) for ms in times]
    n = len(values)
    zeros = np.zeros(n, np.int64)
    records = Records("fraud-labels", zeros, np.arange(n), zeros + KAFKA_TIMESTAMP_MS, [b"k"] * n, values)
    days = processor.prepare(records, zeros).rows.column("event_date").to_pylist()

    assert [day.isoformat() for day in days[1:]] == ["2030-03-17"] * 3
    assert days[0].isoformat() != "2030-03-17"
