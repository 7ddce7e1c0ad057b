"""The features of a terminal, computed by a numba kernel from profiles that another service folds."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from services.core.aggregates import (
    FIRST_FRAUD_DAYS,
    KNOWN_COUNT,
    KNOWN_MEAN,
    KNOWN_RISK,
    LAST_FRAUD_DAYS,
    LAST_GENUINE_DAYS,
)
from services.core.columns import type_f64, type_i64
from services.core.features import FEATURES
from services.core.profiles import DAY_MS, OpenProfiles
from services.core.terminal.windows import (
    FIRST_FRAUD,
    LAST_FRAUD,
    LAST_GENUINE,
    LONGEST_WINDOW_MS,
    TERMINAL_COUNT,
    TERMINAL_FRAUDS,
    TERMINAL_STATISTICS,
    TERMINAL_TOTAL,
    terminal_statistics,
)  # fmt: skip

_TERMINAL: Final = [j for j, feature in enumerate(FEATURES) if feature.entity == "terminal"]
TERMINAL_COLUMNS: Final = np.array(_TERMINAL, np.int64)
"""Where the terminal's features are in a vector."""
_AGGREGATES: Final = np.array([FEATURES[j].aggregate for j in _TERMINAL], np.int64)
_WINDOWS_MS: Final = np.array(sorted({LONGEST_WINDOW_MS, *(FEATURES[j].window_ms for j in _TERMINAL)} - {0}), np.int64)
_WINDOW_INDEX: Final = np.searchsorted(_WINDOWS_MS, [FEATURES[j].window_ms for j in _TERMINAL]).astype(np.int64)


@njit(cache=True, nogil=True)
def _terminal_value(aggregate: int, scale: float, s: type_f64, ages_ms: type_f64) -> float:
    """Return one feature from a window's statistics ``s`` and the ages; ``scale`` is the minor units in a major unit."""
    if aggregate == KNOWN_COUNT:
        return s[TERMINAL_COUNT]
    if aggregate == KNOWN_MEAN:
        return s[TERMINAL_TOTAL] / s[TERMINAL_COUNT] / scale if s[TERMINAL_COUNT] > 0.0 else np.nan
    if aggregate == KNOWN_RISK:
        return min(1.0, s[TERMINAL_FRAUDS] / s[TERMINAL_COUNT]) if s[TERMINAL_COUNT] > 0.0 else 0.0
    if aggregate == FIRST_FRAUD_DAYS:
        return ages_ms[FIRST_FRAUD] / DAY_MS
    if aggregate == LAST_FRAUD_DAYS:
        return ages_ms[LAST_FRAUD] / DAY_MS
    if aggregate == LAST_GENUINE_DAYS:
        return ages_ms[LAST_GENUINE] / DAY_MS
    return np.nan


@njit(cache=True, nogil=True)
def looking_at(profiles: Any) -> Any:
    """Return ``OpenProfiles.arrays`` with the room that :func:`fill_terminal_row` works in, made once a batch."""
    return profiles, (np.zeros((len(_WINDOWS_MS), TERMINAL_STATISTICS)), np.empty(3))


@njit(cache=True, nogil=True)
def fill_terminal_row(looking: Any, k: int, event_time_ms: int, scale: float, vector: type_f64) -> None:
    """Fill the terminal's columns of one vector from profile k of what :func:`looking_at` returned."""
    profiles, room = looking
    terminal_statistics(profiles, k, event_time_ms, _WINDOWS_MS, room)
    for j in range(len(TERMINAL_COLUMNS)):
        vector[TERMINAL_COLUMNS[j]] = _terminal_value(_AGGREGATES[j], scale, room[0][_WINDOW_INDEX[j]], room[1])


@njit(cache=True, nogil=True)
def _fill_rows(event_time_ms: type_i64, scale: type_f64, slot: type_i64, profiles: Any, vectors: type_f64) -> None:
    looking = looking_at(profiles)
    for i in range(len(slot)):
        if slot[i] >= 0:
            fill_terminal_row(looking, slot[i], event_time_ms[i], scale[i], vectors[i])


def fill_terminal_features(
    vectors: type_f64, event_time_ms: type_i64, scale: type_f64, slot: type_i64, profiles: OpenProfiles
) -> None:
    """Fill the terminals' columns of vectors in place.

    Args:
        vectors: (n, len(FEATURES)).
        event_time_ms: (n,) of each transaction.
        scale: (n,) the minor units in a major unit of each transaction's currency.
        slot: (n,) the row of ``profiles`` that belongs to each; -1 where nothing is known of the terminal, whose columns stay.
        profiles: of the distinct terminals, opened with nothing to add; one without a profile is new.
    """
    _fill_rows(event_time_ms, scale, slot, profiles.arrays, vectors)
