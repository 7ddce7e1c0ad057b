"""The same transaction, but for one thing: vectors that are scored again to say what would have passed.

A vector holds what is needed to compute itself anew for another amount: sums are of integers, so they come out of means and ratios
exactly, and what is computed here has the same bits as a fold of the other amount would give (deviations aside, which agree to their
last digits).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import njit

from services.core.aggregates import COUNT_WITH_CURRENT, FROM_MEAN, MEAN_WITH_CURRENT, ByAmount
from services.core.columns import type_bool, type_f64, type_i64
from services.core.features import FEATURES

_AT: Final = {(f.aggregate, f.window_ms): j for j, f in enumerate(FEATURES)}
_AMOUNT, _RATIO, _RATIO_TO_HALVES = int(ByAmount.AMOUNT), int(ByAmount.RATIO), int(ByAmount.RATIO_TO_HALVES)
_MEAN, _RATIO_TO_MEAN = int(ByAmount.MEAN), int(ByAmount.RATIO_TO_MEAN)
_FROM_MEAN: Final = tuple(map(int, FROM_MEAN))


def _of_amount() -> type_i64:
    """Return, for each feature that changes with the amount: where it is, how, and where mean and count of its window are."""
    found = []
    for j, feature in enumerate(FEATURES):
        if (how := feature.row.by_amount) != ByAmount.SAME:
            of_window = [_AT.get((one, feature.window_ms), -1) for one in (MEAN_WITH_CURRENT, COUNT_WITH_CURRENT)]
            assert how not in FROM_MEAN or min(of_window) >= 0, f"{feature.name} needs mean and count of its window"
            found.append((j, how, *of_window))
    return np.array(found, np.int64)


_OF_AMOUNT: Final = _of_amount()
_GRID: Final = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05, 0.02])
"""Shares of the amount that are tried first."""
_BETWEEN: Final = np.linspace(1.0, 0.0, 8)[1:-1]
"""Where, between the highest that passes and the one above it, it is tried then."""
NONE: Final = -1
"""The highest amount that passes, where none does."""

Passes = Callable[[type_f64, type_i64, type_i64], type_bool]
"""Says of each of some vectors (t, features) and billing amounts (t,), tried for these transactions (t,), whether they would be approved."""


def vectors_at_amounts(
    vectors: type_f64, amounts_minor: type_i64, scales: type_f64, others_minor: type_i64
) -> type_f64:
    """Return what vectors would be at other billing amounts, shape (n, features).

    Args:
        vectors: (n, features) of transactions as they were.
        amounts_minor: (n,) their billing amounts; above 0, since ratios of nothing say nothing.
        scales: (n,) the minor units in a major unit of each.
        others_minor: (n,) the other amounts.
    """
    found = vectors.copy()
    _change_amounts(_OF_AMOUNT, amounts_minor, scales, others_minor, found)
    return found


@njit(cache=True, nogil=True)
def _change_amounts(
    features: type_i64, amounts: type_i64, scales: type_f64, others: type_i64, vectors: type_f64
) -> None:
    for i in range(len(others)):
        amount, scale, other = np.float64(amounts[i]), scales[i], np.float64(others[i])
        for j, how, _, _ in features:
            was = vectors[i, j]
            if how == _AMOUNT:
                vectors[i, j] = other / scale
            elif how == _RATIO and was > 0.0:
                vectors[i, j] = other / np.rint(amount / was)
            elif how == _RATIO_TO_HALVES and was > 0.0:
                vectors[i, j] = other / (np.rint(2.0 * amount / was) / 2.0)
        # Means last: what comes out of them is needed before they change.
        for now in _FROM_MEAN:
            for j, how, mean_at, count_at in features:
                if how == now:
                    total = np.rint(vectors[i, mean_at] * vectors[i, count_at] * scale) - amount
                    past = total, vectors[i, count_at] - 1.0
                    vectors[i, j] = _with_mean(how, vectors[i, j], (amount, other, scale), past)


@njit(cache=True, nogil=True)
def _with_mean(how: int, was: float, amounts: Any, past: Any) -> float:
    """Return a feature that is made of a window's sum and number before this transaction, at another amount."""
    amount, other, scale = amounts
    total, count = past
    if how == _MEAN:
        return (total + other) / (count + 1.0) / scale
    if np.isnan(was) or count <= 0.0 or total <= 0.0:
        return was
    mean = total / count
    if how == _RATIO_TO_MEAN:
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


