"""Training sets from the lake: what was served, joined with what was known by a day, and nothing that came later."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.cli.dataset import dataset
from services.core.features import FEATURE_NAMES
from services.lake.queries import Lake
from services.lake.table import midnight_ms
from services.offline.datasets.recomputed import recompute
from services.offline.datasets.served import TABLES, TrainingPeriod, TrainingSetError, read_served
from tests.codec.fuzzing import examples_of
from tests.generators import random_events, to_columns
from tests.lake.filling import fill, fill_from, fill_values
from tests.worker.memory_system import MemorySystem

DAY_MS = 86_400_000
EXAMPLE = examples_of("fraud-labels")[0]


class ServedLake:
    """A run in memory, archived; and labels that a test adds."""

    def __init__(self, folder: Path, events: int = 150, seed: int = 1, **how: Any) -> None:
        self.folder, self.system, self._labels = folder, MemorySystem(), 0
        self.columns = to_columns(random_events(seed, events, cards=6, **how))
        self.system.produce(self.columns)
        worker, _ = self.system.worker()
        self.system.drain(worker)
        for topic in ("card-transactions", "card-decisions"):
            fill_from(folder, self.system.log, topic, self.system.partitions)
        times = self.columns.event_time_ms
        self.until = datetime.fromtimestamp(int(times.max()) / 1000, UTC).date() + timedelta(days=1)
        self.decisions = self.system.records("card-decisions")

    def label(self, labels: list[dict[str, Any]]) -> None:
        fill(self.folder, "fraud-labels", [EXAMPLE | one for one in labels], begin=self._labels)
        self._labels += len(labels)

    def change_decisions(self, changed: Callable[[int], dict[str, Any]]) -> None:
        """Put decisions into the lake of which the ones at some places are others."""
        shutil.rmtree(self.folder / "card_decisions")
        self.decisions = [one | changed(i) for i, one in enumerate(self.decisions)]
        fill(self.folder, "card-decisions", self.decisions)

    def read(self, **wanted: Any):
        values = {"until": self.until, "label_delay_days": 0, "replayed": True} | wanted
        return read_served(Lake(str(self.folder), TABLES), TrainingPeriod(**values), "code")

    def ids(self) -> list[bytes]:
        return list(dict.fromkeys(one["transaction_id"] for one in self.decisions))


@pytest.fixture(scope="module")
def served_lake(tmp_path_factory: pytest.TempPathFactory) -> ServedLake:
    lake = ServedLake(tmp_path_factory.mktemp("lake"))
    lake.label([])
    return lake


def test_vectors_are_those_that_were_served_and_repeats_are_left_out(served_lake: ServedLake):
    served = served_lake.read()

    expected = {
        (one["source_partition"], one["source_offset"]): one["features"]
        for one in served_lake.decisions
        if not one["repeat"] and one["fallback_tier"] == "CHAMPION"
    }
    found = zip(
        served.table["source_partition"].to_pylist(),
        served.table["source_offset"].to_pylist(),
        served.vectors,
        strict=True,
    )
    assert len(expected) == len(served.vectors) > 50
    for partition, offset, vector in found:
        np.testing.assert_array_equal(vector, expected[partition, offset])
    said = served.description["left_out"]
    assert said["repeats"] == sum(one["repeat"] for one in served_lake.decisions) > 0
    assert len(expected) + said["repeats"] + said["below_champion"] == len(served_lake.decisions)


def test_what_had_no_time_to_mature_is_left_out_and_counted(served_lake: ServedLake):
    all_of_it, matured = served_lake.read(), served_lake.read(label_delay_days=5)

    limit_ms = midnight_ms(served_lake.until) - 5 * DAY_MS
    times = all_of_it.table["event_time_ms"].to_numpy()
    assert 0 < len(matured.table) == np.count_nonzero(times < limit_ms) < len(times)
    assert matured.description["left_out"]["immature"] > 0


@pytest.mark.parametrize("seed", range(3))
def test_labels_that_arrive_at_every_moment_never_leak_in(seed: int, tmp_path: Path):
    """The slow way: of each transaction the label that was known last before the day, whatever came after it."""
    lake = ServedLake(tmp_path, seed=seed + 1)
    rng, ids = np.random.default_rng(seed), lake.ids()
    until_ms = midnight_ms(lake.until)
    labels = [
        {
            "transaction_id": ids[int(rng.integers(len(ids)))],
            "is_fraud": bool(rng.integers(2)),
            "known_at_ms": until_ms
            + int(rng.choice([-1, 0, 1, -DAY_MS, DAY_MS, *rng.integers(-9 * DAY_MS, 9 * DAY_MS, 4)])),
            "event_time_ms": until_ms - 20 * DAY_MS,
            "scenario": None,
        }
        for _ in range(400)
    ]
    lake.label(labels)

    checked = 0
    for days in range(-8, 9, 4):
        until = lake.until + timedelta(days=days)
        served = lake.read(until=until)
        known = {}
        for one in labels:  # in the order of their offsets
            if one["known_at_ms"] <= midnight_ms(until):
                before = known.get(one["transaction_id"])
                if before is None or before["known_at_ms"] <= one["known_at_ms"]:
                    known[one["transaction_id"]] = one
        for row in served.table.select(["transaction_id", "is_fraud"]).to_pylist():
            label = known.get(uuid.UUID(row["transaction_id"]).bytes)
            assert row["is_fraud"] == (None if label is None else label["is_fraud"])
            checked += 1
    assert checked > 200


@given(known_days=st.lists(st.integers(-30, 30), min_size=1, max_size=5), until_days=st.integers(-30, 30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
def test_a_label_counts_from_the_moment_on_that_it_was_known(served_lake, tmp_path_factory, known_days, until_days):
    folder = tmp_path_factory.mktemp("lake")
    for name in ("card_transactions", "card_decisions"):
        shutil.copytree(served_lake.folder / name, folder / name)
    row = served_lake.read().table.select(["transaction_id"]).to_pylist()[0]["transaction_id"]
    begin_ms = midnight_ms(served_lake.until)
    values = [
        {
            "transaction_id": uuid.UUID(row).bytes,
            "is_fraud": i % 2 == 0,
            "known_at_ms": begin_ms + day * DAY_MS,
            "scenario": None,
        }
        for i, day in enumerate(known_days)
    ]
    fill(folder, "fraud-labels", [EXAMPLE | one for one in values])
    until = served_lake.until + timedelta(days=until_days)
    rows = read_served(Lake(str(folder), TABLES), TrainingPeriod(until, 0, replayed=True), "code").table.to_pylist()

    known = [(day, i) for i, day in enumerate(known_days) if day <= until_days]
    expected = max(known)[1] % 2 == 0 if known else None
    found = [one["is_fraud"] for one in rows if one["transaction_id"] == row]
    assert found == [expected] if until_days >= 0 else found in ([expected], [])


def compared_columns() -> int:
    return sum(not name.startswith(("terminal_", "account_", "customer_")) for name in FEATURE_NAMES)


def test_the_log_folded_again_makes_what_was_served_bit_for_bit(served_lake: ServedLake):
    served, lake = served_lake.read(), Lake(str(served_lake.folder), TABLES)
    period = TrainingPeriod(served_lake.until, 0, replayed=True)

    made = recompute(lake, served, period)

    assert (made.different, made.too_early, made.made) == (0, 0, 0)
    assert made.compared == len(served.vectors) * compared_columns()
    other = replace(served, vectors=served.vectors.copy())
    other.vectors[3, FEATURE_NAMES.index("card_count_1h")] += 1
    assert recompute(lake, other, period).different == 1


def test_where_the_lake_begins_later_than_serving_did_nothing_is_compared_that_it_cannot_know(tmp_path: Path):
    lake = ServedLake(tmp_path, late_share=0)
    lake.label([])
    shutil.rmtree(tmp_path / "card_transactions")
    log, cut = lake.system.log, 10
    values = {
        p: [(o, one.value) for o, one in enumerate(log.partition_log("card-transactions", p)) if o >= cut]
        for p in range(lake.system.partitions)
    }
    fill_values(tmp_path, "card-transactions", values)
    served = lake.read()
    made = recompute(Lake(str(tmp_path), TABLES), served, TrainingPeriod(lake.until, 0, replayed=True))

    assert served.description["left_out"]["without_transaction"] > 0
    assert made.different == 0
    assert made.too_early > 0
    assert made.compared == (len(served.vectors) - made.too_early) * compared_columns()


def test_vectors_of_another_feature_set_are_made_from_the_log(tmp_path: Path):
    lake = ServedLake(tmp_path)
    lake.label([])
    before = lake.read()
    shutil.rmtree(tmp_path / "card_decisions")
    changed = [one | {"feature_set_hash": "another", "features": [1.0, 2.0]} for one in lake.decisions]
    by_partition = {}
    for one in changed:
        by_partition.setdefault(one["source_partition"] % 2, []).append(one)
    for partition, records in by_partition.items():
        fill(tmp_path, "card-decisions", records, partition=partition)

    assert lake.read().description["left_out"]["of_other_feature_sets"] == len(before.table)
    period = TrainingPeriod(lake.until, 0, replayed=True, all_feature_sets=True)
    served = read_served(Lake(str(tmp_path), TABLES), period, "code")
    made = recompute(Lake(str(tmp_path), TABLES), served, period)

    assert (made.made, made.compared) == (len(before.table), 0)
    own = [i for i, name in enumerate(FEATURE_NAMES) if not name.startswith(("terminal_", "account_", "customer_"))]
    np.testing.assert_array_equal(made.vectors[:, own], before.vectors[:, own])


def test_what_was_decided_on_the_day_or_later_is_left_out_but_of_history_that_was_replayed(served_lake: ServedLake):
    replayed, live = served_lake.read(), served_lake.read(replayed=False)

    assert len(replayed.table) > 0 == len(live.table)
    assert live.description["left_out"]["decided_later"] >= len(replayed.table)
    with pytest.raises(TrainingSetError, match="--replayed"):
        live.labelled()


def test_blocked_ones_are_marked_and_not_taken_for_genuine(tmp_path: Path):
    lake = ServedLake(tmp_path, events=30)
    example = next(one for one in lake.decisions if not one["repeat"] and one["fallback_tier"] == "CHAMPION")
    where = example["source_partition"], example["source_offset"]
    shutil.rmtree(tmp_path / "card_decisions")
    changed = [
        one | {"action": "BLOCK"} if (one["source_partition"], one["source_offset"]) == where else one
        for one in lake.decisions
    ]
    fill(tmp_path, "card-decisions", changed)
    lake.label([])
    served = lake.read()

    row = next(
        i for i, one in enumerate(served.table.to_pylist()) if (one["source_partition"], one["source_offset"]) == where
    )
    assert served.blocked[row]
    assert not served.known[row]
    assert served.known.sum() >= len(served.table) - served.blocked.sum()
    lake.label([{"transaction_id": example["transaction_id"], "is_fraud": True, "known_at_ms": 0, "scenario": None}])
    again = lake.read()
    assert again.known[row]
    assert again.fraud[row]


def test_days_in_the_wrong_order_are_refused():
    with pytest.raises(TrainingSetError, match="wrong order"):
        TrainingPeriod(date(2026, 1, 1), 7, date(2026, 1, 2))


def run(folder: Path, *arguments: str):
    return CliRunner().invoke(dataset, ["build", "--lake-url", str(folder), *arguments])


def test_a_set_is_written_with_what_it_is(served_lake: ServedLake, tmp_path: Path):
    done = run(
        served_lake.folder, "--until", served_lake.until.isoformat(), "--label-delay", "0d", "--recompute", "--replayed", "--output",
        str(tmp_path / "set"),
    )  # fmt: skip

    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["recomputed"]["different"] == 0
    assert said == json.loads((tmp_path / "set/dataset.json").read_text())
    table = pyarrow.parquet.read_table(tmp_path / "set/transactions.parquet")
    assert set(FEATURE_NAMES) < set(table.column_names)
    assert len(table) == said["transactions"]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], "say --until DATE"),
        (["--until", "yesterday"], "'yesterday' is no day"),
        (["--until", "2026-01-01", "--from", "2026-02-01"], "wrong order"),
        (["--until", "2026-01-01", "--label-delay", "a week"], "is no number of days"),
    ],
)
def test_a_mistake_is_one_line(served_lake: ServedLake, arguments: list[str], wanted: str):
    done = run(served_lake.folder, *arguments)

    assert done.exit_code != 0
    assert wanted in done.stderr


def test_a_lake_without_decisions_says_what_is_missing(tmp_path: Path):
    fill(tmp_path, "fraud-labels", [EXAMPLE])

    done = run(tmp_path, "--until", "2026-01-01")

    assert done.exit_code == 1
    assert "card_transactions" in done.stderr


def test_the_control_group_stands_for_all_that_could_have_been_let_through(tmp_path: Path):
    lake = ServedLake(tmp_path, events=90)
    lake.label([])
    marks: list[dict[str, Any]] = [
        {"control_propensity": None, "control_action": None},
        {"control_propensity": 0.25, "control_action": None},
        {"control_propensity": 0.25, "control_action": "BLOCK", "action": "APPROVE"},
    ]
    lake.change_decisions(lambda i: marks[i % 3])

    served = lake.read()

    expected = {}
    for i, one in enumerate(lake.decisions):
        expected[one["source_partition"], one["source_offset"]] = (1.0, 0.0, 4.0)[i % 3]
    places = zip(served.table["source_partition"].to_pylist(), served.table["source_offset"].to_pylist(), strict=True)
    assert served.weight.tolist() == [expected[place] for place in places]
    assert served.description["control_group"] == sum(weight == 4 for weight in served.weight.tolist()) > 5
    assert (served.labelled().weight == served.weight).all()
