"""What an analyst reads of a decision: numbers that say something, each once, and what is not known last."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.columns import ENTRY_MODES
from services.core.explain.normals import own_normal
from services.core.explain.reasons import REASONS_MAX, describe, heaviest_reasons
from services.core.features import FEATURE_NAMES, FEATURES
from services.observer.view import explained_by

AMOUNT = "6.37 EUR"
AT = {name: j for j, name in enumerate(FEATURE_NAMES)}
_NUMBERS = [
    0.0,
    1e-9,
    0.004,
    0.0049,
    0.04,
    0.05,
    0.0999,
    0.1,
    0.5,
    0.949,
    0.95,
    0.96,
    0.9949,
    1.0,
    1.04,
    2.0,
    3.0,
    9.95,
    10.8,
    1234.5,
]
"""Where a number's words change, and just beside."""
SPAN = re.compile(r"\b\d+[ -](days?|hours?|minutes?)\b|00:00 to 06:59|\d\d:00 and \d\d:59")


def values_of(j: int) -> st.SearchStrategy[float]:
    """Return what a feature may be."""
    unit, name = FEATURES[j].unit, FEATURE_NAMES[j]
    whole = {"0 or 1": 1, "code": len(ENTRY_MODES) - 1, "h": 23}
    if name == "transaction_weekday":
        return st.integers(0, 6).map(float)
    if unit in whole:
        return st.integers(0, whole[unit]).map(float)
    if unit in ("transactions", "terminals", "countries"):
        return st.integers(1 if "with_current" in name else 0, 300).map(float)
    if unit == "share":
        return st.floats(0.0, 1.0)
    if unit == "standard deviations":
        return st.floats(-30.0, 30.0) | st.sampled_from([-n for n in _NUMBERS] + _NUMBERS)
    return st.floats(0.0, 1e6) | st.sampled_from(_NUMBERS)


@st.composite
def vectors(draw) -> np.ndarray:
    known = draw(st.lists(st.booleans(), min_size=len(FEATURES), max_size=len(FEATURES)))
    every = draw(st.booleans())
    drawn = [draw(values_of(j)) if there or every else math.nan for j, there in enumerate(known)]
    return np.array(drawn)


weights = st.lists(
    st.sampled_from([-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 2.0]), min_size=len(FEATURES), max_size=len(FEATURES)
)


def figures(text: str) -> list[str]:
    """Return the numbers of a text, those of spans of time aside."""
    return [found.replace(",", "") for found in re.findall(r"-?\d[\d,]*(?:\.\d+)?", SPAN.sub("", text))]


@given(vector=vectors(), shares=weights)
def test_reasons_say_numbers_that_mean_something_each_once_and_what_is_missing_last(vector, shares):
    contributions = np.array(shares)

    reasons = heaviest_reasons(contributions, vector, AMOUNT)

    rows = [AT[one.code] for one in reasons]
    missing = [math.isnan(vector[j]) for j in rows]
    there = sorted((s for s, x in zip(shares, vector, strict=True) if s > 0 and not math.isnan(x)), reverse=True)
    left = sorted((s for s, x in zip(shares, vector, strict=True) if s > 0 and math.isnan(x)), reverse=True)
    chosen = there[:REASONS_MAX]
    assert [one.weight for one in reasons] == [*chosen, *left[: REASONS_MAX - len(chosen)]]
    assert missing == sorted(missing)
    assert sum(missing) <= max(0, REASONS_MAX - len(there))
    line = "; ".join(one.text for one in reasons)
    for one in reasons:
        assert "nan" not in one.text
        assert not re.search(
            r"(?<![\d.,])-?0(\.0+)? (times|standard|transactions|hours|seconds|km)|\b0(\.0+)?%", one.text
        ), one.text
        assert not re.search(
            r"(?<![\d.])1 (transactions|terminals|countries|amounts|times|days|hours|seconds)\b", one.text
        ), one.text
        assert len(set(figures(one.text))) == len(figures(one.text)), one.text
    assert line.count(AMOUNT) <= 1
    assert line.count("30-day mean") <= 1
    assert len({one.text for one in reasons}) == len(reasons)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("card_amount_to_mean_30d", 10.81, "6.37 EUR is 10.8 times this card's average of 30 days"),
        ("card_amount_to_mean_30d", 0.27, "6.37 EUR is 27% of this card's average of 30 days"),
        ("card_amount_to_mean_30d", 0.004, "6.37 EUR is less than a hundredth of this card's average of 30 days"),
        ("card_amount_to_largest_30d", 0.03, "6.37 EUR is less than a tenth of this card's largest of 30 days"),
        ("card_amount_to_median_30d", 0.0, "6.37 EUR is less than a hundredth of the middle one of this card's last amounts"),
        ("card_amount_deviation_30d", -0.8, "6.37 EUR is 0.8 standard deviations below this card's average of 30 days"),
        ("card_amount_deviation_30d", 2.3, "6.37 EUR is 2.3 standard deviations above this card's average of 30 days"),
        ("card_amount_deviation_30d", 0.01, "6.37 EUR is close to this card's average of 30 days"),
        ("account_amount_to_spendable", 0.001, "6.37 EUR is less than a hundredth of what the account can spend"),
        ("account_amount_to_spendable", 1.3, "6.37 EUR is 130% of what the account can spend"),
        ("terminal_known_risk_7d", 0.0, "none of this terminal's transactions in the 7 days until a week ago was a fraud"),
        ("card_count_10m", 0.0, "no transaction in the 10 minutes before"),
        ("card_count_10m", 1.0, "1 transaction in the 10 minutes before"),
        ("card_sum_1d", 0.0, "nothing spent in the 24 hours before"),
        ("card_times_at_terminal_30d", 1.0, "used this terminal once in 30 days"),
        ("card_times_at_terminal_30d", 0.0, "never at this terminal in 30 days"),
        ("card_km_per_hour", 0.2, "less than 1 km/h from the card's last position"),
        ("card_km_per_hour", math.nan, "the speed from the card's last position is not known"),
    ],
)  # fmt: skip
def test_what_is_read_of_one_feature(name, value, words):
    assert describe(FEATURES[AT[name]], value, AMOUNT) == words


