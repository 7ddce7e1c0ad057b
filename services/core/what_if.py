"""The same transaction, but for one thing: vectors that are scored again to say what would have passed.

A vector holds what is needed to compute itself anew for another amount: sums are of integers, so they come out of means and ratios
exactly, and what is computed here has the same bits as a fold of the other amount would give (deviations aside, which agree to their
last digits).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import njit

from services.core.columns import type_bool, type_f64, type_i64
from services.core.features import (
    ABROAD,
    AMOUNT,
    AMOUNT_DEVIATION,
    AMOUNT_TO_LARGEST,
    AMOUNT_TO_MEAN,
    AMOUNT_TO_MEDIAN,
    AMOUNT_TO_SPENDABLE,
    COUNT_WITH_CURRENT,
    DISTINCT_COUNTRIES,
    FEATURES,
    FIRST_FRAUD_DAYS,
    KM_FROM_HOME,
    KM_FROM_LAST,
    KM_PER_HOUR,
    KNOWN_RISK,
    LAST_FRAUD_DAYS,
    MEAN_WITH_CURRENT,
)

_AT: Final = {(f.entity, f.aggregate, f.window_ms): j for j, f in enumerate(FEATURES)}
_CHANGING: Final = (
    AMOUNT, MEAN_WITH_CURRENT, AMOUNT_TO_MEAN, AMOUNT_TO_LARGEST, AMOUNT_TO_MEDIAN, AMOUNT_DEVIATION, AMOUNT_TO_SPENDABLE,
)  # fmt: skip


def _of_amount() -> type_i64:
    """Return, for each feature that changes with the amount: where it is, its aggregate, and where mean and count of its window are."""
    found = []
    for j, feature in enumerate(FEATURES):
        if feature.aggregate in _CHANGING:
            of_window = [
                _AT.get(("card", one, feature.window_ms), -1) for one in (MEAN_WITH_CURRENT, COUNT_WITH_CURRENT)
            ]
            needs = feature.aggregate in (MEAN_WITH_CURRENT, AMOUNT_TO_MEAN, AMOUNT_DEVIATION)
            assert not needs or min(of_window) >= 0, f"{feature.name} needs mean and count of its window"
            found.append((j, feature.aggregate, *of_window))
    return np.array(found, np.int64)


_OF_AMOUNT: Final = _of_amount()
_GRID: Final = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05, 0.02])
"""Shares of the amount that are tried first."""
_BETWEEN: Final = np.linspace(1.0, 0.0, 8)[1:-1]
"""Where, between the highest that passes and the one above it, it is tried then."""

Passes = Callable[[type_f64, type_i64, type_i64], type_bool]
"""Says of each of some vectors (t, features) and billing amounts (t,), tried for these transactions (t,), whether they would be approved."""


def vectors_at_amounts(vector: type_f64, amount_minor: int, scale: float, others_minor: type_i64) -> type_f64:
    """Return what the vector would be at other billing amounts, shape (n, features).

    Args:
        vector: (features,) of the transaction as it was.
        amount_minor: its billing amount; above 0, since ratios of nothing say nothing.
        scale: the minor units in a major unit.
        others_minor: (n,) the other amounts.
    """
    found = np.repeat(vector[None, :], len(others_minor), axis=0)
    _change_amounts(_OF_AMOUNT, float(amount_minor), scale, others_minor, found)
    return found


@njit(cache=True, nogil=True)
def _change_amounts(features: type_i64, amount: float, scale: float, others: type_i64, vectors: type_f64) -> None:
    for i in range(len(others)):
        other = np.float64(others[i])
        for j, aggregate, _, _ in features:
            was = vectors[i, j]
            if aggregate == AMOUNT:
                vectors[i, j] = other / scale
            elif aggregate in (AMOUNT_TO_LARGEST, AMOUNT_TO_SPENDABLE) and was > 0.0:
                vectors[i, j] = other / np.rint(amount / was)
            elif aggregate == AMOUNT_TO_MEDIAN and was > 0.0:
                vectors[i, j] = other / (np.rint(2.0 * amount / was) / 2.0)
        # Means last: what comes out of them is needed before they change.
        for kind in (AMOUNT_TO_MEAN, AMOUNT_DEVIATION, MEAN_WITH_CURRENT):
            for j, aggregate, mean_at, count_at in features:
                if aggregate == kind:
                    total = np.rint(vectors[i, mean_at] * vectors[i, count_at] * scale) - amount
                    past = total, vectors[i, count_at] - 1.0
                    vectors[i, j] = _with_mean(aggregate, vectors[i, j], (amount, other, scale), past)


@njit(cache=True, nogil=True)
def _with_mean(aggregate: int, was: float, amounts: Any, past: Any) -> float:
    """Return a feature that is made of a window's sum and number before this transaction, at another amount."""
    amount, other, scale = amounts
    total, count = past
    if aggregate == MEAN_WITH_CURRENT:
        return (total + other) / (count + 1.0) / scale
    if np.isnan(was) or count <= 0.0 or total <= 0.0:
        return was
    mean = total / count
    if aggregate == AMOUNT_TO_MEAN:
        return other / mean
    return (other - mean) * (was / (amount - mean)) if amount != mean else was


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """One thing that, had it been different, would have let a transaction pass."""

    changed: str
    """amount, terminal, place or travel_notice."""
    amount_minor: int | None
    """The highest amount found that passes."""
    and_below: bool
    """Whether all lower amounts that were tried pass, too."""


