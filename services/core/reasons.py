"""What an analyst reads: the features that weighed most in a decision, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.core.columns import ENTRY_MODES, type_f64
from services.core.features import (
    ABROAD,
    AMOUNT,
    AMOUNT_DEVIATION,
    AMOUNT_TO_LARGEST,
    AMOUNT_TO_MEAN,
    AMOUNT_TO_MEDIAN,
    AMOUNT_TO_SPENDABLE,
    COUNT_WITH_CURRENT,
    DAYS_SINCE_OPENED,
    DISTINCT_COUNTRIES,
    DISTINCT_TERMINALS,
    ENTRY_MODE,
    FEATURES,
    FIRST_FRAUD_DAYS,
    HIGH_AMOUNTS,
    HOUR,
    KM_FROM_HOME,
    KM_FROM_LAST,
    KM_PER_HOUR,
    KNOWN_COUNT,
    KNOWN_MEAN,
    KNOWN_RISK,
    LAST_FRAUD_DAYS,
    LAST_GENUINE_DAYS,
    MEAN_WITH_CURRENT,
    NIGHT,
    PAST_COUNT,
    PAST_SUM,
    SECONDS_SINCE_LAST,
    TIMES_AT_TERMINAL,
    WEEKDAY,
    WEEKEND,
    Feature,
)
from services.core.money import format_amount
from services.core.normals import own_normal
from services.core.profiles import DAY_MS
from services.core.what_if import Counterfactual

REASONS_MAX: Final = 3
_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True, slots=True)
class Reason:
    """One feature that raised a score."""

    code: str
    weight: float
    """Its share of the score, in log-odds."""
    value: float | None
    normal: float | None
    """What the feature normally is for this card; None where that says nothing."""
    text: str


def _span(window_ms: int) -> str:
    if window_ms % DAY_MS == 0:
        days = window_ms // DAY_MS
        return "24 hours" if days == 1 else f"{days} days"
    minutes = window_ms // 60_000
    return f"{minutes} minutes" if minutes != 60 else "hour"


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


_UNKNOWN: Final[Mapping[int, str]] = {
    SECONDS_SINCE_LAST: "first transaction of this card in 30 days",
    AMOUNT_TO_MEAN: "no history to compare the amount with",
    AMOUNT_TO_LARGEST: "no history to compare the amount with",
    AMOUNT_DEVIATION: "too little history to compare the amount with",
    AMOUNT_TO_MEDIAN: "no history to compare the amount with",
    FIRST_FRAUD_DAYS: "no known fraud at this terminal",
    LAST_FRAUD_DAYS: "no known fraud at this terminal",
    LAST_GENUINE_DAYS: "no known genuine transaction at this terminal",
    KNOWN_MEAN: "no known transactions at this terminal",
    KM_FROM_LAST: "no position to measure a distance with",
    KM_PER_HOUR: "no position to measure a speed with",
    AMOUNT_TO_SPENDABLE: "nothing known of what the account can spend",
    DAYS_SINCE_OPENED: "nothing known of the account",
    KM_FROM_HOME: "no position, or no home, to measure a distance with",
    ABROAD: "nothing known of the customer's home",
}


# Templates, of which one is filled: to fill all of them and take one takes longer than the rest of a reason.
_CARD_WORDS: Final[Mapping[int, str]] = {
    COUNT_WITH_CURRENT: "transaction number {value:.0f} of this card in {span}",
    MEAN_WITH_CURRENT: "this card spends {value:,.2f} on average in {span}, this one included",
    PAST_COUNT: "{value:.0f} transactions in the {span} before",
    PAST_SUM: "{value:,.2f} spent in the {span} before",
    AMOUNT_TO_MEAN: "{amount} is {value:.1f} times this card's average of {span}",
    AMOUNT_DEVIATION: "{amount} is {value:.1f} standard deviations from this card's average of {span}",
    AMOUNT_TO_MEDIAN: "{amount} is {value:.1f} times the middle one of this card's last amounts",
    HIGH_AMOUNTS: "{value:.0f} amounts of more than 3 times this card's middle one in the {span} before",
    AMOUNT_TO_LARGEST: "{amount} is {value:.1f} times this card's largest of {span}",
    DISTINCT_TERMINALS: "{value:.0f} terminals used in the {span} before",
    DISTINCT_COUNTRIES: "{value:.0f} countries in the {span} before",
    TIMES_AT_TERMINAL: "used this terminal {value:.0f} times in {span}",
    KM_FROM_LAST: "{value:,.0f} km from the card's last position",
    KM_PER_HOUR: "{value:,.0f} km/h from the card's last position",
}
_TERMINAL_WORDS: Final[Mapping[int, str]] = {
    KNOWN_COUNT: "{value:.0f} transactions at this terminal in {span}",
    KNOWN_MEAN: "{value:,.2f} on average at this terminal in {span}",
    KNOWN_RISK: "{value:.0%} of this terminal's transactions in {span} were frauds",
    FIRST_FRAUD_DAYS: "the first known fraud at this terminal was {value:.0f} days ago",
    LAST_FRAUD_DAYS: "the last known fraud at this terminal was {value:.0f} days ago",
    LAST_GENUINE_DAYS: "the last known genuine transaction at this terminal was {value:.0f} days ago",
}
_REFERENCE_WORDS: Final[Mapping[int, str]] = {
    AMOUNT_TO_SPENDABLE: "{amount} is {value:.0%} of what the account can spend",
    DAYS_SINCE_OPENED: "the account was opened {value:,.0f} days ago",
    KM_FROM_HOME: "{value:,.0f} km from the customer's home",
}


def _transaction_words(feature: Feature, value: float, amount: str) -> str | None:
    aggregate = feature.aggregate
    if aggregate == AMOUNT:
        return f"the amount is {amount}"
    if aggregate == WEEKEND:
        return "at the weekend" if value else "on a working day"
    if aggregate == NIGHT:
        return "at night (00:00 to 06:59 UTC)" if value else "by day"
    if aggregate == HOUR:
        return f"between {value:02.0f}:00 and {value:02.0f}:59 UTC"
    if aggregate == WEEKDAY:
        return f"on a {_WEEKDAYS[int(value)]}"
    if aggregate == ENTRY_MODE:
        return f"entry mode is {ENTRY_MODES[int(value)]}"
    return None


def _card_words(feature: Feature, value: float, amount: str) -> str:
    aggregate, span = feature.aggregate, _span(feature.window_ms)
    if aggregate == SECONDS_SINCE_LAST:
        return f"{_duration(value)} after the card's last transaction"
    if aggregate == TIMES_AT_TERMINAL and not value:
        return f"never at this terminal in {span}"
    return _CARD_WORDS[aggregate].format(value=value, span=span, amount=amount)


def _terminal_words(feature: Feature, value: float) -> str:
    span = f"the {_span(feature.window_ms)} until a week ago"
    return _TERMINAL_WORDS[feature.aggregate].format(value=value, span=span)


def _reference_words(feature: Feature, value: float, amount: str) -> str:
    if feature.aggregate == ABROAD:
        return "in another country than home, without a travel notice" if value else "at home, or where a notice said"
    return _REFERENCE_WORDS[feature.aggregate].format(value=value, amount=amount)


def describe(feature: Feature, value: float, amount: str) -> str:
    """Return what an analyst reads of one feature; ``amount`` is the formatted billing amount."""
    if math.isnan(value):
        return _UNKNOWN.get(feature.aggregate, "unknown")
    if feature.entity == "terminal":
        return _terminal_words(feature, value)
    if feature.entity in ("account", "customer"):
        return _reference_words(feature, value, amount)
    return _transaction_words(feature, value, amount) or _card_words(feature, value, amount)


def heaviest_reasons(contributions: type_f64, vector: type_f64, amount: str) -> Sequence[Reason]:
    """Return the features that raised one score most, heaviest first, at most ``REASONS_MAX``.

    Args:
        contributions: (features,) log-odds that each feature added.
        vector: (features,) the feature values.
        amount: the formatted billing amount.
    """
    order = (-contributions).argsort(kind="stable")[:REASONS_MAX]
    return [_reason(j, float(contributions[j]), vector, amount) for j in order.tolist() if contributions[j] > 0.0]


def _reason(j: int, weight: float, vector: type_f64, amount: str) -> Reason:
    feature, value = FEATURES[j], float(vector[j])
    words = describe(feature, value, amount)
    if math.isnan(value):
        return Reason(feature.name, weight, None, None, words)
    normal, said = own_normal(feature, vector)
    return Reason(feature.name, weight, value, normal, f"{words}; {said}" if said else words)


def describe_counterfactual(found: Counterfactual, currency: str) -> str:
    """Return what an analyst reads of what would have passed."""
    if found.amount_minor is not None:
        return f"would pass at {'or below ' if found.and_below else ''}{format_amount(found.amount_minor, currency)}"
    if found.changed == "terminal":
        return "would pass at a terminal without a known fraud"
    if found.changed == "travel_notice":
        return "would pass with a travel notice for where it is"
    return "would pass at the card's last position"
