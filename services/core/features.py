"""The features: declared here once, computed by the same kernels in the worker and in training.

A feature is a declaration of name, aggregate and window. To change a window, change the declaration; to add a feature,
add one; a new *aggregate* also needs a line in :func:`_feature_value`. The hash of the declarations travels with every
decision and every model, so a model never scores a vector of another feature set.

Source of the customer features and flags: Le Borgne, Siblini, Lebichot, Bontempi, *Reproducible Machine Learning for
Credit Card Fraud Detection - Practical Handbook* (2022), chapter 3.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final

import numpy as np
from numba import njit

from services.core import windows
from services.core.columns import TransactionColumns, type_bool, type_f64, type_i64
from services.core.kernels import group_text, hash_text, hash_uuids
from services.core.money import exponents_of
from services.core.profiles import DAY_MS, ENTRY, HORIZON_MS, OpenProfiles, open_profiles
from services.core.windows import (
    COUNT,
    COUNTRIES,
    LARGEST,
    LAST_KM,
    LAST_SECONDS,
    LAST_SECONDS_POSITION,
    REPEAT,
    SAME_TERMINAL,
    SQUARES,
    STATISTICS,
    TERMINALS,
    TOO_LATE,
    TOTAL,
)

MINUTE_MS, HOUR_MS = 60_000, 3_600_000

(
    AMOUNT,
    WEEKEND,
    NIGHT,
    COUNT_WITH_CURRENT,
    MEAN_WITH_CURRENT,
    PAST_COUNT,
    PAST_SUM,
    SECONDS_SINCE_LAST,
    AMOUNT_TO_MEAN,
    AMOUNT_DEVIATION,
    AMOUNT_TO_LARGEST,
    DISTINCT_TERMINALS,
    DISTINCT_COUNTRIES,
    TIMES_AT_TERMINAL,
    KM_FROM_LAST,
    KM_PER_HOUR,
    ENTRY_MODE,
    HOUR,
    WEEKDAY,
) = range(19)
"""The aggregates: what the kernel knows to compute."""

AGGREGATE_NAMES = (
    "amount", "is_weekend", "is_night", "count_with_current", "mean_with_current", "count", "sum",
    "seconds_since_last", "amount_to_mean", "amount_deviation", "amount_to_largest", "distinct_terminals",
    "distinct_countries", "times_at_terminal", "km_from_last", "km_per_hour", "entry_mode", "hour", "weekday",
)  # fmt: skip

_DISTINCT = (DISTINCT_TERMINALS, DISTINCT_COUNTRIES)


@dataclass(frozen=True, slots=True)
class Feature:
    """One number that a model is given: an aggregate of an entity's past, over a window where it has one."""

    aggregate: int
    window_ms: int = 0
    entity: str = "card"
    unit: str = ""
    meaning: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.window_ms <= HORIZON_MS:
            raise ValueError(f"a window must lie within the horizon of {HORIZON_MS} ms: {self.window_ms}")

    @property
    def name(self) -> str:
        """The name, derived from the definition, such as ``card_count_10m``; it cannot disagree with it."""
        base = f"{self.entity}_{AGGREGATE_NAMES[self.aggregate]}"
        return base if not self.window_ms else f"{base}_{_window_name(self.window_ms)}"


def _window_name(window_ms: int) -> str:
    for unit_ms, letter in ((DAY_MS, "d"), (HOUR_MS, "h"), (MINUTE_MS, "m")):
        if window_ms % unit_ms == 0 and window_ms // unit_ms:
            return f"{window_ms // unit_ms}{letter}"
    return f"{window_ms}ms"


_TX = "transaction"
FEATURES: Final[tuple[Feature, ...]] = (
    Feature(AMOUNT, 0, _TX, "major units", "the billing amount"),
    Feature(WEEKEND, 0, _TX, "0 or 1", "Saturday or Sunday, UTC"),
    Feature(NIGHT, 0, _TX, "0 or 1", "00:00:00 to 06:59:59 UTC"),
    Feature(COUNT_WITH_CURRENT, DAY_MS, "card", "transactions", "this one included"),
    Feature(MEAN_WITH_CURRENT, DAY_MS, "card", "major units", "mean amount, this one included"),
    Feature(COUNT_WITH_CURRENT, 7 * DAY_MS, "card", "transactions", "this one included"),
    Feature(MEAN_WITH_CURRENT, 7 * DAY_MS, "card", "major units", "mean amount, this one included"),
    Feature(COUNT_WITH_CURRENT, 30 * DAY_MS, "card", "transactions", "this one included"),
    Feature(MEAN_WITH_CURRENT, 30 * DAY_MS, "card", "major units", "mean amount, this one included"),
    Feature(PAST_COUNT, 10 * MINUTE_MS, "card", "transactions", "before this one"),
    Feature(PAST_COUNT, HOUR_MS, "card", "transactions", "before this one"),
    Feature(PAST_SUM, DAY_MS, "card", "major units", "spent before this one"),
    Feature(SECONDS_SINCE_LAST, 0, "card", "s", "since the card's last transaction, within 30 days"),
    Feature(AMOUNT_TO_MEAN, 30 * DAY_MS, "card", "ratio", "amount / mean of the past"),
    Feature(AMOUNT_DEVIATION, 30 * DAY_MS, "card", "standard deviations", "(amount - mean) / deviation of the past"),
    Feature(AMOUNT_TO_LARGEST, 30 * DAY_MS, "card", "ratio", "amount / largest of the past"),
    Feature(DISTINCT_TERMINALS, DAY_MS, "card", "terminals", "used before this one"),
    Feature(DISTINCT_COUNTRIES, DAY_MS, "card", "countries", "seen before this one"),
    Feature(TIMES_AT_TERMINAL, 30 * DAY_MS, "card", "transactions", "before this one, at this terminal"),
    Feature(KM_FROM_LAST, 0, "card", "km", "from the last known position, within 30 days"),
    Feature(KM_PER_HOUR, 0, "card", "km/h", "speed from the last known position"),
    Feature(ENTRY_MODE, 0, _TX, "code", "index of the entry mode"),
    Feature(HOUR, 0, _TX, "h", "hour of the day, UTC"),
    Feature(WEEKDAY, 0, _TX, "d", "day of the week, Monday is 0, UTC"),
)

