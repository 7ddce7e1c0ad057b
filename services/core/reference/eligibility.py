"""What accounts and customers forbid: funds, limits and instructions, for a batch at once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numba import njit

from services.core.columns import TransactionColumns, type_bool, type_f64, type_i64, type_u8
from services.core.reference.layout import CODE_BYTES, NO_LIMIT, NOTICE_BYTES, Accounts, Customers


class DeclineReason(IntEnum):
    """Why the bank or the customer forbids a transaction; in the order of the Avro enum. Each is a bit of a decline mask."""

    ACCOUNT_NOT_ACTIVE = 0
    INSUFFICIENT_FUNDS = 1
    CATEGORY_BLOCKED = 2
    COUNTRY_BLOCKED = 3
    OVER_TRANSACTION_LIMIT = 4
    OVER_DAY_LIMIT = 5


OF_ACCOUNT: Final = 1 << DeclineReason.ACCOUNT_NOT_ACTIVE | 1 << DeclineReason.INSUFFICIENT_FUNDS
"""The declines that are the account's; the others are the customer's own instructions."""


@njit(cache=True, nogil=True)
def _number(buffer: type_u8, at: int, size: int) -> np.int64:
    value = np.int64(0)
    for i in range(size):
        value |= np.int64(buffer[at + i]) << np.int64(8 * i)
    return value


_CATEGORY, _COUNTRY, _TRAVELLING = 1, 2, 4
"""What a customer's instructions say of a transaction: one bit each."""


@njit(cache=True, nogil=True)
def _instructed(slot: type_i64, transactions: Any, instructions: Any, said: type_i64) -> None:
    category, country, event_time_ms = transactions
    buffer, begin, counts = instructions
    for i in range(len(slot)):
        k = slot[i]
        if k < 0:
            continue
        at = begin[k]
        for _ in range(counts[k, 0]):
            if _number(buffer, at, CODE_BYTES) == category[i]:
                said[i] |= _CATEGORY
            at += CODE_BYTES
        for _ in range(counts[k, 1]):
            if _number(buffer, at, CODE_BYTES) == country[i]:
                said[i] |= _COUNTRY
            at += CODE_BYTES
        for _ in range(counts[k, 2]):
            here = _number(buffer, at + 16, CODE_BYTES) == country[i]
            if here and _number(buffer, at, 8) <= event_time_ms[i] <= _number(buffer, at + 8, 8):
                said[i] |= _TRAVELLING
            at += NOTICE_BYTES


@dataclass(frozen=True, slots=True)
class Eligibility:
    """What accounts and customers say of n transactions; what is not known says nothing."""

    account_known: type_bool
    customer_known: type_bool
    spendable_minor: type_i64
    """In the billing currency; ``FREE`` where nothing is known."""
    limit_minor: type_i64
    """The customer's own, per transaction."""
    left_today_minor: type_i64
    """What the customer's own limit per day leaves."""
    always: type_i64
    """(n,) the decline mask of what does not depend on the amount."""
    travelling: type_bool
    """Whether a travel notice covers the transaction."""

    def declines(self, amount_minor: type_i64) -> type_i64:
        """Return the decline mask of each transaction at a billing amount; nothing is too much for an amount of nothing."""
        found = self.always.copy()
        limits = {
            DeclineReason.INSUFFICIENT_FUNDS: self.spendable_minor,
            DeclineReason.OVER_TRANSACTION_LIMIT: self.limit_minor,
            DeclineReason.OVER_DAY_LIMIT: self.left_today_minor,
        }
        for decline, limit in limits.items():
            found |= ((amount_minor > limit) & (amount_minor > 0)).astype(np.int64) << decline
        return found

    def take(self, rows: type_i64 | type_bool) -> Eligibility:
        """Return the given rows."""
        return Eligibility(*(getattr(self, name)[rows] for name in self.__slots__))


FREE: Final = 2**62
"""More than any amount."""


def eligibility_of(
    columns: TransactionColumns,
    accounts: tuple[Accounts, type_i64],
    customers: tuple[Customers, type_i64],
    spent_minor: type_f64,
) -> Eligibility:
    """Return what accounts and customers say of a batch.

    Args:
        columns: n transactions.
        accounts: with (n,) the row of each transaction's account.
        customers: with (n,) the row of each transaction's customer.
        spent_minor: (n,) the billing amounts of all of the card's attempts in the 24 hours before; NaN where they are not known.
    """
    (account, a), (customer, c) = accounts, customers
    known, customer_known = account.known[a], customer.known[c]
    # A balance or a limit in another currency than the card's says nothing.
    comparable = known & (account.currency[a] == columns.billing_currency)
    limited = customer_known & (customer.currency[c] == columns.billing_currency)
    said = np.zeros(len(columns), np.int64)
    transactions = columns.merchant_category_code, columns.country, columns.event_time_ms
    _instructed(np.where(customer_known, c, -1), transactions, (customer.buffer, customer.begin, customer.counts), said)
    per_transaction, per_day = customer.limit_per_transaction_minor[c], customer.limit_per_day_minor[c]
    always = (
        (known & ~account.active[a]).astype(np.int64) << DeclineReason.ACCOUNT_NOT_ACTIVE
        | (said & _CATEGORY != 0).astype(np.int64) << DeclineReason.CATEGORY_BLOCKED
        | (said & _COUNTRY != 0).astype(np.int64) << DeclineReason.COUNTRY_BLOCKED
    )
    counted = ~np.isnan(spent_minor)
    spent = np.rint(np.where(counted, spent_minor, 0.0)).astype(np.int64)
    return Eligibility(
        account_known=comparable,
        customer_known=customer_known,
        spendable_minor=np.where(comparable, account.spendable_minor[a], FREE),
        limit_minor=np.where(limited & (per_transaction != NO_LIMIT), per_transaction, FREE),
        left_today_minor=np.where(limited & counted & (per_day != NO_LIMIT), per_day - spent, FREE),
        always=always,
        travelling=said & _TRAVELLING != 0,
    )
