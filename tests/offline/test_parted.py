"""Training sets in parts: the rows of the one that is made at once, bit by bit, whatever the parts and whoever makes them."""

from __future__ import annotations

import json
import shutil
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
from tests.offline.simulated_lake import append, fill_simulated
from tests.offline.test_served import ServedLake

ROOT = Path(__file__).parents[2]
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
    monkeypatch.setattr(parted, "ranges_of", lambda extent: ranges_of(extent, rows))

    said = build(whole, tmp_path)

    assert_same_bits(read_parts(tmp_path), whole.table)
    assert said.pop("parts") == len(parts_of(tmp_path)) > 0
    assert said == whole.description
    assert said["left_out"]["repeats"] > 0
    if whole.wanted.all_feature_sets:
        assert said["recomputed"]["different"] == 0 < said["recomputed"]["compared"]
        assert said["recomputed"]["rows_made"] > 0
    else:
        assert said["left_out"]["of_other_feature_sets"] > 0
    assert [one.name for one in tmp_path.iterdir()] == [parted.PARTS]  # nothing that went from task to task is left


@pytest.mark.parametrize("seed", range(3))
def test_times_that_come_late_and_twice_and_labels_of_any_moment_change_nothing(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Streams of the scorer's own tests: late ones, repeats, equal times; a third of the decisions of another feature set."""
    lake = ServedLake(tmp_path / "lake", seed=seed + 1)
    rng, ids = np.random.default_rng(seed), lake.ids()
    times, terminals = lake.columns.event_time_ms, lake.columns.terminal_id.tolist()
    lake.label(
        [
            {
                "transaction_id": ids[i],
                "terminal_id": terminals[int(rng.integers(len(terminals)))].decode(),
                "is_fraud": bool(rng.integers(2)),
                "known_at_ms": int(rng.choice(times)) + int(rng.integers(-2, 3)),
                "event_time_ms": int(rng.choice(times)),
                "scenario": None,
            }
            for i in rng.integers(len(ids), size=200).tolist()
        ]
    )
    lake.change_decisions(lambda i: {"feature_set_hash": "another", "features": [1.0, 2.0]} if i % 3 == seed else {})
    wanted = TrainingPeriod(lake.until, 0, replayed=True, all_feature_sets=True)
    whole = made_at_once(lake.folder, wanted)
    monkeypatch.setattr(parted, "ranges_of", lambda extent: ranges_of(extent, 20))

    said = build(whole, tmp_path)

    assert_same_bits(read_parts(tmp_path), whole.table)
    assert said.pop("parts") > 3
    assert said == whole.description
    assert said["recomputed"]["rows_made"] > 10
    assert said["recomputed"]["different"] == 0


def test_a_lake_with_nothing_of_the_period_gives_no_part(whole: Whole, tmp_path: Path):
    early = replace(whole, wanted=replace(whole.wanted, until=date(2020, 1, 1)))

    said = build(early, tmp_path)

    assert (said["transactions"], said["parts"]) == (0, 0)
    assert parts_of(tmp_path) == []


def test_a_build_that_fails_leaves_what_was_there(whole: Whole, tmp_path: Path):
    build(whole, tmp_path)
    before = {path: path.read_bytes() for path in parts_of(tmp_path)}

    class Failing(InThisProcess):
        def run(self, what: str, function: Callable[..., Any], tasks: Any) -> list[Any]:
            if what in ("joining", "folding cards"):
                super().run(what, function, tasks[:1])
                raise OSError(28, "No space left on device")
            return super().run(what, function, tasks)

    with pytest.raises(OSError, match="No space"):
        build(whole, tmp_path, Failing(lambda _: None))

    assert {path: path.read_bytes() for path in parts_of(tmp_path)} == before
    assert [one.name for one in tmp_path.iterdir()] == [parted.PARTS]


def test_parts_see_the_versions_that_the_build_began_with(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A table that grows meanwhile: here the labels of every transaction, by another one's hand, before the first part is joined."""
    copy = tmp_path / "lake"
    shutil.copytree(whole.folder, copy)
    mine = replace(whole, folder=copy)

    class Growing(InThisProcess):
        grown = False

        def run(self, what: str, function: Callable[..., Any], tasks: Any) -> list[Any]:
            if not self.grown:
                self.grown = True
                labels = Lake(str(copy), TABLES).query("SELECT * FROM fraud_labels")
                grown = labels.set_column(
                    labels.schema.get_field_index("is_fraud"), "is_fraud", pa.nulls(len(labels), pa.bool_())
                )
                append(copy, "fraud-labels", grown)
            return super().run(what, function, tasks)

    said = build(mine, tmp_path / "set", Growing(lambda _: None))

    assert_same_bits(read_parts(tmp_path / "set"), whole.table)
    assert said["delta_versions"] == whole.description["delta_versions"]


def run(whole: Whole, folder: Path, *arguments: str) -> Any:
    period = ["--until", whole.wanted.until.isoformat(), "--output", str(folder)]
    recompute = ["--recompute"] if whole.wanted.all_feature_sets else []
    return CliRunner().invoke(dataset, ["build", "--lake-url", str(whole.folder), *period, *recompute, *arguments])


def test_the_command_makes_parts_or_one_file_and_never_leaves_both(whole: Whole, tmp_path: Path):
    first = run(whole, tmp_path, "--in-parts")

    assert first.exit_code == 0, first.output
    assert_same_bits(read_parts(tmp_path), whole.table)
    assert json.loads(first.stdout) == json.loads((tmp_path / "dataset.json").read_text())

    second = run(whole, tmp_path)

    assert second.exit_code == 0, second.output
    assert sorted(one.name for one in tmp_path.iterdir()) == ["dataset.json", "transactions.parquet"]


def test_a_scheduler_that_is_not_there_is_one_line(whole: Whole, tmp_path: Path):
    done = run(whole, tmp_path, "--scheduler", "tcp://127.0.0.1:1")

    assert done.exit_code == 1
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.glob("**/*.parquet"))
