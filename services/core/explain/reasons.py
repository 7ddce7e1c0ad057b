"""What an analyst reads: the features that weighed most in a decision, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.core.columns import type_f64
from services.core.explain.normals import own_normal
from services.core.explain.what_if import Counterfactual
from services.core.explain.words import THE_AMOUNT, Words
from services.core.features import FEATURES, Feature
from services.core.money import format_amount

REASONS_MAX: Final = 3


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


def describe(feature: Feature, value: float, amount: str) -> str:
    """Return what an analyst reads of one feature; ``amount`` is the formatted billing amount."""
    row, words = feature.row, Words(value, feature.window_ms, amount)
    if math.isnan(value):
        return row.unknown.format_map(words) or f"{feature.name} is not known"
    # One template is filled: to fill several and take one takes longer than the rest of a reason.
    template = row.words if isinstance(row.words, str) else row.words(words)
    return template.format_map(words)


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
        one = _reason(j, float(contributions[j]), vector, THE_AMOUNT if amount in before else amount)
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
