"""Training sets in parts: the rows of the one that is made at once, bit by bit, whatever the parts and whoever makes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner

from services.cli.dataset import dataset
from services.lake.queries import Lake
from services.offline.datasets import parted
from services.offline.datasets.parted import build_parted, parts_of, ranges_of
from services.offline.datasets.recomputed import recompute
from services.offline.datasets.served import TABLES, TrainingPeriod, as_table, read_served
from services.offline.workers import InThisProcess, TaskRunner
from tests.offline.simulated_lake import fill_simulated
from tests.offline.test_served import ServedLake

ROWS_A_PART = 700


@dataclass(frozen=True)
class Whole:
    """A lake, and what is made of it at once."""

    folder: Path
    wanted: TrainingPeriod
    table: pa.Table
    description: dict[str, Any]

    @property
    def lake(self) -> Lake:
        return Lake(str(self.folder), TABLES)


def made_at_once(folder: Path, wanted: TrainingPeriod) -> Whole:
    lake = Lake(str(folder), TABLES)
    served = read_served(lake, wanted, "code")
    more: dict[str, Any] = {}
    if wanted.all_feature_sets:
        made = recompute(lake, served, wanted)
        served = replace(served, vectors=made.vectors)
        more = {"recomputed": {
            "compared": made.compared, "different": made.different, "rows_too_early": made.too_early, "rows_made": made.made,
        }}  # fmt: skip
    return Whole(folder, wanted, as_table(served), served.description | more)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, date]:
    folder = tmp_path_factory.mktemp("simulated")
    return folder, fill_simulated(folder, cards=60, days=60, other_share=0.1)


@pytest.fixture(scope="module", params=[False, True], ids=["served", "recomputed"])
def whole(simulated: tuple[Path, date], request: pytest.FixtureRequest) -> Whole:
    folder, until = simulated
    return made_at_once(folder, TrainingPeriod(until, 7, all_feature_sets=request.param))


def read_parts(folder: Path) -> pa.Table:
    order = ("event_time_ms", "source_partition", "source_offset")
    table = pa.concat_tables([pyarrow.parquet.read_table(one) for one in parts_of(folder)])
    return table.sort_by([(name, "ascending") for name in order])


def assert_same_bits(found: pa.Table, expected: pa.Table) -> None:
    assert found.column_names == expected.column_names
    assert len(found) == len(expected) > 0
    for name in expected.column_names:
        mine, theirs = found[name], expected[name]
        if pa.types.is_floating(theirs.type):
            np.testing.assert_array_equal(mine.to_numpy().view(np.int64), theirs.to_numpy().view(np.int64), name)
        else:
            assert mine.to_pylist() == theirs.to_pylist(), name


def build(whole: Whole, folder: Path, runner: TaskRunner | None = None) -> dict[str, Any]:
    runner = runner or InThisProcess(lambda _: None)
    return build_parted(whole.lake, whole.wanted, folder, runner, "code")


@pytest.mark.parametrize("rows", [ROWS_A_PART, 3_000, 10**9])
def test_the_rows_are_those_of_the_set_that_is_made_at_once(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
):
    monkeypatch.setattr(parted, "ranges_of", lambda lake: ranges_of(lake, rows))

    said = build(whole, tmp_path)

    assert_same_bits(read_parts(tmp_path), whole.table)
    assert said.pop("parts") == len(parts_of(tmp_path)) <= len(ranges_of(whole.lake, rows))
    assert said == whole.description
    assert said["left_out"]["repeats"] > 0
    if whole.wanted.all_feature_sets:
        assert said["recomputed"]["different"] == 0 < said["recomputed"]["compared"]
        assert said["recomputed"]["rows_made"] > 0
    else:
        assert said["left_out"]["of_other_feature_sets"] > 0
    assert [one.name for one in tmp_path.iterdir()] == [parted.PARTS]  # nothing that went from task to task is left
