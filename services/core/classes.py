"""Classify, before anything is scored: what kind of payment a transaction is.

The class is read off the feature vector alone, so whoever has a decision's recorded vector has its class, and a vector at another
amount or place has the class that such a transaction would have.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
from numba import njit

from services.core.aggregates import ABROAD, COUNT_WITH_CURRENT, ENTRY_MODE
from services.core.columns import ENTRY_MODES, type_f64, type_i64
from services.core.features import FEATURES
from services.core.profiles import DAY_MS


class TransactionClass(IntEnum):
    """What kind of payment; in the order of the Avro enum. The first that holds, from the last named upwards."""

    CARD_PRESENT = 0
    """None of what follows: chip, contactless or magnetic stripe, at home."""
    ECOMMERCE = 1
    """The card was not read: online, or keyed in."""
    CROSS_BORDER = 2
    """In another country than the customer's, and no travel notice covers it."""
    CASH = 3
    """At a cash machine."""
    FIRST_USE = 4
    """The card has no other transaction in the last 30 days."""


def _column(aggregate: int, window_ms: int = 0) -> int:
    return next(j for j, f in enumerate(FEATURES) if (f.aggregate, f.window_ms) == (aggregate, window_ms))


_MODE: Final = _column(ENTRY_MODE)
_ABROAD: Final = _column(ABROAD)
_USES: Final = _column(COUNT_WITH_CURRENT, 30 * DAY_MS)
_ONLINE, _KEYED, _AT_MACHINE = (float(ENTRY_MODES.index(mode)) for mode in ("ECOMMERCE", "MANUAL", "ATM"))


_CARD_PRESENT, _ECOMMERCE, _CROSS_BORDER, _CASH, _FIRST_USE = (int(one) for one in TransactionClass)


def classify(vectors: type_f64) -> type_i64:
    """Return the :class:`TransactionClass` of each row of (n, features), shape (n,); what is missing makes no class."""
    return _classify(vectors)


@njit(cache=True, nogil=True)
def _classify(vectors: type_f64) -> type_i64:
    found = np.empty(len(vectors), np.int64)
    for i in range(len(vectors)):
        mode = vectors[i, _MODE]
        if vectors[i, _USES] == 1.0:
            found[i] = _FIRST_USE
        elif mode == _AT_MACHINE:
            found[i] = _CASH
        elif vectors[i, _ABROAD] == 1.0:
            found[i] = _CROSS_BORDER
        else:
            found[i] = _ECOMMERCE if mode in (_ONLINE, _KEYED) else _CARD_PRESENT
    return found