FEATURE_NAMES: Final = tuple(feature.name for feature in FEATURES)
_WINDOWS_MS: Final = np.array(sorted({f.window_ms for f in FEATURES if f.window_ms}), np.int64)
_AGGREGATES: Final = np.array([f.aggregate for f in FEATURES], np.int64)
_WINDOW_INDEX: Final = np.searchsorted(_WINDOWS_MS, [f.window_ms for f in FEATURES]).astype(np.int64)
_DISTINCT_HORIZON_MS: Final = max((f.window_ms for f in FEATURES if f.aggregate in _DISTINCT), default=0)


def _hash_features() -> str:
    declared = [[f.name, f.entity, AGGREGATE_NAMES[f.aggregate], f.window_ms] for f in FEATURES]
    return hashlib.sha256(json.dumps(declared).encode()).hexdigest()[:16]


FEATURE_SET_HASH: Final = _hash_features()
"""16 hexadecimal digits over names, order, entities, aggregates and windows."""

assert len(set(FEATURE_NAMES)) == len(FEATURES), "two features have one name"


@dataclass(frozen=True, slots=True)
class Folded:
    """What folding a batch gives: the vectors, and what is to be said about them."""

    vectors: type_f64
    """Shape (n, len(FEATURES)), NaN where a feature has no value."""
    flags: type_i64
    """Shape (n,): REPEAT, LATE, TRUNCATED and TOO_LATE of :mod:`services.core.windows`."""


@njit(cache=True)
def _ratio(a: float, b: float) -> float:
    return a / b if b > 0.0 else np.nan


@njit(cache=True)
def _past_value(aggregate: int, amount: float, scale: float, s: type_f64) -> float:
    """Return one feature over a window's statistics ``s``; ``scale`` is the minor units in a major unit."""
    if aggregate == COUNT_WITH_CURRENT:
        return s[COUNT] + 1.0
    if aggregate == MEAN_WITH_CURRENT:
        return (s[TOTAL] + amount) / (s[COUNT] + 1.0) / scale
    if aggregate == PAST_COUNT:
        return s[COUNT]
    if aggregate == PAST_SUM:
        return s[TOTAL] / scale
    if aggregate == DISTINCT_TERMINALS:
        return s[TERMINALS]
    if aggregate == DISTINCT_COUNTRIES:
        return s[COUNTRIES]
    if aggregate == TIMES_AT_TERMINAL:
        return s[SAME_TERMINAL]
    if s[COUNT] == 0.0:
        return np.nan
    mean = s[TOTAL] / s[COUNT]
    if aggregate == AMOUNT_TO_MEAN:
        return _ratio(amount, mean)
    if aggregate == AMOUNT_TO_LARGEST:
        return _ratio(amount, s[LARGEST])
    if aggregate == AMOUNT_DEVIATION:
        variance = s[SQUARES] / s[COUNT] - mean * mean
        # Below a millionth of the mean's square a variance is the rounding error of the two terms.
        return _ratio(amount - mean, np.sqrt(variance)) if variance > 1e-6 * mean * mean else np.nan
    return np.nan


