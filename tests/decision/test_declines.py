"""What accounts and customers forbid is blocked with its own reason, whatever model and rules say; without any store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from services.codec.records import decode_record
from services.codec.reference import ACCOUNTS, CUSTOMERS
from services.codec.terminal_events import TOPIC as TERMINALS
from services.codec.transactions import TOPIC, encode_transactions
from services.core.columns import TransactionColumns, pack_code
from services.core.policy import Action
from services.core.profiles import DAY_MS
from services.core.reference.layout import Account, Customer
from services.core.rules.engine import RuleEngine
from services.core.rules.rule_set import Rule, RuleSet
from services.runtime import catalogue as m
from services.runtime.metrics import MetricsRegistry
from services.scorer.processor import ScorerProcessor
from services.streams import Records
from services.worker.processor import LookedUp
from tests.generators import random_events, to_columns
from tests.worker.memory_system import KAFKA_TIMESTAMP_MS, SAFE, released_model

ACCOUNT = Account("EUR", 1_000_000, 0, "ACTIVE", KAFKA_TIMESTAMP_MS - 2_000 * DAY_MS)
CUSTOMER = Customer("BE", 50.8, 4.3, "STANDARD", "EUR")
ALLOW_ALL = RuleEngine(RuleSet((Rule("allow", "transaction.amount >= 0", Action.APPROVE, priority=9),)))


def some(count: int = 12, **changes: Any) -> TransactionColumns:
    """Return genuine-looking transactions of one card, an hour apart."""
    columns = to_columns(random_events(4, count * 2, cards=1, late_share=0, dense=True))
    columns = columns.take(np.unique(columns.transaction_id, axis=0, return_index=True)[1][:count])
    filled = {
        "billing_amount_minor": 2_000,
        "amount_minor": 2_000,
        "merchant_category_code": 5411,
        "country": pack_code("BE"),
        "billing_currency": pack_code("EUR"),
        "currency": pack_code("EUR"),
        "entry_mode": 1,
    } | changes
    times = KAFKA_TIMESTAMP_MS - 3_600_000 * np.arange(count)[::-1]
    arrays = {name: np.full(count, value, np.int64) for name, value in filled.items()}
    here = {"latitude": np.full(count, 50.8), "longitude": np.full(count, 4.3)}
    return replace(columns, event_time_ms=times, **here, **arrays)


def decide(
    columns: TransactionColumns,
    account: Account | None = ACCOUNT,
    customer: Customer | None = CUSTOMER,
    rules: RuleEngine | None = None,
    *,
    missed: bool = False,
    metrics: MetricsRegistry | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the decisions and the alerts."""
    processor, n = ScorerProcessor(released_model(), SAFE), len(columns)
    processor.adopt_rules(1 if rules else 0, rules)
    zeros = np.zeros(n, np.int64)
    values = encode_transactions(columns)
    records = Records(TOPIC, zeros, np.arange(n), zeros + KAFKA_TIMESTAMP_MS, columns.card_id.tolist(), values)
    prepared = processor.prepare(records, np.zeros(n, np.int64))
    held = {
        ACCOUNTS: None if account is None else account.sealed(),
        CUSTOMERS: None if customer is None else customer.sealed(),
        TERMINALS: None,
    }
    found = {
        topic: LookedUp(
            [held[topic]] * len(keys), np.full(len(keys), KAFKA_TIMESTAMP_MS), np.zeros(len(keys), np.int64)
        )
        for topic, keys in prepared.lookups.items()
    }
    nothing = [None] * len(prepared.cards)
    outcome = processor.decide(prepared, nothing, {} if missed else found, np.ones(n, bool), KAFKA_TIMESTAMP_MS)
    if metrics is not None:
        processor.measure(metrics, prepared, outcome, KAFKA_TIMESTAMP_MS)
    outputs = {o.topic: [decode_record(value or b"")[1] for value in o.values] for o in outcome.outputs}
    return outputs["card-decisions"], outputs.get("card-alerts", [])


def codes(decision: dict[str, Any]) -> list[str]:
    return [one["code"] for one in decision["declines"]]


def test_nothing_is_refused_where_nothing_forbids_it():
    decisions, _ = decide(some())

    assert not any(codes(d) for d in decisions)
    assert not any("REFERENCE_MISSED" in d["degraded"] for d in decisions)
    assert not any(codes(d) for d in decide(some(), None, None)[0])


