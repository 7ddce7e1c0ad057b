"""A table takes records and offsets together, from one writer of a partition, and says where to go on."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import services.lake.table as module
from services.lake.columns import DATE
from services.lake.table import LakeError, LakeMovedError, LakeTable, Move, app_id_of, first_day_kept

SCHEMA = pa.schema(
    [
        ("a", pa.int64()),
        ("text", pa.string()),
        ("kafka_offset", pa.int64()),
        ("kafka_timestamp_ms", pa.int64()),
        (DATE, pa.date32()),
    ]
)
DAY = dt.date(2026, 1, 1)
ME = app_id_of("topic", 0, "id")


def rows(*numbers: int, day: dt.date = DAY, at_ms: int = 0) -> pa.RecordBatch:
    found = [{"a": n, "text": str(n), "kafka_offset": n, "kafka_timestamp_ms": at_ms, DATE: day} for n in numbers]
    return pa.RecordBatch.from_pylist(found, schema=SCHEMA)


def opened(folder: Path, schema: pa.Schema = SCHEMA) -> LakeTable:
    table = LakeTable(str(folder), "topic", schema)
    table.open()
    return table


def held(folder: Path) -> list[int]:
    return sorted(deltalake.DeltaTable(str(folder / "topic")).to_pyarrow_table()["a"].to_pylist())


def test_rows_and_offsets_are_there_together_for_whoever_looks_next(tmp_path: Path):
    table = opened(tmp_path)
    assert table.next_offset(ME) is None

    table.append([rows(1, 2), rows(3)], [Move(ME, None, 4)])
    table.append([rows(4)], [Move(ME, 4, 5), Move("topic-1-id", None, 7)])

    again = opened(tmp_path)
    assert (again.next_offset(ME), again.next_offset("topic-1-id"), again.next_offset("topic-2-id")) == (5, 7, None)
    assert held(tmp_path) == [1, 2, 3, 4]


def test_offsets_move_without_rows_too(tmp_path: Path):
    table = opened(tmp_path)
    table.append([], [Move(ME, None, 9)])

    assert opened(tmp_path).next_offset(ME) == 9
    assert held(tmp_path) == []


def test_a_batch_that_is_there_already_is_refused(tmp_path: Path):
    table = opened(tmp_path)
    table.append([rows(1)], [Move(ME, None, 2)])

    with pytest.raises(LakeMovedError, match="up to 2"):
        table.append([rows(1)], [Move(ME, None, 2)])
    assert held(tmp_path) == [1]


def test_of_two_writers_of_a_partition_that_look_at_the_same_version_one_wins(tmp_path: Path, monkeypatch):
    one, other = opened(tmp_path), opened(tmp_path)

    def write_first(*_, **__) -> None:
        """Between the other's look at the table and its commit."""
        one.append([rows(1)], [Move(ME, None, 2)])

    write = module.write_deltalake
    calls = iter([write_first])

    def late(*arguments, **options) -> None:
        call = next(calls, None)
        if call is not None:
            call()
        write(*arguments, **options)

    monkeypatch.setattr(module, "write_deltalake", late)
    with pytest.raises(LakeError, match="Concurrent transaction"):
        other.append([rows(1)], [Move(ME, None, 2)])
    assert held(tmp_path) == [1]


def test_writers_of_other_partitions_do_not_hinder_each_other(tmp_path: Path):
    one, other = opened(tmp_path), opened(tmp_path)
    one.append([rows(1)], [Move(ME, None, 2)])
    other.append([rows(2)], [Move("topic-1-id", None, 3)])
    one.append([rows(3)], [Move(ME, 2, 4)])

    assert held(tmp_path) == [1, 2, 3]


def test_a_column_that_comes_later_is_null_in_older_rows_and_an_older_writer_goes_on(tmp_path: Path):
    old = opened(tmp_path)
    old.append([rows(1)], [Move(ME, None, 2)])
    grown = pa.schema([*SCHEMA, pa.field("wallet", pa.string())])
    batch = pa.RecordBatch.from_pylist([{"a": 2, "kafka_offset": 2, DATE: DAY, "wallet": "w"}], schema=grown)
    opened(tmp_path, grown).append([batch], [Move(ME, 2, 3)])
    old.open()
    old.append([rows(3)], [Move(ME, 3, 4)])

    found = deltalake.DeltaTable(str(tmp_path / "topic")).to_pyarrow_table().sort_by("a").to_pydict()
    assert found["wallet"] == [None, "w", None]


def test_small_files_of_a_day_are_put_together_and_offsets_stay(tmp_path: Path):
    table = opened(tmp_path)
    for n in range(9):
        table.append([rows(n)], [Move(ME, n or None, n + 1)])
    files = len(list((tmp_path / "topic").rglob("*.parquet")))

    assert table.compact() == 1
    assert table.compact() == 0
    assert table.vacuum(0) == files
    table.append([rows(9)], [Move(ME, 9, 10)])

    assert held(tmp_path) == list(range(10))
    assert opened(tmp_path).next_offset(ME) == 10


def test_days_beyond_the_retention_go_and_what_was_replayed_lately_stays(tmp_path: Path):
    table, old = opened(tmp_path), dt.date(2025, 1, 1)
    lately_ms = 1_767_225_600_000 + 86_400_000
    table.append([rows(1, day=old), rows(3, day=old, at_ms=lately_ms), rows(2)], [Move(ME, None, 4)])

    table.forget_before(first_day_kept(dt.date(2026, 1, 31), 30))
    table.forget_before(first_day_kept(dt.date(2026, 1, 31), 30))

    assert held(tmp_path) == [2, 3]
    assert opened(tmp_path).next_offset(ME) == 4
    found = deltalake.DeltaTable(str(tmp_path / "topic")).to_pyarrow_dataset().to_table(filter=pc.field("text") == "3")
    assert found["a"].to_pylist() == [3], "texts are still what readers can filter on"


def test_a_lake_that_cannot_be_written_says_where_and_what_helps(tmp_path: Path):
    (tmp_path / "file").write_text("")
    table = LakeTable(str(tmp_path / "file"), "topic", SCHEMA)

    with pytest.raises(LakeError, match=str(tmp_path)) as refused:
        table.open()
    assert "PROACT_LAKE_URL" in refused.value.remedy