_Tried = tuple[type_f64, type_i64]
"""Vectors that are to be scored, and the billing amounts that they stand for."""
_Search = Generator[_Tried, type_bool, Counterfactual | None]
"""Asks which of some tries pass, until it knows what to tell."""


def counterfactuals(
    vectors: type_f64, amounts_minor: type_i64, scales: type_f64, passes: Passes
) -> list[Counterfactual | None]:
    """Return what would have let each of some transactions pass, scored again to be sure; None where nothing that is tried does.

    What all of them try next is scored together.

    Args:
        vectors: (n, features).
        amounts_minor: (n,) their billing amounts.
        scales: (n,) the minor units in a major unit of each.
        passes: says what would be approved.
    """
    found: list[Counterfactual | None] = [None] * len(vectors)
    searches = [_search(*one) for one in zip(vectors, amounts_minor.tolist(), scales.tolist(), strict=True)]
    asked = {row: next(search) for row, search in enumerate(searches)}
    while asked:
        lengths = [len(amounts) for _, amounts in asked.values()]
        rows = np.repeat(np.fromiter(asked, np.int64, len(asked)), lengths)
        tried = np.concatenate([one for one, _ in asked.values()])
        passing = passes(tried, np.concatenate([amounts for _, amounts in asked.values()]), rows)
        answers = np.split(passing, np.cumsum(lengths)[:-1])
        for row, answer in zip(list(asked), answers, strict=True):
            try:
                asked[row] = searches[row].send(answer)
            except StopIteration as end:
                found[row] = end.value
                del asked[row]
    return found


def _search(vector: type_f64, amount_minor: int, scale: float) -> _Search:
    found = yield from _by_amount(vector, amount_minor, scale)
    if found is not None:
        return found
    without = np.stack([_changed(vector, change) for change in _CHANGES.values()])
    passing = yield without, np.full(len(without), amount_minor, np.int64)
    return next((Counterfactual(name, None, False) for name, yes in zip(_CHANGES, passing, strict=True) if yes), None)


@njit(cache=True, nogil=True)
def _round_down(amounts: type_f64, above: int, below: int) -> type_i64:
    """Return descending amounts with two significant digits, what people read as a limit: each once, and between the two given."""
    chosen, count, before = np.empty(len(amounts), np.int64), 0, below
    for amount in amounts:
        size = 1.0
        while amount >= 100.0 * size:
            size *= 10.0
        rounded = int(np.floor(amount / size) * size)
        if above < rounded < below and rounded != before:
            chosen[count] = rounded
            count += 1
        before = rounded
    return chosen[:count]


def _by_amount(vector: type_f64, amount_minor: int, scale: float) -> _Search:
    tried = _round_down(_GRID * amount_minor, 0, amount_minor)
    if not len(tried):
        return None
    passing = yield vectors_at_amounts(vector, amount_minor, scale, tried), tried
    if not passing.any():
        return None
    at = int(np.argmax(passing))
    best, above = int(tried[at]), int(tried[at - 1]) if at else amount_minor
    between = _round_down(best + (above - best) * _BETWEEN, best, above)
    if len(between):
        again = yield vectors_at_amounts(vector, amount_minor, scale, between), between
        # From below, as far as everything passes.
        fails = np.flatnonzero(~again)
        higher = between[fails[-1] + 1 :] if len(fails) else between
        best = int(higher[0]) if len(higher) else best
    return Counterfactual("amount", best, bool(passing[at:].all()))


_NO_FRAUD: Final = {
    j: 0.0 if f.aggregate == KNOWN_RISK else np.nan
    for j, f in enumerate(FEATURES)
    if f.aggregate in (KNOWN_RISK, FIRST_FRAUD_DAYS, LAST_FRAUD_DAYS)
}
_SAME_PLACE: Final = {
    j: 0.0 for j, f in enumerate(FEATURES) if f.aggregate in (KM_FROM_LAST, KM_PER_HOUR, DISTINCT_COUNTRIES)
}
_ANNOUNCED: Final = {j: 0.0 for j, f in enumerate(FEATURES) if f.aggregate in (KM_FROM_HOME, ABROAD)}
_CHANGES: Final = {"terminal": _NO_FRAUD, "place": _SAME_PLACE, "travel_notice": _ANNOUNCED}


def _changed(vector: type_f64, change: dict[int, float]) -> type_f64:
    changed = vector.copy()
    for j, value in change.items():
        if not np.isnan(vector[j]):
            changed[j] = value
    return changed
