"""What an analyst reads: the features that weighed most in a decision, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.core.columns import ENTRY_MODES, type_f64
from services.core.explain.normals import own_normal
from services.core.explain.what_if import Counterfactual
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
from services.core.profiles import DAY_MS

REASONS_MAX: Final = 3
_SAID: Final = "the amount"
"""What the amount is called once it has been said."""
_LEAST_AMOUNT: Final = 0.005
"""In major units: what is less reads as nothing."""
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
    return "less than 2 seconds" if seconds < 2 else f"{seconds:.0f} seconds"


_UNKNOWN: Final[Mapping[int, str]] = {
    SECONDS_SINCE_LAST: "first transaction of this card in 30 days",
    AMOUNT_TO_MEAN: "no average of this card to compare the amount with",
    AMOUNT_TO_LARGEST: "no largest amount of this card to compare with",
    AMOUNT_DEVIATION: "too little history to compare the amount with",
    AMOUNT_TO_MEDIAN: "no last amounts of this card to compare with",
    FIRST_FRAUD_DAYS: "no first fraud is known at this terminal",
    LAST_FRAUD_DAYS: "no fraud is known at this terminal",
    LAST_GENUINE_DAYS: "no genuine transaction is known at this terminal",
    KNOWN_COUNT: "how many transactions this terminal had in {span} is not known",
    KNOWN_MEAN: "the average at this terminal in {span} is not known",
    KNOWN_RISK: "the share of frauds at this terminal in {span} is not known",
    KM_FROM_LAST: "the distance from the card's last position is not known",
    KM_PER_HOUR: "the speed from the card's last position is not known",
    AMOUNT_TO_SPENDABLE: "what the account can spend is not known",
    DAYS_SINCE_OPENED: "when the account was opened is not known",
    KM_FROM_HOME: "the distance from the customer's home is not known",
    ABROAD: "whether the customer announced the country is not known",
}
"""What is said of a feature without a value; of any other its name, as not known."""


# Templates, of which one is filled: to fill all of them and take one takes longer than the rest of a reason.
_CARD_WORDS: Final[Mapping[int, str]] = {
    COUNT_WITH_CURRENT: "transaction number {value:.0f} of this card in {span}",
    MEAN_WITH_CURRENT: "this card spends {value:,.2f} on average in {span}, this one included",
    PAST_COUNT: "{count} transaction{s} in the {span} before",
    PAST_SUM: "{value:,.2f} spent in the {span} before",
    AMOUNT_TO_MEAN: "{amount} is {times} this card's average of {span}",
    AMOUNT_TO_MEDIAN: "{amount} is {times} the middle one of this card's last amounts",
    HIGH_AMOUNTS: "{count} amount{s} of more than 3 times this card's middle one in the {span} before",
    AMOUNT_TO_LARGEST: "{amount} is {times} this card's largest of {span}",
    DISTINCT_TERMINALS: "{count} terminal{s} used in the {span} before",
    DISTINCT_COUNTRIES: "{count} countr{ies} in the {span} before",
    TIMES_AT_TERMINAL: "used this terminal {count} times in {span}",
    KM_FROM_LAST: "{least} km from the card's last position",
    KM_PER_HOUR: "{least} km/h from the card's last position",
}
_TERMINAL_WORDS: Final[Mapping[int, str]] = {
    KNOWN_COUNT: "{count} transaction{s} at this terminal in {span}",
    KNOWN_MEAN: "{value:,.2f} on average at this terminal in {span}",
    KNOWN_RISK: "{share} this terminal's transactions in {span} were frauds",
    FIRST_FRAUD_DAYS: "the first known fraud at this terminal was {least} day{s} ago",
    LAST_FRAUD_DAYS: "the last known fraud at this terminal was {least} day{s} ago",
    LAST_GENUINE_DAYS: "the last known genuine transaction at this terminal was {least} day{s} ago",
}
_REFERENCE_WORDS: Final[Mapping[int, str]] = {
    AMOUNT_TO_SPENDABLE: "{amount} is {share} what the account can spend",
    DAYS_SINCE_OPENED: "the account was opened {least} day{s} ago",
    KM_FROM_HOME: "{least} km from the customer's home",
}


class _Words:
    """A number in the forms that a template may ask for; each is made when it is asked for."""

    def __init__(self, value: float, span: str, amount: str) -> None:
        self.value, self.span, self.amount = value, span, amount

    def __getitem__(self, name: str) -> object:
        return getattr(self, name)

    @property
    def count(self) -> str:
        return f"{self.value:.0f}" if self.value > 0.5 else "no"

    @property
    def least(self) -> str:
        """At least one of a unit, as people say a distance."""
        return "less than 1" if self.value <= 0.5 else f"{self.value:,.0f}"

    @property
    def s(self) -> str:
        return "s" if self.value >= 1.5 else ""

    @property
    def ies(self) -> str:
        return "ies" if self.value >= 1.5 else "y"

    @property
    def times(self) -> str:
        """How many times something; of less than once the share."""
        return f"{self.value:,.1f} times" if self.value >= 0.995 else self.share

    @property
    def share(self) -> str:
        """What share of something, never one that reads as nothing."""
        for limit, words in ((0.01, "less than a hundredth of"), (0.1, "less than a tenth of")):
            if self.value < limit:
                return words
        return f"{self.value:.0%} of"


def _transaction_words(feature: Feature, value: float, amount: str) -> str | None:
    aggregate = feature.aggregate
    if aggregate == AMOUNT:
        return f"the amount is {amount}" if amount != _SAID else "the amount itself"
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
    if aggregate == TIMES_AT_TERMINAL and value < 1.5:
        return f"never at this terminal in {span}" if value < 0.5 else f"used this terminal once in {span}"
    if aggregate == PAST_SUM and value < _LEAST_AMOUNT:
        return f"nothing spent in the {span} before"
    if aggregate == AMOUNT_DEVIATION:
        side = "below" if value < 0.0 else "above"
        far = f"{abs(value):,.1f} standard deviations {side}" if abs(value) >= 0.05 else "close to"
        return f"{amount} is {far} this card's average of {span}"
    return _CARD_WORDS[aggregate].format_map(_Words(value, span, amount))


def _terminal_words(feature: Feature, value: float) -> str:
    span = _terminal_span(feature)
    if feature.aggregate == KNOWN_RISK and value == 0.0:
        return f"none of this terminal's transactions in {span} was a fraud"
    return _TERMINAL_WORDS[feature.aggregate].format_map(_Words(value, span, ""))


def _terminal_span(feature: Feature) -> str:
    return f"the {_span(feature.window_ms)} until a week ago"


def _reference_words(feature: Feature, value: float, amount: str) -> str:
    if feature.aggregate == ABROAD:
        return "in another country than home, without a travel notice" if value else "at home, or where a notice said"
    return _REFERENCE_WORDS[feature.aggregate].format_map(_Words(value, "", amount))


def describe(feature: Feature, value: float, amount: str) -> str:
    """Return what an analyst reads of one feature; ``amount`` is the formatted billing amount."""
    if math.isnan(value):
        words = _UNKNOWN.get(feature.aggregate, f"{feature.name} is not known")
        return words.format(span=_terminal_span(feature)) if "{" in words else words
    if feature.entity == "terminal":
        return _terminal_words(feature, value)
    if feature.entity in ("account", "customer"):
        return _reference_words(feature, value, amount)
    return _transaction_words(feature, value, amount) or _card_words(feature, value, amount)


def heaviest_reasons(contributions: type_f64, vector: type_f64, amount: str) -> Sequence[Reason]:
    """Return the features that raised one score most, heaviest first, at most ``REASONS_MAX``.

    A feature without a value may weigh, and says little to people: those that have one come first, and the others only where too few of
    these raised the score. The amount and the card's mean are each said once.

    Args:
        contributions: (features,) log-odds that each feature added.
        vector: (features,) the feature values.
        amount: the formatted billing amount.
    """
    rows = _heaviest(contributions, vector)
    reasons: list[Reason] = []
    before = ""
    for j in rows:
        one = _reason(j, float(contributions[j]), vector, _SAID if amount in before else amount)
        text, _, said = one.text.partition("; ")
        if said and said in before:
            one = replace(one, text=text)
        reasons.append(one)
        before += f"{one.text}; "
    return reasons


def _heaviest(contributions: type_f64, vector: type_f64) -> list[int]:
    shares, values = contributions.tolist(), vector.tolist()
    there: list[int] = []
    missing: list[int] = []
    for j in (-contributions).argsort(kind="stable").tolist():
        if shares[j] <= 0.0 or len(there) == REASONS_MAX:
            break
        (missing if math.isnan(values[j]) else there).append(j)
    return there + missing[: REASONS_MAX - len(there)]


def _reason(j: int, weight: float, vector: type_f64, amount: str) -> Reason:
    feature, value = FEATURES[j], float(vector[j])
    words = describe(feature, value, amount)
    if math.isnan(value):
        return Reason(feature.name, weight, None, None, words)
    normal, said = own_normal(feature, vector)
    return Reason(
        feature.name, weight, value, normal, f"{words}; {said}" if said and not _repeats(words, said) else words
    )


def _repeats(words: str, said: str) -> bool:
    """Whether what is normal is the very number that the feature has: then there is nothing to compare."""
    figure = next((word for word in reversed(said.split()) if word[0].isdigit()), "")
    return bool(figure) and f" {figure.removesuffix('.0')} " in f" {words} "


def describe_counterfactual(found: Counterfactual, currency: str) -> str:
    """Return what an analyst reads of what would have passed."""
    if found.amount_minor is not None:
        return f"would pass at {'or below ' if found.and_below else ''}{format_amount(found.amount_minor, currency)}"
    if found.changed == "terminal":
        return "would pass at a terminal without a known fraud"
    if found.changed == "travel_notice":
        return "would pass with a travel notice for where it is"
    return "would pass at the card's last position"
