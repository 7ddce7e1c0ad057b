"""What the evaluator tells Prometheus of a lake: figures by age of label, drift once an hour, and that there is no lake."""

from __future__ import annotations

import math
import uuid
from pathlib import Path
from typing import Any

import pytest

from services.core.features import FEATURE_NAMES
from services.evaluator.figures import HOUR_MS, Evaluator
from services.lake.queries import Lake
from services.offline.datasets.served import TABLES
from services.offline.watching.drift import Window, baseline
from services.offline.watching.maturity import forecast, quality, read_history
from services.runtime import observing_metrics as m
from services.runtime.metrics import MetricsRegistry
from tests.offline.test_served import ServedLake

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> ServedLake:
    found = ServedLake(tmp_path_factory.mktemp("lake"), events=300)
    rows = found_rows(found)
    found.label(
        [
            {
                "transaction_id": uuid.UUID(one["id"]).bytes, "is_fraud": i % 2 == 0, "known_at_ms": one["event_time_ms"] + (i % 20) * DAY_MS,
                "event_time_ms": one["event_time_ms"], "scenario": None,
            }
            for i, one in enumerate(rows[:120])
        ]
    )  # fmt: skip
    return found


def found_rows(lake: ServedLake) -> list[dict[str, Any]]:
    return Lake(str(lake.folder), TABLES).query(  # type: ignore[no-any-return]
        "SELECT transaction_id AS id, event_time_ms FROM card_decisions WHERE NOT repeat ORDER BY event_time_ms"
    ).to_pylist()  # fmt: skip


def looked(lake: ServedLake, trained: Any = lambda _: {}) -> tuple[Evaluator, MetricsRegistry, int]:
    metrics = MetricsRegistry(m.EVALUATOR_METRICS)
    last_ms = max(one["event_time_ms"] for one in found_rows(lake))
    return Evaluator(TABLES, str(lake.folder), metrics, trained), metrics, last_ms


def test_the_figures_are_those_of_the_lake_by_age_of_label(lake: ServedLake):
    evaluator, metrics, last_ms = looked(lake)
    now_ms = last_ms + 16 * DAY_MS
    assert evaluator.look(now_ms) is None

    expected = quality(*read_history(Lake(str(lake.folder), TABLES), now_ms), now_ms)
    assert expected
    for one in expected:
        recall = 0.0 if math.isnan(one.recall) else one.recall  # what is not known has no series
        assert metrics.value(m.QUALITY, "recall", f"{one.age_days}d") == pytest.approx(recall)
        assert metrics.value(m.QUALITY, "frauds", f"{one.age_days}d") == one.frauds
    assert metrics.value(m.EVALUATED, "quality") == now_ms / 1000
    evaluator.look(last_ms + 2 * DAY_MS)
    ahead = forecast(*read_history(Lake(str(lake.folder), TABLES), last_ms + 2 * DAY_MS), last_ms + 2 * DAY_MS)
    assert ahead is not None
    assert metrics.value(m.QUALITY_FORECAST, "frauds") == ahead.frauds


def test_what_the_lake_is_asked_is_what_a_loop_over_its_rows_finds(lake: ServedLake):
    tables = Lake(str(lake.folder), TABLES)
    _, _, last_ms = looked(lake)
    now_ms = last_ms + 9 * DAY_MS
    seen, labels = read_history(tables, now_ms)

    decided = tables.query("SELECT * FROM card_decisions").to_pylist()
    amounts = {
        (t["kafka_partition"], t["kafka_offset"]): t["billing_amount_minor"] / 100
        for t in tables.query("SELECT * FROM card_transactions").to_pylist()
    }
    first_ms, today_ms = (now_ms // DAY_MS - 180) * DAY_MS, now_ms // DAY_MS * DAY_MS
    mine = [d for d in decided if not d["repeat"] and first_ms <= d["event_time_ms"] < today_ms]
    assert seen.decisions.sum() == len(mine)
    assert seen.stopped.sum() == sum(d["action"] != "APPROVE" for d in mine)
    assert seen.score_count.sum() == len(mine)
    expected = [
        (
            one["event_time_ms"] // DAY_MS, label["known_at_ms"] - one["event_time_ms"], label["is_fraud"],
            amounts[one["source_partition"], one["source_offset"]],
        )
        for label in tables.query("SELECT * FROM fraud_labels").to_pylist()
        for one in mine
        if one["transaction_id"] == label["transaction_id"] and label["known_at_ms"] <= now_ms
    ]  # fmt: skip
    found = zip(labels.day.tolist(), labels.age_ms.tolist(), labels.fraud.tolist(), labels.amount.tolist(), strict=True)
    assert len(expected) > 20
    assert sorted((*one[:3], round(one[3], 2)) for one in found) == sorted(
        (*one[:3], round(one[3], 2)) for one in expected
    )


def test_drift_is_looked_at_once_an_hour_against_the_training_of_the_model_that_decided(lake: ServedLake):
    asked = []
    everything = Lake(str(lake.folder), TABLES)
    first_ms = min(one["event_time_ms"] for one in found_rows(lake))

    def trained(name: str) -> Any:
        asked.append(name)
        return baseline(everything, Window(first_ms, first_ms + 400 * DAY_MS))

    evaluator, metrics, last_ms = looked(lake, trained)
    now_ms = (last_ms // HOUR_MS + 1) * HOUR_MS + 5
    assert evaluator.look(now_ms) is None
    assert asked == ["fraud/v4"]
    assert metrics.value(m.FEATURE_DRIFT, "amount") >= 0
    missing = [metrics.value(m.FEATURE_MISSING, name) for name in FEATURE_NAMES]
    assert 0 < max(missing) <= 1
    assert metrics.value(m.EVALUATED, "drift") == now_ms // HOUR_MS * HOUR_MS / 1000
    evaluator.look(now_ms + 60_000)
    assert len(asked) == 1
    evaluator.look(now_ms + 300 * HOUR_MS)  # an hour without decisions
    assert metrics.value(m.EVALUATED, "drift") == (now_ms // HOUR_MS + 300) * HOUR_MS / 1000


def test_a_lake_that_is_not_there_or_damaged_is_said_and_counted(lake: ServedLake, tmp_path: Path):
    metrics = MetricsRegistry(m.EVALUATOR_METRICS)
    evaluator = Evaluator(TABLES, str(tmp_path / "nowhere"), metrics, lambda _: {})
    evaluator.begin(1_700_000_000_000)
    said = evaluator.look(1_800_000_000_000)
    assert metrics.value(m.EVALUATED, "quality") == metrics.value(m.EVALUATED, "drift") == 1_700_000_000
    assert said is not None
    assert "archiver" in said
    assert metrics.value(m.EVALUATOR_FAILURES) == 1
