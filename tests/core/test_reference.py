"""Accounts and customers: what is held of them, and what they forbid, against a slow twin."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from services.core.columns import TransactionColumns, pack_code, unpack_code
from services.core.reference.eligibility import FREE, DeclineReason, eligibility_of
from services.core.reference.layout import (
    SEGMENTS,
    STATUSES,
    Account,
    BadReferenceError,
    Customer,
    TravelNotice,
    open_accounts,
    open_customers,
)
from tests.generators import random_events, to_columns

AT_MS = 1_767_225_600_000
ACCOUNT = Account("EUR", 50_000, 10_000, "ACTIVE", AT_MS)
CUSTOMER = Customer("BE", 50.8, 4.3, "STANDARD", "EUR", 20_000, 40_000, (7995,), ("KP",), (TravelNotice("JP", 5, 9),))


def random_transactions(seed: int, count: int) -> tuple[TransactionColumns, list[dict]]:
    """Return transactions in columns, and the same ones as people would write them down."""
    rng, columns = np.random.default_rng(seed), to_columns(random_events(seed, count, late_share=0.0, dense=True))
    columns = dataclasses.replace(
        columns,
        merchant_category_code=rng.choice([5411, 7995, 6011], count),
        billing_amount_minor=rng.choice([0, 1, 9_999, 15_000], count) + rng.integers(0, 3_000, count),
        billing_currency=np.array([pack_code(one_of(rng, ["EUR", "EUR", "USD"])) for _ in range(count)]),
    )
    numbers = ("billing_amount_minor", "merchant_category_code", "event_time_ms")
    reported = [{name: int(getattr(columns, name)[i]) for name in numbers} for i in range(count)]
    for i, one in enumerate(reported):
        one |= {name: unpack_code(int(getattr(columns, name)[i])) for name in ("billing_currency", "country")}
    return columns, reported


def naive_declines(transaction: dict, account: Account | None, customer: Customer | None, spent: int) -> set[str]:
    amount, found = transaction["billing_amount_minor"], set()
    if account is not None:
        if account.status != "ACTIVE":
            found.add("ACCOUNT_NOT_ACTIVE")
        same = account.currency == transaction["billing_currency"]
        if same and amount > 0 and amount > account.available_balance_minor + account.credit_limit_minor:
            found.add("INSUFFICIENT_FUNDS")
    if customer is not None:
        if transaction["merchant_category_code"] in customer.blocked_categories:
            found.add("CATEGORY_BLOCKED")
        if transaction["country"] in customer.blocked_countries:
            found.add("COUNTRY_BLOCKED")
        if customer.currency == transaction["billing_currency"] and amount > 0:
            if customer.limit_per_transaction_minor is not None and amount > customer.limit_per_transaction_minor:
                found.add("OVER_TRANSACTION_LIMIT")
            if customer.limit_per_day_minor is not None and amount + spent > customer.limit_per_day_minor:
                found.add("OVER_DAY_LIMIT")
    return found


def names(mask: int) -> set[str]:
    return {decline.name for decline in DeclineReason if mask >> decline & 1}


def one_of(rng: np.random.Generator, values):
    return values[int(rng.integers(len(values)))]


def random_account(rng: np.random.Generator) -> Account | None:
    if rng.random() < 0.1:
        return None
    limits = int(rng.integers(-5_000, 20_000)), int(rng.integers(0, 5_000))
    return Account(one_of(rng, ["EUR", "EUR", "USD"]), *limits, one_of(rng, STATUSES), AT_MS)


def random_customer(rng: np.random.Generator, categories: list[int], countries: list[str]) -> Customer | None:
    if rng.random() < 0.1:
        return None
    home = (None, None) if rng.random() < 0.2 else (float(rng.uniform(-90, 90)), float(rng.uniform(-180, 180)))
    limits = [None if rng.random() < 0.4 else int(rng.integers(0, 20_000)) for _ in range(2)]
    notices = []
    for _ in range(rng.integers(0, 4)):
        begin = AT_MS + int(rng.integers(-5, 5)) * 3_600_000
        notices.append(TravelNotice(one_of(rng, countries), begin, begin + int(rng.integers(0, 5)) * 3_600_000))
    return Customer(
        one_of(rng, countries), *home, one_of(rng, SEGMENTS), one_of(rng, ["EUR", "EUR", "GBP"]), *limits,
        tuple({one_of(rng, categories) for _ in range(rng.integers(0, 3))}),
        tuple({one_of(rng, countries) for _ in range(rng.integers(0, 3))}), tuple(notices),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_what_is_forbidden_is_what_the_slow_twin_says(seed: int):
    rng = np.random.default_rng(seed)
    columns, transactions = random_transactions(seed, 60)
    categories = sorted({t["merchant_category_code"] for t in transactions})
    countries = sorted({t["country"] for t in transactions})
    accounts = [random_account(rng) for _ in range(7)]
    customers = [random_customer(rng, categories, countries) for _ in range(7)]
    a, c = rng.integers(0, 7, (2, 60))
    spent = rng.integers(0, 20_000, 60)

    eligibility = eligibility_of(
        columns,
        (open_accounts([None if x is None else x.sealed() for x in accounts]), a),
        (open_customers([None if x is None else x.sealed() for x in customers]), c),
        spent.astype(float),
    )
    found = eligibility.declines(columns.billing_amount_minor)

    assert len(transactions) == len(found) == 60
    for i, transaction in enumerate(transactions):
        account, customer = accounts[a[i]], customers[c[i]]
        assert names(int(found[i])) == naive_declines(transaction, account, customer, int(spent[i])), transaction
        notices = () if customer is None else customer.travel_notices
        covered = any(
            n.country == transaction["country"] and n.from_ms <= transaction["event_time_ms"] <= n.until_ms
            for n in notices
        )
        assert eligibility.travelling[i] == covered
        assert eligibility.customer_known[i] == (customer is not None)
        comparable = account is not None and account.currency == transaction["billing_currency"]
        assert eligibility.account_known[i] == comparable


def test_what_is_held_is_what_was_said():
    account = open_accounts([ACCOUNT.sealed(), None, b""])
    customer = open_customers([None, CUSTOMER.sealed(), b""])

    assert account.known.tolist() == [True, False, False]
    assert (account.spendable_minor[0], account.opened_ms[0], account.active[0]) == (60_000, AT_MS, True)
    assert account.currency[0] == pack_code("EUR")
    assert customer.known.tolist() == [False, True, False]
    assert (customer.home_latitude[1], customer.home_longitude[1]) == (50.8, 4.3)
    assert customer.counts[1].tolist() == [1, 1, 1]
    nowhere = open_customers([dataclasses.replace(CUSTOMER, home_latitude=None, home_longitude=None).sealed()])
    assert math.isnan(nowhere.home_latitude[0])


@pytest.mark.parametrize("seed", range(5))
def test_damaged_bytes_are_not_known_and_never_read_beyond_their_end(seed: int):
    rng = np.random.default_rng(seed)
    whole = CUSTOMER.sealed()
    damaged = [whole[:k] for k in range(len(whole))] + [whole + b"x", bytes(200)]
    for _ in range(200):
        blob = bytearray(whole)
        blob[int(rng.integers(12))] = int(rng.integers(256))
        damaged.append(bytes(blob))
    found = open_customers(damaged)

    assert not found.known[: len(whole) + 2].any()
    columns, _ = random_transactions(seed, len(damaged))
    rows = np.arange(len(damaged))
    nothing = open_accounts([None] * len(damaged))
    eligibility = eligibility_of(columns, (nothing, rows), (found, rows), np.zeros(len(damaged)))
    assert (eligibility.limit_minor[~found.known] == FREE).all()
    assert not open_accounts([ACCOUNT.sealed()[:-1], CUSTOMER.sealed()]).known.any()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"currency": "XXX"}, "currency"),
        ({"available_balance_minor": 10**13}, "available_balance_minor"),
        ({"credit_limit_minor": -1}, "credit_limit_minor"),
        ({"status": "ASLEEP"}, "status"),
        ({"opened_ms": 2**60}, "opened_ms"),
    ],
)
def test_an_account_that_cannot_be_is_refused(change: dict, field: str):
    with pytest.raises(BadReferenceError, match=field):
        dataclasses.replace(ACCOUNT, **change)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"home_country": "QQ"}, "home_country"),
        ({"segment": "ROYAL"}, "segment"),
        ({"limit_per_day_minor": -5}, "limits"),
        ({"blocked_categories": (10_000,)}, "blocked_categories"),
        ({"blocked_categories": tuple(range(65))}, "too many"),
        ({"blocked_countries": ("QQ",)}, "blocked_countries"),
        ({"home_latitude": None}, "home_latitude"),
        ({"home_latitude": math.nan}, "home_latitude"),
        ({"home_longitude": 181.0}, "home_latitude"),
    ],
)
def test_a_customer_that_cannot_be_is_refused(change: dict, field: str):
    with pytest.raises(BadReferenceError, match=field):
        dataclasses.replace(CUSTOMER, **change)


def test_nothing_is_too_much_for_an_amount_of_nothing():
    columns, _ = random_transactions(1, 1)
    currency = unpack_code(int(columns.billing_currency[0]))
    broke = open_accounts([dataclasses.replace(ACCOUNT, available_balance_minor=-50_000, currency=currency).sealed()])
    row = np.zeros(1, np.int64)
    eligibility = eligibility_of(columns, (broke, row), (open_customers([None]), row), np.zeros(1))

    assert eligibility.declines(np.array([0])).tolist() == [0]
    assert names(int(eligibility.declines(np.array([1]))[0])) == {"INSUFFICIENT_FUNDS"}
