"""The features of a card and of the transaction itself, computed by numba kernels on the way of the fold."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from services.core.aggregates import (
    AMOUNT,
    AMOUNT_DEVIATION,
    AMOUNT_TO_LARGEST,
    AMOUNT_TO_MEAN,
    AMOUNT_TO_MEDIAN,
    COUNT_WITH_CURRENT,
    DISTINCT_COUNTRIES,
    DISTINCT_TERMINALS,
    ENTRY_MODE,
    HIGH_AMOUNTS,
    HIGH_TIMES,
    HOUR,
    IS_WINDOWED,
    KM_FROM_LAST,
    KM_PER_HOUR,
    MEAN_WITH_CURRENT,
    MEDIAN_OF,
    NIGHT,
    PAST_COUNT,
    PAST_SUM,
    SECONDS_SINCE_LAST,
    TIMES_AT_TERMINAL,
    WEEKDAY,
    WEEKEND,
)
from services.core.card import windows
from services.core.card.layout import ENTRY, TERMINAL_HASH_MASK
from services.core.card.windows import (
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
)  # fmt: skip
from services.core.columns import TransactionColumns, type_bool, type_f64, type_i64
from services.core.features import (
    FEATURES,
    HOUR_MS,
)
from services.core.immutable import immutable
from services.core.kernels import hash_bytes
from services.core.money import scales_of
from services.core.packing import HASH_MASK
from services.core.profiles import DAY_MS, OpenProfiles

_OWN: Final = [j for j, feature in enumerate(FEATURES) if feature.entity in ("card", "transaction")]
_COLUMNS: Final = np.array(_OWN, np.int64)
_AGGREGATES: Final = np.array([FEATURES[j].aggregate for j in _OWN], np.int64)
_WINDOWED: Final = IS_WINDOWED[_AGGREGATES]
_WINDOWS_MS: Final = np.array(sorted({FEATURES[j].window_ms for j in _OWN if FEATURES[j].window_ms}), np.int64)
_WINDOW_INDEX: Final = np.searchsorted(_WINDOWS_MS, [FEATURES[j].window_ms for j in _OWN]).astype(np.int64)
_DISTINCT_HORIZON_MS: Final = max(
    (FEATURES[j].window_ms for j in _OWN if FEATURES[j].aggregate in (DISTINCT_TERMINALS, DISTINCT_COUNTRIES)),
    default=0,
)


@immutable
class FoldedCards:
    """What folding a batch gives: the vectors, and what is to be said about them."""

    vectors: type_f64
    """Shape (n, len(FEATURES)), NaN where a feature has no value, and in the columns of other entities."""
    flags: type_i64
    """Shape (n,): REPEAT, LATE, TRUNCATED and TOO_LATE of :mod:`services.core.card.windows`; whoever sees more adds to them."""


@njit(cache=True, nogil=True)
def _ratio(a: float, b: float) -> float:
    return a / b if b > 0.0 else np.nan


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _fold_rows(  # type: ignore[no-untyped-def]
    texts, numbers, degrees, slot, offset, emit, profiles, vectors, flags,  # noqa: ANN001
) -> None:  # fmt: skip
    entries, begin, count, truncated_until_ms, last_offset = profiles
    currency, entry_mode = numbers[-2:]
    rows, scale = _entries_of(texts, numbers, degrees), scales_of(currency)
    statistics, last, amounts = np.empty((len(_WINDOWS_MS), STATISTICS)), np.empty(3), np.empty(MEDIAN_OF)
    for i in range(len(rows)):
        k = slot[i]
        row = rows[i]
        past = entries[begin[k] : begin[k] + count[k]]
        flags[i] = windows.fold_flags(past, truncated_until_ms[k], row["event_time_ms"], row["transaction_hash"])
        vectors[i] = np.nan
        if emit[i]:
            amount = np.float64(row["amount_minor"])
            newest = windows.window_statistics(
                past, row["event_time_ms"], row["transaction_hash"], row["terminal_hash"],
                _WINDOWS_MS, _DISTINCT_HORIZON_MS, statistics,
            )  # fmt: skip
            windows.last_seen(
                past, newest, row["event_time_ms"], row["transaction_hash"],
                np.float64(row["latitude"]), np.float64(row["longitude"]), last,
            )  # fmt: skip
            before = past[: newest + 1]
            median = windows.median_amount(before, row["event_time_ms"], row["transaction_hash"], amounts)
            for j in range(len(_COLUMNS)):
                w = _WINDOW_INDEX[j]
                if _AGGREGATES[j] == AMOUNT_TO_MEDIAN:
                    vectors[i, _COLUMNS[j]] = _ratio(amount, median)
                elif _AGGREGATES[j] == HIGH_AMOUNTS:
                    vectors[i, _COLUMNS[j]] = windows.amounts_above(
                        before, row["event_time_ms"], row["transaction_hash"], _WINDOWS_MS[w], HIGH_TIMES * median
                    )
                elif _WINDOWED[j]:
                    vectors[i, _COLUMNS[j]] = _past_value(_AGGREGATES[j], amount, scale[i], statistics[w])
                else:
                    vectors[i, _COLUMNS[j]] = _moment_value(
                        _AGGREGATES[j], amount, scale[i], row["event_time_ms"], entry_mode[i], last
                    )
        if not flags[i] & (REPEAT | TOO_LATE):
            windows.insert_entry(entries, begin, count, truncated_until_ms, k, row)
            last_offset[k] = offset[i]


@njit(cache=True, nogil=True)
def _entries_of(texts: Any, numbers: Any, degrees: Any) -> Any:
    transaction_id, terminals, start, length = texts
    event_time_ms, amount_minor, country, _, _ = numbers
    latitude, longitude = degrees
    rows = np.empty(len(start), ENTRY)
    for i in range(len(rows)):
        rows[i]["event_time_ms"] = event_time_ms[i]
        rows[i]["amount_minor"] = amount_minor[i]
        rows[i]["transaction_hash"] = hash_bytes(transaction_id[i], 0, 16) & HASH_MASK
        rows[i]["terminal_hash"] = np.uint32(hash_bytes(terminals, start[i], length[i]) & TERMINAL_HASH_MASK)
        rows[i]["latitude"] = np.float32(latitude[i])
        rows[i]["longitude"] = np.float32(longitude[i])
        rows[i]["country"] = np.uint16(country[i])
        rows[i]["reserved"] = 0
    return rows


def fold(
    columns: TransactionColumns, slot: type_i64, offset: type_i64, emit: type_bool, profiles: OpenProfiles
) -> FoldedCards:
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
    vectors, flags = np.empty((n, len(FEATURES))), np.zeros(n, np.int64)
    terminal = columns.terminal_id
    texts = columns.transaction_id, terminal.buffer, terminal.start, terminal.length
    numbers = (
        columns.event_time_ms, columns.billing_amount_minor, columns.country, columns.billing_currency, columns.entry_mode,
    )  # fmt: skip
    degrees = columns.latitude, columns.longitude
    _fold_rows(texts, numbers, degrees, slot, offset, emit, profiles.all_arrays, vectors, flags)
    return FoldedCards(vectors, flags)
