"""What would have been: vectors at other amounts against a fold of those amounts, and what is said of it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from services.core.aggregates import (
    AMOUNT_DEVIATION,
)
from services.core.explain.normals import own_normal
from services.core.explain.reasons import describe_counterfactual
from services.core.explain.what_if import Counterfactual, counterfactuals, vectors_at_amounts
from services.core.features import (
    FEATURE_NAMES,
    FEATURES,
)
from services.core.money import scales_of
from services.core.offline import compute_offline
from tests.generators import random_events, to_columns

AMOUNT = FEATURE_NAMES.index("transaction_amount")
RISK = FEATURE_NAMES.index("terminal_known_risk_7d")
KMH = FEATURE_NAMES.index("card_km_per_hour")


@pytest.mark.parametrize("seed", range(6))
def test_a_vector_at_another_amount_is_what_the_fold_of_that_amount_gives(seed):
    rng = np.random.default_rng(seed)
    columns = to_columns(random_events(seed, 120, cards=2, late_share=0.1))
    vectors = compute_offline(columns).vectors
    scale = scales_of(columns.billing_currency)
    exact = [j for j, f in enumerate(FEATURES) if f.aggregate != AMOUNT_DEVIATION]

    paid = np.flatnonzero(columns.billing_amount_minor > 0)  # below nothing there is nothing to try

    assert len(paid) > 25
    for row in rng.choice(paid, 25).tolist():
        was = int(columns.billing_amount_minor[row])
        other = int(rng.integers(1, 2 * was + 2))
        changed = columns.billing_amount_minor.copy()
        changed[row] = other
        expected = compute_offline(replace(columns, billing_amount_minor=changed)).vectors[row]
        found = vectors_at_amounts(vectors[[row]], np.array([was]), scale[[row]], np.array([other]))[0]

        np.testing.assert_array_equal(found[exact], expected[exact])
        np.testing.assert_allclose(found, expected, rtol=1e-6, equal_nan=True)


def a_vector(amount_minor: int) -> np.ndarray:
    vector = np.full(len(FEATURES), np.nan)
    vector[[j for j, name in enumerate(FEATURE_NAMES) if "count_with_current" in name]] = 1.0
    vector[[j for j, name in enumerate(FEATURE_NAMES) if "mean_with_current" in name]] = amount_minor / 100
    vector[AMOUNT], vector[RISK], vector[KMH] = amount_minor / 100, 0.5, 900.0
    return vector


def counterfactual(vector, amount_minor, scale, passes) -> Counterfactual | None:
    """Return what would have let one transaction pass."""
    amounts, scales = np.array([amount_minor]), np.array([scale])
    return counterfactuals(vector[None], amounts, scales, lambda tried, amount, _: passes(tried, amount))[0]


def test_several_are_reported_what_each_is_reported_by_itself():
    rng = np.random.default_rng(4)
    amounts = np.array([0, 1, 7, 41_200, 99_999, 150_000, 1_234])
    limits = rng.uniform(0.0, 1_000.0, len(amounts))
    limits[4] = -1.0  # nothing passes
    vectors = np.stack([a_vector(int(amount)) for amount in amounts])

    together = counterfactuals(
        vectors, amounts, np.full(len(amounts), 100.0), lambda tried, _, rows: tried[:, AMOUNT] <= limits[rows]
    )

    alone = [
        counterfactual(vectors[i], int(amount), 100.0, lambda tried, _, i=i: tried[:, AMOUNT] <= limits[i])
        for i, amount in enumerate(amounts.tolist())
    ]
    assert together == alone
    assert {one is None for one in together} == {True, False}
    assert counterfactuals(vectors[:0], amounts[:0], limits[:0], lambda *_: np.zeros(0, bool)) == []


def two_digits(amount: float) -> int:
    size = 1
    while amount >= 100 * size:
        size *= 10
    return int(amount // size * size)


def reported(amount_minor: int, passes) -> tuple[int, bool] | None:
    """What is said of lower amounts, the slow obvious way."""

    def tries(shares, low: int, high: int) -> list[int]:
        rounded = {two_digits(low + (high - low) * share) for share in shares}
        return sorted((one for one in rounded if low < one < high), reverse=True)

    tried = tries([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05, 0.02], 0, amount_minor)
    best = next((one for one in tried if passes(one)), None)
    if best is None:
        return None
    higher = tries([k / 7 for k in range(1, 7)], best, min([one for one in tried if one > best], default=amount_minor))
    good = list(itertools.takewhile(passes, reversed(higher)))
    return (good or [best])[-1], all(passes(one) for one in tried if one < best)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_reported_of_lower_amounts_is_what_the_slow_twin_says(seed):
    rng = np.random.default_rng(seed)
    amounts = rng.integers(1, 10 ** rng.integers(1, 9, 200))
    vectors = np.stack([a_vector(int(amount)) for amount in amounts])
    limits, spared = rng.uniform(-0.3, 1.2, len(amounts)) * amounts, rng.integers(2, 9)

    def passes(amount, row):
        return (amount <= limits[row]) & ((7 * amount + row) % spared != 0)

    found = counterfactuals(
        vectors,
        amounts,
        np.full(len(amounts), 100.0),
        lambda _, amount, rows: passes(amount, rows) & (amount < amounts[rows]),
    )

    assert [None if one is None else (one.amount_minor, one.and_below) for one in found] == [
        reported(int(amount), lambda one, row=row: bool(passes(one, row))) for row, amount in enumerate(amounts)
    ]
    assert {one and one.and_below for one in found} >= {None, True}


@pytest.mark.parametrize(
    "amount_minor", [1, 2, 9, 10, 11, 99, 100, 101, 999, 1_000, 12_345, 9_999_999, 10_000_000, 123_456_789_012]
)
def test_amounts_that_are_tried_have_two_digits_fall_and_are_lower(amount_minor):
    tried: list[int] = []

    def passes(_vectors, amounts):
        tried.extend(amounts[amounts != amount_minor].tolist())
        return np.zeros(len(amounts), bool)

    counterfactual(a_vector(amount_minor), amount_minor, 100.0, passes)

    assert all(len(str(one).rstrip("0")) <= 2 for one in tried)
    assert tried == sorted(set(tried), reverse=True)
    assert all(0 < one < amount_minor for one in tried)
    assert len(tried) == 12 or amount_minor < 100


def test_the_highest_amount_that_passes_is_reported_and_it_does_pass():
    found = counterfactual(a_vector(41_200), 41_200, 100.0, lambda tried, _: tried[:, AMOUNT] <= 187.0)

    assert found is not None
    assert found.changed == "amount"
    assert found.amount_minor is not None
    assert 16_000 <= found.amount_minor <= 18_700
    assert found.and_below
    assert describe_counterfactual(Counterfactual("amount", 18_000, True), "EUR") == "would pass at or below 180.00 EUR"


def test_an_amount_that_passes_above_one_that_does_not_is_no_limit():
    found = counterfactual(
        a_vector(41_200), 41_200, 100.0, lambda tried, _: (tried[:, AMOUNT] <= 165.0) | (tried[:, AMOUNT] == 180.0)
    )

    assert found is not None
    assert found.amount_minor is not None
    assert found.amount_minor == 16_000


def test_lower_amounts_that_do_not_pass_are_not_promised():
    found = counterfactual(
        a_vector(41_200), 41_200, 100.0, lambda tried, _: (tried[:, AMOUNT] <= 187.0) & (tried[:, AMOUNT] > 50.0)
    )

    assert found is not None
    assert not found.and_below
    assert describe_counterfactual(found, "EUR").startswith("would pass at 1")


@pytest.mark.parametrize(("column", "changed"), [(RISK, "terminal"), (KMH, "place")])
def test_something_else_is_changed_where_no_amount_passes(column, changed):
    found = counterfactual(a_vector(41_200), 41_200, 100.0, lambda tried, _: tried[:, column] == 0.0)

    assert found is not None
    assert (found.changed, found.amount_minor) == (changed, None)
    assert describe_counterfactual(found, "EUR").startswith("would pass at")


@pytest.mark.parametrize("amount_minor", [0, 1, 41_200])
def test_nothing_is_reported_where_nothing_passes(amount_minor):
    assert (
        counterfactual(a_vector(amount_minor), amount_minor, 100.0, lambda tried, _: np.zeros(len(tried), bool)) is None
    )


def test_every_feature_is_compared_with_what_is_normal_for_the_card():
    vector = a_vector(41_200)
    count, mean = FEATURE_NAMES.index("card_count_with_current_30d"), FEATURE_NAMES.index("card_mean_with_current_30d")
    vector[count], vector[mean] = 11.0, (10 * 38.20 + 412.0) / 11

    reported = {feature.name: own_normal(feature, vector) for feature in FEATURES}

    assert reported["transaction_amount"] == (pytest.approx(38.20), "this card's 30-day mean is 38.20")
    assert reported["card_amount_to_mean_30d"] == (1.0, "this card's 30-day mean is 38.20")
    assert reported["card_sum_1d"][0] == pytest.approx(38.20 / 3)
    assert reported["card_count_10m"][0] == pytest.approx(10 / 30 / 144)
    assert reported["card_seconds_since_last"] == (pytest.approx(259_200), "normally 72 hours")
    assert reported["transaction_hour"] == (None, "")
    assert all(own_normal(feature, a_vector(100)) == (None, "") for feature in FEATURES)