def a_card(mean: float, count: int, amount: float) -> np.ndarray:
    vector = np.full(len(FEATURES), np.nan)
    vector[AT["transaction_amount"]], vector[AT["card_count_with_current_30d"]] = amount, count + 1.0
    vector[AT["card_mean_with_current_30d"]] = (mean * count + amount) / (count + 1)
    return vector


def test_the_mean_is_said_once_and_later_reasons_say_the_amount():
    vector = a_card(38.2, 10, 6.37)
    vector[AT["card_amount_to_mean_30d"]], vector[AT["card_amount_to_median_30d"]] = 6.37 / 38.2, 13.6
    contributions = np.zeros(len(FEATURES))
    for weight, name in enumerate(
        ["card_km_per_hour", "transaction_amount", "card_amount_to_median_30d", "card_amount_to_mean_30d"]
    ):
        contributions[AT[name]] = 4.0 - weight

    reported = [one.text for one in heaviest_reasons(contributions, vector, AMOUNT)]

    assert reported == [
        "the amount is 6.37 EUR; this card's 30-day mean is 38.20",
        "the amount is 13.6 times the middle one of this card's last amounts",
        "the amount is 17% of this card's average of 30 days",
    ]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("card_seconds_since_last", 18_000.0, "5 hours after the card's last transaction; normally 72 hours"),
        ("card_seconds_since_last", 172_800.0 * 1.5, "3 days after the card's last transaction; normally 72 hours"),
        ("card_sum_1d", 50.0, "50.00 spent in the 24 hours before; this card normally spends 12.73 in that time"),
        ("card_count_with_current_7d", 5.0, "transaction number 5 of this card in 7 days; this card normally has 2.3"),
        ("card_mean_with_current_30d", 38.2, "this card spends 38.20 on average in 30 days, this one included"),
    ],
)  # fmt: skip
def test_what_is_normal_is_said_beside_it_unless_it_is_the_same(name, value, words):
    vector = a_card(38.2, 10, 38.2)
    vector[AT[name]] = value
    contributions = np.zeros(len(FEATURES))
    contributions[AT[name]] = 1.0

    [reported] = heaviest_reasons(contributions, vector, AMOUNT)

    assert reported.text == words


@pytest.mark.parametrize("amount", [0.0, 0.01, 6.37])
def test_a_normal_of_almost_nothing_is_no_zero(amount):
    vector = a_card(0.0, 2, amount)
    vector[AT["card_seconds_since_last"]] = 5.0

    said = [own_normal(feature, vector)[1] for feature in FEATURES]

    assert not [text for text in said if re.search(r"-0|\b0\.0\b|\b0 hours", text)]


def test_an_alerts_words_repeat_nothing():
    vector = a_card(38.2, 10, 6.37)
    vector[AT["card_amount_to_mean_30d"]] = 17.0
    contributions = np.zeros(len(FEATURES))
    contributions[[AT["card_amount_to_mean_30d"], AT["transaction_amount"]]] = 2.0, 1.0
    reasons = [{"text": one.text} for one in heaviest_reasons(contributions, vector, AMOUNT)]
    alert = {
        "rules": [], "decided_by": "ACCOUNT", "reasons": [*reasons, reasons[-1]], "counterfactuals": [],
        "declines": [{"text": f"{AMOUNT} is more than the 1.00 EUR that the account can spend"}],
    }  # fmt: skip

    reported = explained_by(alert)

    assert len(set(reported)) == len(reported)
