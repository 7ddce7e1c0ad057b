"""What Prometheus is asked can be answered: labels and their values are those of the catalogue, and no test of an alert is about nothing.

An alert on a label that was renamed never fires, and a test that feeds it series with the old label is content. So queries, and what the
rules' own tests feed them, are held against the catalogue; and a test in which an alert must not fire has every series that it asks for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from services.codec.schemas import topics
from services.observer.questions import QUESTIONS
from services.registry import LOGS
from services.runtime import catalogue as m
from tests.test_deploy import ALERTS, RECORDING, ROOT, queries

RULE_TESTS = yaml.safe_load((ROOT / "tests/compose/alerts.test.yml").read_text())["tests"]
METRICS = {metric.name: metric for metric in m.ALL_METRICS}
RECORDED = {rule["record"]: rule["expr"] for group in RECORDING for rule in group["rules"]}
RULES = {rule["alert"]: rule["expr"] for group in ALERTS for rule in group["rules"]}
SCRAPED = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
OF_PROMETHEUS = {"job": {job["job_name"] for job in SCRAPED}, "instance": None}
"""The labels that Prometheus adds, and their values."""
OF_ALERTS = {"alertname": None, "alertstate": {"pending", "firing"}, "severity": {"page", "ticket"}}
NAME = r"\b(?:proact[_:][a-z0-9_:]+|up|process_[a-z_]+|ALERTS)\b"
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
PART = re.compile("_(bucket|sum|count)$")


@dataclass(frozen=True)
class Selector:
    """A series that a query asks for, and the labels by which it does."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]

    def wrong(self) -> Iterator[str]:
        """Say what of it cannot be."""
        if self.name in RECORDED:
            return
        labels = labels_of(self.name)
        for label, how, text in self.matchers:
            if label not in labels:
                yield f"{self.name} has no label {label}"
                continue
            values = text.split("|") if how in ("=~", "!~") else [text]
            if labels[label] is not None and not set(values) <= labels[label]:
                yield f"{self.name}: {label} is never {text}"


def selectors(query: str) -> list[Selector]:
    return [
        Selector(found[1], tuple(MATCHER.findall(found[2] or "")))
        for found in re.finditer(rf"({NAME})(\{{[^}}]*\}})?", query)
    ]


def labels_of(series: str) -> dict[str, set[str] | None]:
    """Return the labels that a series has, each with its values where they are closed."""
    metric, part = METRICS.get(series) or METRICS.get(PART.sub("", series)), PART.search(series)
    own = {label.name: None if label.values is None else set(label.values) for label in metric.labels} if metric else {}
    if metric and "topic" in own:
        own["topic"] = {*topics(), *LOGS}  # the monitor names logs
    edges = {f"{edge:g}" for edge in metric.buckets} | {"+Inf"} if metric and part and part[1] == "bucket" else None
    return own | OF_PROMETHEUS | (OF_ALERTS if series == "ALERTS" else {}) | ({"le": edges} if edges else {})


def wrong_in(query: str) -> list[str]:
    """Return what a query asks for and cannot get."""
    found = [said for selector in selectors(query) for said in selector.wrong()]
    known = {label for one in selectors(resolved(query)) for label in labels_of(one.name)}
    for grouped in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", query):
        found += [
            f"nothing has a label {label}" for label in filter(None, re.split(r"[\s,]+", grouped)) if label not in known
        ]
    return found


def resolved(query: str) -> str:
    """Return a query with the expressions of the recording rules that it names in their place."""
    while named := [name for name in re.findall(NAME, query) if name in RECORDED]:
        query = query.replace(named[0], f"({RECORDED[named[0]]})")
    return query


@pytest.mark.parametrize("where", queries())
def test_a_query_asks_by_labels_and_values_that_exist(where: str):
    query = queries()[where]

    assert selectors(query)
    assert wrong_in(query) == []


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ('sum(rate(proact_decisions_by_tier_total{tier!="CHAMPION"}[5m]))', "has no label tier"),
        (
            'sum(rate(proact_decisions_by_tier_total{fallback_tier!="CHAMPIONS"}[5m]))',
            "fallback_tier is never CHAMPIONS",
        ),
        ('up{job=~"scorer|scorers"} == 0', "job is never"),
        ('sum(proact_group_lag_records{topic="card-transaction"})', "topic is never"),
        ('rate(proact_decision_latency_seconds_bucket{le="0.11"}[5m])', "le is never 0.11"),
        ("sum by (act) (rate(proact_decisions_total[1m]))", "nothing has a label act"),
    ],
)
def test_a_query_that_cannot_be_answered_is_found(query: str, says: str):
    assert any(says in one for one in wrong_in(query)), wrong_in(query)


def fed() -> list[tuple[str, str]]:
    return [(test["name"], one["series"]) for test in RULE_TESTS for one in test["input_series"]]


@pytest.mark.parametrize("series", sorted({series for _, series in fed()}))
def test_what_the_tests_of_the_rules_feed_them_is_what_services_export(series: str):
    [one] = selectors(series)

    assert one.name in {"up"} | METRICS.keys() or PART.sub("", one.name) in METRICS
    assert list(one.wrong()) == []


def silent_cases() -> list[tuple[dict[str, Any], str]]:
    """Return the tests in which an alert must not fire."""
    cases = [(test, case) for test in RULE_TESTS for case in test.get("alert_rule_test", [])]
    return [(test, case["alertname"]) for test, case in cases if not case.get("exp_alerts")]


@pytest.mark.parametrize(
    ("test", "alert"), silent_cases(), ids=lambda one: one if isinstance(one, str) else one["name"]
)
def test_an_alert_that_must_not_fire_has_all_the_series_it_asks_for(test: dict[str, Any], alert: str):
    asked = {one.name for one in selectors(resolved(RULES[alert]))}
    there = {one.name for given in test["input_series"] for one in selectors(given["series"])}

    assert asked <= there, f"cannot fire, whatever the rule says: {sorted(asked - there)}"


def test_there_are_rules_tests_and_questions_to_look_at():
    assert min(len(QUESTIONS), len(RULES), len(RECORDED), len(RULE_TESTS), len(fed()), len(silent_cases())) > 5
