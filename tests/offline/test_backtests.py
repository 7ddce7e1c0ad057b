"""A policy on what was decided: the same policy changes nothing, another one's money is what a loop over its decisions adds up to."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from services.cli.backtest import backtest
from services.inference.released import live_model
from services.lake.queries import Lake
from services.offline.backtests.money import MEASURES, run_backtest
from services.offline.backtests.page import backtest_page
from services.offline.backtests.policy import PolicyError, read_policy
from services.offline.datasets.served import TABLES, TrainingPeriod, TrainingSetError
from services.offline.trainer.costs import CostTable
from tests.offline.test_served import ServedLake

BLOCK_LARGE = {
    "rules": [{"id": "large", "when": "transaction.amount > 50", "action": "BLOCK", "priority": 1, "reason": "large"}]
}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> ServedLake:
    found = ServedLake(tmp_path_factory.mktemp("lake"), events=200)
    ids = found.ids()
    found.label(
        [
            {"transaction_id": one, "is_fraud": i % 3 == 0, "known_at_ms": 0, "event_time_ms": 0, "scenario": None}
            for i, one in enumerate(ids[:90])
        ]
    )
    return found


def policy_file(folder: Path, **described: Any) -> Path:
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(described))
    return path


def tried(lake: ServedLake, path: Path) -> dict[str, Any]:
    period = TrainingPeriod(lake.until, 0, replayed=True)
    return run_backtest(Lake(str(lake.folder), TABLES), read_policy(path), period, 7, lambda _: None)


def test_what_was_live_changes_nothing(lake: ServedLake, tmp_path: Path):
    found = tried(lake, policy_file(tmp_path, review_minutes=4))

    assert found["model"] == "/".join(live_model().parts[-2:])
    assert found["decisions"] > 80
    assert found["flipped"] == 0
    for name in MEASURES:
        said = found["measures"][name]
        assert said["done"] == said["policy"]
        assert said["difference"] == {"value": 0.0, "interval": [0.0, 0.0]}


def naive(lake: ServedLake, limit_eur: float | None) -> dict[str, float]:
    """The slow way: one decision after the other, with what was known of it."""
    costs, sums = CostTable(), dict.fromkeys(MEASURES, 0.0)
    rows = Lake(str(lake.folder), TABLES).query(
        "SELECT d.action, d.decided_by, d.repeat, d.fallback_tier, t.billing_amount_minor / 100.0 AS eur, t.billing_currency, l.is_fraud "
        "FROM card_decisions d JOIN card_transactions t ON t.kafka_partition = d.source_partition AND t.kafka_offset = d.source_offset "
        "LEFT JOIN fraud_labels l ON l.transaction_id = d.transaction_id"
    )
    for row in rows.to_pylist():
        if row["repeat"] or row["fallback_tier"] != "CHAMPION":
            continue
        assert row["billing_currency"] == "EUR"
        if row["action"] == "BLOCK" and row["is_fraud"] is None:
            continue
        action, fraud = row["action"], bool(row["is_fraud"])
        forbidden = row["decided_by"] in ("ACCOUNT", "CUSTOMER")
        if limit_eur is not None and row["eur"] > limit_eur and not forbidden:
            action = "BLOCK"
        cost = costs.actions[action]

        def of(one: Any, fraud: bool = fraud, eur: float = row["eur"]) -> float:
            return one.handling_eur + ((eur + costs.chargeback_fee_eur) * one.loss_share if fraud else one.genuine_eur)

        sums["fraud_stopped_eur"] += row["eur"] * (1 - cost.loss_share) if fraud else 0.0
        sums["good_sales_lost_eur"] += row["eur"] if not fraud and action == "BLOCK" else 0.0
        sums["reviews"] += action == "REVIEW"
        sums["review_minutes"] += 3.0 * (action == "REVIEW")
        sums["net_value_eur"] += of(costs.actions["APPROVE"]) - of(cost)
    return sums


def test_money_is_what_a_loop_over_the_decisions_adds_up_to(lake: ServedLake, tmp_path: Path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(BLOCK_LARGE))
    found = tried(lake, policy_file(tmp_path, rules="rules.yaml", review_minutes=3))

    for what, limit in (("done", None), ("policy", 50.0)):
        for name, value in naive(lake, limit).items():
            assert found["measures"][name][what]["value"] == pytest.approx(value, abs=0.02), (what, name)
    for name in MEASURES:
        for said in found["measures"][name].values():
            low, high = said["interval"]
            assert low <= high
    assert found["flipped"] > 10
    assert {one["would_be"] for one in found["flips"]} == {"BLOCK"}
    assert all(one["why"].startswith("rule large; score ") for one in found["flips"])
    assert {uuid.UUID(one["transaction_id"]) for one in found["flips"]}


def test_thresholds_of_a_policy_stand_in_the_place_of_the_models(lake: ServedLake, tmp_path: Path):
    found = tried(lake, policy_file(tmp_path, thresholds={"challenge": 1e-9, "review": 2e-9, "block": 1.0}))

    assert found["measures"]["reviews"]["policy"]["value"] > found["measures"]["reviews"]["done"]["value"]
    assert {one["would_be"] for one in found["flips"]} == {"REVIEW"}


def test_the_page_holds_every_measure_and_escapes_what_it_shows(lake: ServedLake, tmp_path: Path):
    found = tried(lake, policy_file(tmp_path, thresholds={"challenge": 1e-9, "review": 2e-9, "block": 1.0}))
    found["flips"][0]["why"] = "<script>"

    page = backtest_page(found)

    assert page.count("<svg") == 1
    assert "<script>" not in page
    assert all(word in page for word in ("fraud stopped, EUR", "net value, EUR", "minutes of review"))
    assert not re.search(r"(src|href)=['\"]http", page)


@pytest.mark.parametrize(
    ("described", "says"),
    [
        ({"modell": "fraud/v4"}, "unknown 'modell'"),
        ({"model": "fraud/v99999"}, "there is no model fraud/v99999"),
        ({"thresholds": {"challenge": 0.5}}, "challenge, review and block"),
        ({"thresholds": {"challenge": 0.9, "review": 0.5, "block": 0.1}}, "thresholds"),
        ({"rules": "missing.yaml"}, "No such file"),
        ({"review_minutes": -1}, "review_minutes"),
    ],
)
def test_a_mistake_in_a_policy_is_one_line(lake: ServedLake, tmp_path: Path, described: dict, says: str):
    done = CliRunner().invoke(
        backtest,
        [str(policy_file(tmp_path, **described)), "--lake-url", str(lake.folder), "--until", lake.until.isoformat()],
    )

    assert done.exit_code == 1
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"\xff\xfe", b"a: [", b"- " * 100_000])
def test_a_file_that_is_no_policy_is_said(tmp_path: Path, content: bytes):
    (tmp_path / "policy.yaml").write_bytes(content)
    with pytest.raises(PolicyError):
        read_policy(tmp_path / "policy.yaml")


def test_a_period_without_anything_is_said_with_what_may_help(lake: ServedLake, tmp_path: Path):
    with pytest.raises(TrainingSetError, match="--replayed"):
        run_backtest(
            Lake(str(lake.folder), TABLES),
            read_policy(policy_file(tmp_path)),
            TrainingPeriod(lake.until, 0),
            7,
            lambda _: None,
        )


def test_the_command_writes_page_and_json(lake: ServedLake, tmp_path: Path):
    done = CliRunner().invoke(
        backtest,
        [
            str(policy_file(tmp_path, review_minutes=2)), "--lake-url", str(lake.folder), "--until", lake.until.isoformat(), "--label-delay",
            "0d", "--replayed", "--output", str(tmp_path / "out"),
        ],
    )  # fmt: skip

    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["flipped"] == 0
    assert (tmp_path / "out/backtest.html").read_text().startswith("<!doctype html>")
    assert json.loads((tmp_path / "out/backtest.json").read_text()).keys() == {*said, "flips"}
