"""The simulator, data sets, training and the observer's counting."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from services.core.columns import Text
from services.core.policy import Action, Thresholds
from services.inference.artifact import load_model
from services.observer.tally import distinct_actions, precision_recall
from services.offline.datasets.fields import namespaced_uuid
from services.offline.datasets.mapping import (
    DatasetError,
    Mapping,
    load_mapping,
    mapping_names,
    read_dataset,
)
from services.offline.datasets.parquet import write_parquet
from services.offline.replay.producer import Pace
from services.offline.simulator.generate import PRESETS, simulate
from services.offline.simulator.traffic import SCENARIOS, draw_labels
from services.offline.trainer.costs import CostTable, choose_thresholds
from services.offline.trainer.evaluation import card_precision_at
from services.offline.trainer.history import simulated_history
from services.offline.trainer.release import release
from services.offline.trainer.splitting import Split, split_for
from services.offline.trainer.training import Labelled, evaluate, train
from tests.benchmarks.parity import bits_differ, same_second_twins

START_MS = 1_767_225_600_000
DAY_MS = 86_400_000


@pytest.mark.parametrize("preset", PRESETS)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(preset):
    a, b, c = (simulate(300, 10, seed, START_MS, preset) for seed in (1, 1, 2))

    assert a.columns.transaction_id.tobytes() == b.columns.transaction_id.tobytes()
    assert a.columns.card_id.tolist() == b.columns.card_id.tolist()
    np.testing.assert_array_equal(a.columns.billing_amount_minor, b.columns.billing_amount_minor)
    assert a.columns.transaction_id.tobytes() != c.columns.transaction_id.tobytes()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_month_is_in_order_within_its_days_and_holds_between_3_and_10_frauds_in_a_thousand(preset):
    traffic = simulate(5_000, 30, 7, START_MS, preset)
    times = traffic.columns.event_time_ms

    assert len(traffic) > 200_000
    assert (np.diff(times) >= 0).all()
    assert times[0] >= START_MS
    assert times[-1] < START_MS + 30 * DAY_MS
    assert 0.003 < (traffic.scenario > 0).mean() < 0.01
    assert len(np.unique(traffic.columns.transaction_id, axis=0)) == len(traffic)


def test_the_default_preset_holds_every_scenario_and_they_look_like_what_they_are():
    traffic = simulate(5_000, 30, 7, START_MS)
    columns, names = traffic.columns, np.array(SCENARIOS)[traffic.scenario]
    cents = columns.billing_amount_minor

    assert set(names) == set(SCENARIOS) - {"contactless-relay"}, "which begins where somebody says so"
    hours = columns.event_time_ms[names == "account-takeover"] // 3_600_000 % 24
    assert hours.max() <= 6
    assert np.median(cents[names == "large-amount"]) > 10 * np.median(cents[names == "genuine"])
    assert (cents[names == "card-testing"] < 250).mean() > 0.5


def test_the_handbook_preset_follows_the_published_recipe():
    traffic = simulate(1_000, 30, 3, START_MS, "handbook")
    eur = traffic.columns.billing_amount_minor / 100

    assert (traffic.scenario[(eur > 220)] > 0).all()
    assert set(np.unique(traffic.scenario)) == {0, 1, 2, 3}
    per_card_day = Counter(traffic.columns.card_id.tolist()).values()
    assert max(per_card_day) / 30 < 6
    assert 40 < eur.mean() < 65


@pytest.mark.parametrize("arguments", [(0, 1, 1), (1, 0, 1), (1, 1, -1)])
def test_a_simulation_of_nothing_is_refused(arguments):
    with pytest.raises(ValueError, match="cards"):
        simulate(*arguments, START_MS)


def test_labels_come_days_later_for_every_fraud():
    traffic = simulate(500, 10, 1, START_MS)

    labels = draw_labels(traffic, np.random.default_rng(1))

    delays = labels.known_at_ms - traffic.columns.event_time_ms[labels.rows]
    assert set(np.flatnonzero(traffic.scenario > 0)) <= set(labels.rows.tolist())
    assert delays.min() >= 2 * DAY_MS
    assert delays.max() <= 14 * DAY_MS
    assert (np.diff(labels.known_at_ms) >= 0).all()


def test_paces_are_even_or_follow_the_event_times():
    assert Pace.at_rate(4, 500).due_ms.tolist() == [0, 2, 4, 6]
    assert Pace.by_event_time(np.array([1_000, 61_000, 121_000]), 60).due_ms.tolist() == [0, 1_000, 2_000]


def test_parquet_out_and_in_again_changes_nothing(tmp_path: Path):
    traffic = simulate(200, 5, 1, START_MS)
    path = tmp_path / "traffic.parquet"
    write_parquet(path, traffic.columns, traffic.scenario, SCENARIOS)

    [read] = list(read_dataset(path, load_mapping("proact")))

    for name in (field.name for field in fields(traffic.columns)):
        ours, theirs = getattr(traffic.columns, name), getattr(read.columns, name)
        if isinstance(ours, Text):
            assert ours.tolist() == theirs.tolist()
        else:
            np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(read.is_fraud, traffic.scenario > 0)


def test_a_csv_is_read_through_a_mapping_of_ones_own(tmp_path: Path):
    (tmp_path / "bank.csv").write_text(
        "id,card,when,eur\n7,a1,2026-01-05 10:00:00,12.34\n8,a2,2026-01-05 10:00:01,0.00\n"
    )
    mapping = (Path(__file__).parents[2] / "services/offline/datasets/mappings/handbook.yaml").read_text()
    for theirs, ours in (
        ("TRANSACTION_ID", "id"),
        ("CUSTOMER_ID", "card"),
        ("TERMINAL_ID", "card"),
        ("TX_AMOUNT", "eur"),
        ("TX_DATETIME", "when"),
    ):
        mapping = mapping.replace(theirs, ours)
    (tmp_path / "bank.yaml").write_text(mapping.split("truth:")[0])

    [read] = list(read_dataset(tmp_path / "bank.csv", load_mapping(str(tmp_path / "bank.yaml")), limit=2))

    assert read.columns.card_id.tolist() == [b"card-a1", b"card-a2"]
    assert read.columns.billing_amount_minor.tolist() == [1234, 0]
    assert read.columns.event_time_ms[0] == 1_767_607_200_000
    assert read.columns.transaction_id[0].tobytes() == namespaced_uuid("handbook", 7).bytes
    assert read.is_fraud is None


def test_mistakes_with_files_and_mappings_are_reported_in_one_line(tmp_path: Path):
    (tmp_path / "empty.csv").write_text("a,b\n1,2\n")
    (tmp_path / "not.parquet").write_text("hello")
    (tmp_path / "bad.yaml").write_text("fields: {card_id: {colum: x}}")
    handbook = load_mapping("handbook")
    for path in ("missing.parquet", "empty.csv", "not.parquet"):
        with pytest.raises(DatasetError) as caught:
            list(read_dataset(tmp_path / path, handbook))
        assert "\n" not in str(caught.value)
    for name in ("nowhere", str(tmp_path / "bad.yaml")):
        with pytest.raises(DatasetError):
            load_mapping(name)
    assert mapping_names() == ["handbook", "proact"]
    with pytest.raises(DatasetError, match="must be a constant or a column"):
        Mapping("m", {**handbook.fields, "card_id": {"constant": 1, "column": "x"}}, {})


def test_training_splits_by_time_with_the_label_delay_between():
    split = split_for(130, 14)

    assert split.train_until + 14 == split.validate_from < split.test_from < split.test_until == 130
    with pytest.raises(ValueError, match="too short"):
        split_for(10, 14)
    with pytest.raises(ValueError, match="too short"):
        Split(10, 5, 1, 1, 20)


def test_training_makes_a_release_that_verifies(tmp_path: Path):
    history = simulated_history(1_200, 70, 3, START_MS)
    trained = train(Labelled.of(history), 7, CostTable(), lambda _: None)
    manifest = release(tmp_path / "fraud" / "v9", trained, CostTable(), START_MS)

    model = load_model(tmp_path / "fraud" / "v9")

    assert (model.name, model.version) == ("fraud", "v9")
    others = evaluate(model, simulated_history(800, 45, 99, START_MS))
    assert others["test"]["average_precision"] > 0.3
    assert manifest.metrics["test"]["average_precision"] > 0.3
    assert {p.name for p in (tmp_path / "fraud" / "v9").iterdir()} == {
        "champion.json", "small.json", "anomaly.json", "manifest.json", "golden.json", "MODEL_CARD.md", "precision_recall.svg",
    }  # fmt: skip
    assert "| account-takeover |" in (tmp_path / "fraud" / "v9" / "MODEL_CARD.md").read_text()


def test_the_chosen_thresholds_cost_no_more_than_any_others_tried():
    rng, costs = np.random.default_rng(2), CostTable()
    fraud = rng.random(5_000) < 0.02
    scores = np.clip(np.where(fraud, rng.beta(4, 2, 5_000), rng.beta(1, 20, 5_000)), 0.001, 0.999)
    amount = rng.uniform(1, 500, 5_000)

    def cost(thresholds: Thresholds) -> float:
        actions = thresholds.actions(scores)
        return sum(float(costs.of(a, fraud, amount)[actions == a].sum()) for a in Action)

    chosen = cost(choose_thresholds(scores, fraud, amount, costs))

    for _ in range(200):
        levels = np.sort(rng.choice(scores[scores > np.quantile(scores, 0.8)], 3))
        assert chosen <= 1.02 * cost(Thresholds(*levels))


def test_card_precision_leaves_out_a_card_that_was_found_before():
    card, day = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    fraud, scores = np.array([True, False, True, True]), np.array([0.9, 0.1, 0.9, 0.8])

    assert card_precision_at(scores, fraud, card, day, top=1) == 1.0
    assert card_precision_at(scores, np.array([True, False, True, False]), card, day, top=1) == 0.5


def test_precision_and_recall_are_joined_by_transaction_and_a_repeat_counts_once():
    ids = np.arange(64, dtype=np.uint8).reshape(4, 16)
    seen, actions = distinct_actions([ids[[2, 0, 1]], ids[[2]]], [np.array([3, 0, 1]), np.array([3])])

    precision, recall = precision_recall(seen, actions, ids, np.array([False, False, True, True]))

    assert len(seen) == 3
    assert (precision, recall) == (0.5, 1.0)


def test_twins_and_differing_bits_are_found():
    traffic = simulate(50, 3, 1, START_MS)
    twin = traffic.columns.take(np.array([0, 0, 1]))

    assert same_second_twins(twin).tolist() == [True, True, False]
    a = np.array([[1.0, np.nan], [0.1 + 0.2, 0.0]])
    assert bits_differ(a, np.array([[1.0, np.nan], [0.3, 0.0]])).tolist() == [False, True]
