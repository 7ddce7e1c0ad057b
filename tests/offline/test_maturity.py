"""What labels say as they come: each figure is what a loop says, an old label changes its own day alone, forecasts grow as earlier days did."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.offline.watching.maturity import (
    AGES,
    WINDOW_DAYS,
    Decisions,
    LabelHistory,
    average_precision,
    forecast,
    grown,
    quality,
)

DAY_MS = 86_400_000
TODAY = 20_000
NOW_MS = TODAY * DAY_MS + 5_000


def history(seed: int, days: int = 140) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return decisions and labels, one by one."""
    rng = np.random.default_rng(seed)
    decisions, labels = [], []
    for i in range(40 * days):
        fraud = rng.random() < 0.08
        score = round(float(np.clip(rng.beta(2, 8) + 0.4 * fraud * rng.random(), 0, 1)), 4)
        one = {
            "id": i,
            "day": TODAY - days + i // 40,
            "score": score,
            "stopped": score > 0.35,
            "amount": float(rng.integers(1, 500)),
        }
        decisions.append(one)
        if fraud or rng.random() < 0.02:
            for _ in range(1 + (rng.random() < 0.1)):  # now and then somebody changes their mind
                age = int(rng.exponential(12 * DAY_MS)) if fraud else int(rng.integers(0, 40 * DAY_MS))
                labels.append(one | {"fraud": bool(fraud and rng.random() < 0.95), "age_ms": age})
    known = [one for one in labels if one["day"] * DAY_MS + one["age_ms"] <= NOW_MS]
    return decisions, sorted(known, key=lambda one: (one["day"], one["id"], one["age_ms"]))


def arrays(decisions: list[dict[str, Any]], labels: list[dict[str, Any]]) -> tuple[Decisions, LabelHistory]:
    days = sorted({d["day"] for d in decisions})
    return (
        Decisions(
            np.array(days),
            np.array([sum(d["day"] == day for d in decisions) for day in days]),
            np.array([sum(d["day"] == day and d["stopped"] for d in decisions) for day in days]),
            np.array([d["day"] for d in decisions]), np.array([d["score"] for d in decisions]), np.ones(len(decisions), np.int64),
        ),
        LabelHistory(*(np.array([one[name] for one in labels], kind) for name, kind in (
            ("day", np.int64), ("id", np.int64), ("score", float), ("stopped", bool), ("fraud", bool), ("age_ms", np.int64),
            ("amount", float),
        ))),
    )  # fmt: skip


def known_frauds(labels: list[dict[str, Any]], age_ms: int) -> dict[int, dict[str, Any]]:
    newest: dict[int, dict[str, Any]] = {}
    for one in labels:
        if one["age_ms"] <= age_ms:
            newest[one["id"]] = one
    return {i: one for i, one in newest.items() if one["fraud"]}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_figures_are_those_of_a_loop(seed):
    decisions, labels = history(seed)
    found = quality(*arrays(decisions, labels), NOW_MS)

    assert [one.age_days for one in found] == list(AGES)
    for one in found:
        last = (NOW_MS - one.age_days * DAY_MS) // DAY_MS - 1
        assert (one.first_day, one.last_day) == (last - WINDOW_DAYS + 1, last)
        frauds = {
            i: f for i, f in known_frauds(labels, one.age_days * DAY_MS).items() if one.first_day <= f["day"] <= last
        }
        mine = [d for d in decisions if one.first_day <= d["day"] <= last]
        caught = [f for f in frauds.values() if f["stopped"]]
        assert (one.decisions, one.stopped, one.frauds) == (len(mine), sum(d["stopped"] for d in mine), len(frauds))
        assert one.precision == pytest.approx(len(caught) / one.stopped)
        assert one.recall == pytest.approx(len(caught) / len(frauds))
        assert one.fraud_stopped == pytest.approx(sum(f["amount"] for f in caught))
        assert one.fraud_missed == pytest.approx(sum(f["amount"] for f in frauds.values() if not f["stopped"]))
        expected = 0.0
        for level in sorted({f["score"] for f in frauds.values()}, reverse=True):
            above = [d for d in mine if d["score"] >= level]
            hits = sum(d["id"] in frauds for d in above)
            at_level = sum(f["score"] == level for f in frauds.values())
            expected += hits / len(above) * at_level / len(frauds)
        assert one.average_precision == pytest.approx(expected)


