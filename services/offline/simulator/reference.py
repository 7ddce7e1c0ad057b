"""What a bank would know of the people of simulated traffic: accounts, homes, instructions, journeys that they announced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.core.columns import Text, TransactionColumns, pack_code, type_bool, type_i64, unpack_code
from services.core.kernels import group_text
from services.core.profiles import DAY_MS
from services.core.reference.features import ReferenceRows
from services.core.reference.layout import SEGMENTS, Account, Customer, TravelNotice, open_accounts, open_customers

SHORT_SHARE: Final = 0.002
"""Accounts that hold less than their owners are used to spend at once."""
FROZEN_SHARE: Final = 0.0005
ANNOUNCED_SHARE: Final = 0.6
"""Journeys that the bank was informed of."""
LIMITED_SHARE: Final = 0.05
"""Customers with own limits, above all that they do themselves."""
BLOCKING_SHARE: Final = 0.05
"""Customers who blocked what they never buy, and where they never are."""
_SEGMENT_SHARES: Final = (0.7, 0.15, 0.1, 0.05)
_NEVER_BOUGHT: Final = (7995, 6051)
_NEVER_THERE: Final = ("KP", "SY")


@dataclass(frozen=True, slots=True)
class SimulatedReference:
    """The accounts and customers of some traffic; row k of both belongs to the same card holder."""

    account_ids: list[bytes]
    accounts: list[Account]
    customer_ids: list[bytes]
    customers: list[Customer]

    def rows_of(self, columns: TransactionColumns) -> ReferenceRows:
        """Return what is known of who pays each of some transactions, all of which must be of these people."""
        return ReferenceRows(
            open_accounts([one.sealed() for one in self.accounts]), _rows(columns.account_id, self.account_ids),
            open_customers([one.sealed() for one in self.customers]), _rows(columns.customer_id, self.customer_ids),
        )  # fmt: skip


def _rows(ids: Text, known: list[bytes]) -> type_i64:
    slot, first = group_text(ids, np.zeros(len(ids), np.int64))
    row_of = {name: row for row, name in enumerate(known)}
    return np.array([row_of[name] for name in ids.take(first).tolist()], np.int64)[slot]


def simulate_reference(columns: TransactionColumns, genuine: type_bool, seed: int) -> SimulatedReference:
    """Make up what a bank knows of the people behind some traffic, seeded, and such that it fits what they do themselves.

    Args:
        columns: n transactions.
        genuine: (n,) which of them the card holders made.
        seed: any whole number from 0.
    """
    rng = np.random.default_rng(seed)
    slot, first = group_text(columns.account_id, np.zeros(len(columns), np.int64))
    begin_ms = int(columns.event_time_ms.min()) if len(columns) else 0
    accounts, customers = [], []
    for rows in _by_holder(slot, genuine, len(first)):
        mine = columns.take(rows)
        accounts.append(_account(rng, mine, begin_ms))
        customers.append(_customer(rng, mine))
    chosen = columns.take(first)
    return SimulatedReference(chosen.account_id.tolist(), accounts, chosen.customer_id.tolist(), customers)


def _by_holder(slot: type_i64, genuine: type_bool, count: int) -> Iterator[type_i64]:
    """Yield each holder's own transactions; of whom there are none, those of the fraudsters."""
    order = np.argsort(slot, kind="stable")
    edges = np.searchsorted(slot[order], np.arange(count + 1))
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        rows = order[begin:end]
        own = rows[genuine[rows]]
        yield own if len(own) else rows


def _account(rng: np.random.Generator, mine: TransactionColumns, begin_ms: int) -> Account:
    amounts = mine.billing_amount_minor
    days = max(1.0, (int(mine.event_time_ms.max()) - int(mine.event_time_ms.min())) / DAY_MS)
    month = float(amounts.sum()) / days * 30.0 if len(amounts) > 1 else 30.0 * float(amounts.sum())
    balance = month * rng.lognormal(0.4, 0.7) + 2.0 * float(amounts.max())
    if rng.random() < SHORT_SHARE:
        balance = 0.8 * float(np.median(amounts))
    return Account(
        currency=unpack_code(int(mine.billing_currency[0])),
        available_balance_minor=int(min(balance, 10**11)),
        credit_limit_minor=0,
        status="FROZEN" if rng.random() < FROZEN_SHARE else "ACTIVE",
        opened_ms=begin_ms - int(rng.gamma(2.0, 1_200.0) * DAY_MS),
    )


def _customer(rng: np.random.Generator, mine: TransactionColumns) -> Customer:
    there = ~np.isnan(mine.latitude)
    countries, counts = np.unique(mine.country[there] if there.any() else mine.country, return_counts=True)
    home = int(countries[np.argmax(counts)])
    at_home = there & (mine.country == home)
    limited, blocking = rng.random() < LIMITED_SHARE, rng.random() < BLOCKING_SHARE
    largest = int(mine.billing_amount_minor.max())
    return Customer(
        home_country=unpack_code(home),
        home_latitude=float(np.median(mine.latitude[at_home])) if at_home.any() else None,
        home_longitude=float(np.median(mine.longitude[at_home])) if at_home.any() else None,
        segment=str(rng.choice(SEGMENTS, p=_SEGMENT_SHARES)),
        currency=unpack_code(int(mine.billing_currency[0])),
        limit_per_transaction_minor=2 * largest if limited else None,
        limit_per_day_minor=10 * largest if limited else None,
        blocked_categories=_NEVER_BOUGHT if blocking else (),
        blocked_countries=tuple(c for c in _NEVER_THERE if pack_code(c) not in mine.country) if blocking else (),
        travel_notices=_notices(rng, mine, there & (mine.country != home)),
    )


def _notices(rng: np.random.Generator, mine: TransactionColumns, away: type_bool) -> tuple[TravelNotice, ...]:
    """Return a notice for each country that somebody was in, if the bank was informed."""
    found = []
    for country in np.unique(mine.country[away]).tolist():
        times = mine.event_time_ms[away & (mine.country == country)]
        if rng.random() < ANNOUNCED_SHARE:
            found.append(TravelNotice(unpack_code(country), int(times.min()) - DAY_MS, int(times.max()) + DAY_MS))
    return tuple(found)