_CHANGED: Final = ("terminal", "place", "travel_notice")
"""What is changed where no lower amount passes, in this order."""
_CHANGES: Final = {
    name: {j: f.row.without[1] for j, f in enumerate(FEATURES) if f.row.without and f.row.without[0] == name}
    for name in _CHANGED
}
"""Of each change the columns that it sets, and to what."""


def counterfactuals(
    vectors: type_f64, amounts_minor: type_i64, scales: type_f64, passes: Passes
) -> list[Counterfactual | None]:
    """Return what would have let each of some transactions pass, scored again to be sure; None where nothing that is tried does.

    Lower amounts are tried first, then those between the highest that passes and the one above it; where none passes, other changes.

    Args:
        vectors: (n, features).
        amounts_minor: (n,) their billing amounts.
        scales: (n,) the minor units in a major unit of each.
        passes: says what would be approved.
    """
    if not len(vectors):
        return []

    def at(rows: type_i64, others_minor: type_i64) -> type_f64:
        return vectors_at_amounts(vectors[rows], amounts_minor[rows], scales[rows], others_minor)

    rows, lower = _between(_GRID, np.zeros_like(amounts_minor), amounts_minor)
    best, above, and_below = _highest(amounts_minor, rows, lower, passes(at(rows, lower), lower, rows))
    rows, higher = _between(_BETWEEN, best, above)
    stuck = (best == NONE).nonzero()[0].repeat(len(_CHANGES))
    tried = np.concatenate([at(rows, higher), _changed(vectors[stuck])])
    again = passes(tried, np.concatenate([higher, amounts_minor[stuck]]), np.concatenate([rows, stuck]))
    _raise_best(best, rows, higher, again)
    found: list[Counterfactual | None] = [
        None if amount == NONE else Counterfactual("amount", amount, below)
        for amount, below in zip(best.tolist(), and_below.tolist(), strict=True)
    ]
    others = again[len(rows) :].reshape(-1, len(_CHANGES)).tolist()
    for row, passing in zip(stuck[:: len(_CHANGES)].tolist(), others, strict=True):
        named = (Counterfactual(name, None, False) for name, yes in zip(_CHANGES, passing, strict=True) if yes)
        found[row] = next(named, None)
    return found


@njit(cache=True, nogil=True)
def _between(shares: type_f64, low: type_i64, high: type_i64) -> tuple[type_i64, type_i64]:
    """Return descending amounts between two bounds for each row whose lower one is not NONE, and before them the rows that they are for.

    They have two significant digits, what people read as a limit, and each comes once.
    """
    rows, chosen = np.empty(len(low) * len(shares), np.int64), np.empty(len(low) * len(shares), np.int64)
    count = 0
    for i in range(len(low)):
        before = high[i]
        for share in shares if low[i] != NONE else shares[:0]:
            amount, size = low[i] + (high[i] - low[i]) * share, 1.0
            while amount >= 100.0 * size:
                size *= 10.0
            rounded = np.int64(np.floor(amount / size) * size)
            if low[i] < rounded < high[i] and rounded != before:
                rows[count], chosen[count] = i, rounded
                count += 1
            before = rounded
    return rows[:count], chosen[:count]


@njit(cache=True, nogil=True)
def _highest(
    amounts: type_i64, rows: type_i64, tried: type_i64, passing: type_bool
) -> tuple[type_i64, type_i64, type_bool]:
    """Return of each row the highest amount that passes or NONE, the one that was tried above it, and whether all that are lower pass."""
    best, above, and_below = np.full(len(amounts), NONE), amounts.copy(), np.ones(len(amounts), np.bool_)
    for t in range(len(rows)):
        i = rows[t]
        if best[i] != NONE:
            and_below[i] &= passing[t]
        elif passing[t]:
            best[i] = tried[t]
        else:
            above[i] = tried[t]
    return best, above, and_below


@njit(cache=True, nogil=True)
def _raise_best(best: type_i64, rows: type_i64, tried: type_i64, passing: type_bool) -> None:
    """Raise each row's amount, from below, as far as everything passes."""
    failed = NONE
    for t in range(len(rows) - 1, -1, -1):
        if not passing[t]:
            failed = rows[t]
        elif rows[t] != failed:
            best[rows[t]] = tried[t]


def _changed(vectors: type_f64) -> type_f64:
    """Return vectors (n, features), which come once for each of ``_CHANGES``, with that change where they know what is changed."""
    for k, change in enumerate(_CHANGES.values()):
        for j, value in change.items():
            vectors[k :: len(_CHANGES), j][~np.isnan(vectors[k :: len(_CHANGES), j])] = value
    return vectors