def test_an_old_label_changes_the_figures_of_its_own_day_alone():
    decisions, labels = history(5)
    before = quality(*arrays(decisions, labels), NOW_MS)
    newest = next(one for one in decisions if one["day"] == before[0].last_day and not one["stopped"])
    late = newest | {"fraud": True, "age_ms": 3 * DAY_MS}
    after = quality(
        *arrays(decisions, sorted([*labels, late], key=lambda one: (one["day"], one["id"], one["age_ms"]))), NOW_MS
    )

    assert after[1:] == before[1:]
    assert after[0].frauds == before[0].frauds + 1
    assert after[0].recall < before[0].recall
    older = next(one for one in decisions if one["day"] == before[2].last_day and not one["stopped"])
    late = older | {"fraud": True, "age_ms": 29 * DAY_MS}
    again = quality(
        *arrays(decisions, sorted([*labels, late], key=lambda one: (one["day"], one["id"], one["age_ms"]))), NOW_MS
    )
    assert [again[j] == before[j] for j in range(len(AGES))] == [True, True, False, True, True]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), min_size=1, max_size=20), st.data())
def test_average_precision_is_that_of_a_list_of_transactions(levels, data):
    scores, counts = [level / 20 for level, _ in levels], [n for _, n in levels]
    every = [s for s, n in zip(scores, counts, strict=True) for _ in range(n)]
    frauds = data.draw(st.lists(st.sampled_from(range(len(every))), unique=True, max_size=len(every)))
    found = average_precision(np.array(scores), np.array(counts), np.array([every[i] for i in frauds]))
    if not frauds:
        assert math.isnan(found)
        return
    expected = 0.0
    for level in {every[i] for i in frauds}:
        hits = sum(every[i] >= level for i in frauds)
        expected += sum(every[i] == level for i in frauds) / len(frauds) * hits / sum(s >= level for s in every)
    assert found == pytest.approx(expected)


@given(st.lists(st.floats(1.0, 3.0), min_size=4, max_size=8), st.lists(st.floats(1, 100), min_size=9, max_size=12))
def test_where_all_days_grow_alike_the_forecast_is_what_comes(factors, begins):
    ages = len(factors) + 1
    full = np.array([[begin * math.prod(factors[:a]) for a in range(ages)] for begin in begins])
    age = np.clip(len(begins) - 1 - np.arange(len(begins)), 0, ages - 1)
    seen = np.where(np.arange(ages)[None, :] <= age[:, None], full, -1e9)  # what is not known yet is not looked at

    found, now = grown(seen, age)

    assert found == pytest.approx(full[:, -1])
    assert now == pytest.approx(full[np.arange(len(begins)), age])


def test_the_forecast_is_nearer_to_the_end_than_what_is_known_now():
    nearer = 0
    for seed in range(8):
        decisions, labels = history(seed)
        found = forecast(*arrays(decisions, labels), NOW_MS)
        assert found is not None
        # Of yesterday nobody can know anything yet.
        assert (found.first_day, found.last_day) == (TODAY - 1 - WINDOW_DAYS, TODAY - 2)
        mean = np.mean(
            [
                sum(1 for f in known_frauds(labels, 60 * DAY_MS).values() if f["day"] == d)
                for d in range(TODAY - 130, TODAY - 90)
            ]
        )
        nearer += abs(found.frauds - 7 * mean) < abs(found.frauds_so_far - 7 * mean)
        assert found.frauds >= found.frauds_so_far
    assert nearer >= 7


def test_where_labels_take_a_week_the_forecast_is_of_days_that_are_as_old():
    decisions, labels = history(3)
    late = [one for one in labels if one["age_ms"] >= 7 * DAY_MS]
    found = forecast(*arrays(decisions, late), NOW_MS)
    assert found is not None
    assert TODAY - 10 <= found.last_day <= TODAY - 8
    assert found.frauds > 0


def test_days_without_anything_have_no_figures():
    nothing = np.zeros(0, np.int64)
    decisions = Decisions(nothing, nothing, nothing, nothing, nothing.astype(float), nothing)
    labels = LabelHistory(
        nothing,
        nothing,
        nothing.astype(float),
        nothing.astype(bool),
        nothing.astype(bool),
        nothing,
        nothing.astype(float),
    )
    assert quality(decisions, labels, NOW_MS) == []
    assert forecast(decisions, labels, NOW_MS) is None
    some = replace(decisions, day=np.array([TODAY - 3]), decisions=np.array([5]), stopped=np.array([0]))
    found = forecast(some, labels, NOW_MS)
    assert found is not None
    assert found.frauds == 0
    assert math.isnan(found.recall)