@pytest.mark.parametrize("rules", [None, ALLOW_ALL])
@pytest.mark.parametrize(
    ("account", "customer", "code", "source", "limit", "text"),
    [
        (replace(ACCOUNT, available_balance_minor=1_500, credit_limit_minor=400), CUSTOMER, "INSUFFICIENT_FUNDS", "ACCOUNT", 1_900,
         "20.00 EUR is more than the 19.00 EUR that the account can spend"),
        (replace(ACCOUNT, available_balance_minor=-5), CUSTOMER, "INSUFFICIENT_FUNDS", "ACCOUNT", 0,
         "20.00 EUR is more than the 0.00 EUR that the account can spend"),
        (replace(ACCOUNT, status="FROZEN"), CUSTOMER, "ACCOUNT_NOT_ACTIVE", "ACCOUNT", None, "the account is not active"),
        (ACCOUNT, replace(CUSTOMER, blocked_categories=(1, 5411)), "CATEGORY_BLOCKED", "CUSTOMER", None,
         "the customer blocked merchant category 5411"),
        (ACCOUNT, replace(CUSTOMER, blocked_countries=("BE",)), "COUNTRY_BLOCKED", "CUSTOMER", None, "the customer blocked payments in BE"),
        (ACCOUNT, replace(CUSTOMER, limit_per_transaction_minor=1_999), "OVER_TRANSACTION_LIMIT", "CUSTOMER", 1_999,
         "20.00 EUR is more than the 19.99 EUR of the customer's own limit per transaction"),
    ],
)  # fmt: skip
def test_what_is_forbidden_is_blocked_with_its_own_reason(account, customer, code, source, limit, text, rules):
    decisions, alerts = decide(some(), account, customer, rules)

    assert {d["action"] for d in decisions} == {"BLOCK"}
    assert {d["decided_by"] for d in decisions} == {source}
    assert all(d["declines"] == [{"code": code, "limit_minor": limit, "text": text}] for d in decisions)
    assert [a["declines"] for a in alerts] == [d["declines"] for d in decisions]
    said = {(a["kind"], a["severity"]) for a in alerts}
    assert ("DECLINE", "LOW") in said
    assert said == {("DECLINE", "LOW")} or rules is None
    assert {severity for kind, severity in said if kind == "DECLINE"} == {"LOW"}


@pytest.mark.parametrize(("action", "severity"), [("CHALLENGE", "LOW"), ("REVIEW", "MEDIUM"), ("BLOCK", "HIGH")])
def test_a_decline_that_rules_would_have_stopped_anyway_is_a_fraud_alert_as_severe_as_they_are(action, severity):
    broke = replace(ACCOUNT, available_balance_minor=0)
    stops = RuleEngine(RuleSet((Rule("stop", "transaction.amount >= 0", Action[action], priority=9),)))

    decisions, alerts = decide(some(), broke, rules=stops)

    assert {(d["action"], d["decided_by"]) for d in decisions} == {("BLOCK", "ACCOUNT")}
    least = ["LOW", "MEDIUM", "HIGH"].index(severity)
    assert {a["kind"] for a in alerts} == {"FRAUD"}
    assert min(["LOW", "MEDIUM", "HIGH"].index(a["severity"]) for a in alerts) == least


def test_alerts_are_counted_by_kind_and_severity():
    broke = replace(ACCOUNT, available_balance_minor=0)
    metrics = MetricsRegistry()
    for account, rules in ((broke, ALLOW_ALL), (broke, None), (ACCOUNT, None)):
        _, alerts = decide(some(), account, rules=rules, metrics=metrics)
        for alert in alerts:
            metrics.add(m.ALERTS, -1, alert["kind"], alert["severity"])
        assert alerts or account is ACCOUNT

    assert {
        labels: metrics.value(m.ALERTS, *labels) for labels in m.ALERTS.series if metrics.value(m.ALERTS, *labels)
    } == {}


def test_the_limit_per_day_counts_all_attempts():
    decisions, _ = decide(some(), customer=replace(CUSTOMER, limit_per_day_minor=7_000))

    assert [codes(d) for d in decisions] == [[]] * 3 + [["OVER_DAY_LIMIT"]] * 9
    assert [d["declines"][0]["limit_minor"] for d in decisions[3:6]] == [1_000, 0, 0]


def test_a_limit_in_another_currency_says_nothing():
    account = replace(ACCOUNT, currency="USD", available_balance_minor=0)
    customer = replace(CUSTOMER, currency="USD", limit_per_transaction_minor=1)

    assert not any(codes(d) for d in decide(some(), account, customer)[0])


def test_what_would_have_passed_is_within_what_the_account_can_spend():
    account = replace(ACCOUNT, available_balance_minor=1_130)
    decisions, _ = decide(some(), account)

    passing = [one for d in decisions for one in d["counterfactuals"] if one["changed"] == "amount"]
    assert passing
    for one in passing:
        assert one["amount_minor"] <= 1_130
    last = decisions[-1]["counterfactuals"][0]
    columns = some()
    amounts = columns.billing_amount_minor.copy()
    amounts[-1] = last["amount_minor"]
    again, _ = decide(replace(columns, billing_amount_minor=amounts), account)
    assert again[-1]["action"] == "APPROVE"


def test_without_an_answer_in_time_it_is_decided_and_said():
    broke = replace(ACCOUNT, available_balance_minor=0)
    decisions, _ = decide(some(), broke, missed=True)

    assert not any(codes(d) for d in decisions)
    assert all("REFERENCE_MISSED" in d["degraded"] for d in decisions)
