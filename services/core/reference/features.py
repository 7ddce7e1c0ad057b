"""The features of an account and a customer: what a transaction is against what the bank knows of who pays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numba import njit

from services.core.aggregates import (
    ABROAD,
    AMOUNT_TO_SPENDABLE,
    DAYS_SINCE_OPENED,
    KM_FROM_HOME,
    PAST_SUM,
)
from services.core.card.windows import distance_km
from services.core.columns import TransactionColumns, type_f64, type_i64
from services.core.features import FEATURES
from services.core.money import scales_of
from services.core.profiles import DAY_MS
from services.core.reference.eligibility import Eligibility, eligibility_of
from services.core.reference.layout import Accounts, Customers

_AT: Final = {f.aggregate: j for j, f in enumerate(FEATURES) if f.entity in ("account", "customer")}
REFERENCE_COLUMNS: Final = np.array(sorted(_AT.values()), np.int64)
"""Where the account's and the customer's features are in a vector."""
_SPENT: Final = next(j for j, f in enumerate(FEATURES) if (f.aggregate, f.window_ms) == (PAST_SUM, DAY_MS))
"""What the card spent in 24 hours: all attempts, whatever became of them."""


@dataclass(frozen=True, slots=True)
class ReferenceRows:
    """What is known of the accounts and customers of n transactions."""

    accounts: Accounts
    account: type_i64
    """(n,) the row of each transaction's account."""
    customers: Customers
    customer: type_i64
    """(n,) the row of each transaction's customer."""


@njit(cache=True, nogil=True)
def _distances(a: type_f64, b: type_f64, c: type_f64, d: type_f64) -> type_f64:
    found = np.full(len(a), np.nan)
    for i in range(len(a)):
        if not (np.isnan(a[i]) or np.isnan(c[i])):
            found[i] = distance_km(a[i], b[i], c[i], d[i])
    return found


def see_reference(columns: TransactionColumns, rows: ReferenceRows, vectors: type_f64) -> Eligibility:
    """Fill the account's and the customer's columns of vectors in place, and return what they forbid.

    Args:
        columns: n transactions.
        rows: what is known of who pays them.
        vectors: (n, len(FEATURES)), those of the card filled.
    """
    accounts, a, customers, c = rows.accounts, rows.account, rows.customers, rows.customer
    spent_minor = vectors[:, _SPENT] * scales_of(columns.billing_currency)
    eligibility = eligibility_of(columns, (accounts, a), (customers, c), spent_minor)
    some = eligibility.account_known & (eligibility.spendable_minor > 0)
    divisor = np.where(some, eligibility.spendable_minor, 1).astype(np.float64)
    vectors[:, _AT[AMOUNT_TO_SPENDABLE]] = np.where(some, columns.billing_amount_minor / divisor, np.nan)
    age_days = (columns.event_time_ms - accounts.opened_ms[a]) / DAY_MS
    vectors[:, _AT[DAYS_SINCE_OPENED]] = np.where(accounts.known[a], age_days, np.nan)
    customer_known, announced = eligibility.customer_known, eligibility.travelling
    km = _distances(customers.home_latitude[c], customers.home_longitude[c], columns.latitude, columns.longitude)
    vectors[:, _AT[KM_FROM_HOME]] = np.where(customer_known, np.where(announced, 0.0, km), np.nan)
    abroad = (columns.country != customers.home_country[c]) & ~announced
    vectors[:, _AT[ABROAD]] = np.where(customer_known, abroad.astype(np.float64), np.nan)
    return eligibility