@njit(cache=True)
def _moment_value(
    aggregate: int, amount: float, scale: float, event_time_ms: int, entry_mode: int, last: type_f64
) -> float:
    """Return one feature of the transaction itself or of the transaction before."""
    hour = (event_time_ms // HOUR_MS) % 24
    weekday = (event_time_ms // DAY_MS + 3) % 7  # 1970-01-01 was a Thursday
    if aggregate == AMOUNT:
        return amount / scale
    if aggregate == WEEKEND:
        return 1.0 if weekday >= 5 else 0.0
    if aggregate == NIGHT:
        return 1.0 if hour <= 6 else 0.0
    if aggregate == SECONDS_SINCE_LAST:
        return last[LAST_SECONDS]
    if aggregate == KM_FROM_LAST:
        return last[LAST_KM]
    if aggregate == KM_PER_HOUR:
        # Within a second of the last one a speed says nothing that the distance does not.
        return last[LAST_KM] * 3600.0 / max(last[LAST_SECONDS_POSITION], 1.0)
    if aggregate == ENTRY_MODE:
        return float(entry_mode)
    if aggregate == HOUR:
        return float(hour)
    if aggregate == WEEKDAY:
        return float(weekday)
    return np.nan


@njit(cache=True)
def _fold_rows(  # type: ignore[no-untyped-def]
    rows, slot, offset, scale, emit, entries, begin, count, last_offset, truncated_until_ms,  # noqa: ANN001
    aggregates, window_index, windows_ms, distinct_horizon_ms, vectors, flags,  # noqa: ANN001
) -> None:  # fmt: skip
    statistics = np.empty((len(windows_ms), STATISTICS))
    last = np.empty(3)
    for i in range(len(rows)):
        k = slot[i]
        row = rows[i]
        past = entries[begin[k] : begin[k] + count[k]]
        flags[i] = windows.fold_flags(past, truncated_until_ms[k], row["event_time_ms"], row["transaction_hash"])
        if emit[i]:
            amount = np.float64(row["amount_minor"])
            newest = windows.window_statistics(
                past, row["event_time_ms"], row["transaction_hash"], row["terminal_hash"],
                windows_ms, distinct_horizon_ms, statistics,
            )  # fmt: skip
            windows.last_seen(
                past, newest, row["event_time_ms"], row["transaction_hash"],
                np.float64(row["latitude"]), np.float64(row["longitude"]), last,
            )  # fmt: skip
            for j in range(len(aggregates)):
                w = window_index[j]
                if windowed(aggregates[j]):
                    vectors[i, j] = _past_value(aggregates[j], amount, scale[i], statistics[w])
                else:
                    vectors[i, j] = _moment_value(
                        aggregates[j], amount, scale[i], row["event_time_ms"], row["entry_mode"], last
                    )
        if not flags[i] & (REPEAT | TOO_LATE):
            windows.insert_entry(entries, begin, count, truncated_until_ms, k, row)
            last_offset[k] = offset[i]


@njit(cache=True)
def windowed(aggregate: int) -> bool:
    """Whether an aggregate is taken over a window of the card's past."""
    return COUNT_WITH_CURRENT <= aggregate <= TIMES_AT_TERMINAL and aggregate != SECONDS_SINCE_LAST


assert all(bool(f.window_ms) == windowed.py_func(f.aggregate) for f in FEATURES), "a window where none belongs, or none"


def _entries_of(columns: TransactionColumns) -> np.ndarray:
    rows = np.zeros(len(columns), ENTRY)
    rows["event_time_ms"] = columns.event_time_ms
    rows["amount_minor"] = columns.billing_amount_minor
    rows["transaction_hash"] = hash_uuids(columns.transaction_id)
    rows["terminal_hash"] = hash_text(columns.terminal_id)
    rows["latitude"] = columns.latitude
    rows["longitude"] = columns.longitude
    rows["country"] = columns.country
    rows["entry_mode"] = columns.entry_mode
    return rows


def fold(
    columns: TransactionColumns, slot: type_i64, offset: type_i64, emit: type_bool, profiles: OpenProfiles
) -> Folded:
    """Fold a batch of valid transactions into their cards' profiles, in order, and compute the vectors on the way.

    Each vector is computed against the profile as it is just before its own transaction is folded.

    Args:
        columns: n transactions in the order of their logs.
        slot: (n,) the row of ``profiles`` that belongs to each.
        offset: (n,) the Kafka offset of each.
        emit: (n,) False where only the fold is wanted, as in recovery; such vectors are undefined.
        profiles: changed in place.
    """
    n = len(columns)
    vectors = np.empty((n, len(FEATURES)))
    flags = np.zeros(n, np.int64)
    scale = 10.0 ** exponents_of(columns.billing_currency)
    _fold_rows(
        _entries_of(columns), slot, offset, scale, emit, profiles.entries, profiles.begin, profiles.count,
        profiles.last_offset, profiles.truncated_until_ms, _AGGREGATES, _WINDOW_INDEX, _WINDOWS_MS,
        _DISTINCT_HORIZON_MS, vectors, flags,
    )  # fmt: skip
    return Folded(vectors, flags)


def compute_offline(columns: TransactionColumns) -> Folded:
    """Compute the vectors of a whole history, in log order, from empty profiles: what training uses.

    The same fold and kernels as in the worker; bit-equal to what it computes from the same log.
    """
    slot, first = group_text(columns.card_id, np.zeros(len(columns), np.int64))
    additions = np.bincount(slot, minlength=len(first)).astype(np.int64)
    profiles = open_profiles([None] * len(first), additions)
    return fold(columns, slot, np.arange(len(columns)), np.ones(len(columns), bool), profiles)
