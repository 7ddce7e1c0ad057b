"""The features of accounts and customers, against a slow twin; and what simulated people are known to be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from services.core.columns import unpack_code
from services.core.features import FEATURE_NAMES
from services.core.offline import compute_offline
from services.core.profiles import DAY_MS
from services.core.reference.features import REFERENCE_COLUMNS, ReferenceRows, see_reference
from services.core.reference.layout import Account, Customer, open_accounts, open_customers
from services.offline.simulator.generate import simulate
from services.offline.simulator.reference import simulate_reference
from services.offline.simulator.traffic import Traffic
from tests.core.test_reference import random_account, random_customer, random_transactions

NAMES = (
    "account_amount_to_spendable",
    "account_days_since_opened",
    "customer_km_from_home",
    "customer_abroad_unannounced",
)
START_MS = 1_767_225_600_000


def km_between(a: float, b: float, c: float, d: float) -> float:
    """Return the distance of two positions by the law of cosines: another formula than the kernel's."""
    a, b, c, d = map(math.radians, (a, b, c, d))
    cosine = math.sin(a) * math.sin(c) + math.cos(a) * math.cos(c) * math.cos(d - b)
    return 6371.0088 * math.acos(max(-1.0, min(1.0, cosine)))


def naive_features(transaction: dict, account: Account | None, customer: Customer | None) -> list[float]:
    spendable = age = km = abroad = math.nan
    if account is not None:
        age = (transaction["event_time_ms"] - account.opened_ms) / DAY_MS
        money = account.available_balance_minor + account.credit_limit_minor
        if account.currency == transaction["billing_currency"] and money > 0:
            spendable = transaction["billing_amount_minor"] / money
    if customer is not None:
        announced = any(
            n.country == transaction["country"] and n.from_ms <= transaction["event_time_ms"] <= n.until_ms
            for n in customer.travel_notices
        )
        abroad = float(transaction["country"] != customer.home_country and not announced)
        if announced:
            km = 0.0
        elif customer.home_latitude is not None and not math.isnan(transaction["latitude"]):
            home = customer.home_latitude, customer.home_longitude
            km = km_between(*home, transaction["latitude"], transaction["longitude"])
    return [spendable, age, km, abroad]


@pytest.mark.parametrize("seed", range(15))
def test_features_are_those_of_the_slow_twin(seed: int):
    rng = np.random.default_rng(seed)
    columns, reported = random_transactions(seed, 50)
    for i, one in enumerate(reported):
        one |= {"latitude": float(columns.latitude[i]), "longitude": float(columns.longitude[i])}
    accounts = [random_account(rng) for _ in range(5)]
    customers = [random_customer(rng, [5411], ["BE", "FR", "US"]) for _ in range(5)]
    a, c = rng.integers(0, 5, (2, 50))
    vectors = np.full((50, len(FEATURE_NAMES)), np.nan)
    vectors[:, FEATURE_NAMES.index("card_sum_1d")] = 0.0

    see_reference(
        columns,
        ReferenceRows(
            open_accounts([None if x is None else x.sealed() for x in accounts]), a,
            open_customers([None if x is None else x.sealed() for x in customers]), c,
        ),
        vectors,
    )  # fmt: skip

    assert [FEATURE_NAMES[j] for j in REFERENCE_COLUMNS] == list(NAMES)
    expected = [naive_features(one, accounts[a[i]], customers[c[i]]) for i, one in enumerate(reported)]
    np.testing.assert_allclose(vectors[:, REFERENCE_COLUMNS], expected, rtol=1e-9, atol=1e-3)


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return simulate(300, 40, 3, START_MS)


def test_what_is_known_of_simulated_people_fits_what_they_do(traffic: Traffic):
    genuine = traffic.scenario == 0
    reference = simulate_reference(traffic.columns, genuine, 3)
    rows = reference.rows_of(traffic.columns)
    vectors = compute_offline(traffic.columns).vectors
    declines = see_reference(traffic.columns, rows, vectors).declines(traffic.columns.billing_amount_minor)

    assert len(reference.accounts) == len(set(reference.account_ids)) == len(set(traffic.columns.account_id.tolist()))
    assert (declines[genuine] != 0).mean() < 0.02, "hardly anything that people do themselves is refused"
    assert (declines[~genuine] != 0).mean() > (declines[genuine] != 0).mean()
    abroad = vectors[:, FEATURE_NAMES.index("customer_abroad_unannounced")]
    assert not np.isnan(abroad).any()
    assert abroad[~genuine].mean() > 2 * abroad[genuine].mean()
    ids = dict(zip(reference.account_ids, reference.accounts, strict=True))
    for i in range(0, len(traffic), 997):
        assert ids[traffic.columns.account_id.tolist()[i]].currency == unpack_code(
            int(traffic.columns.billing_currency[i])
        )


def test_the_same_seed_makes_the_same_people_whatever_they_are_called(traffic: Traffic):
    genuine = traffic.scenario == 0
    one = simulate_reference(traffic.columns, genuine, 3)
    renamed = simulate_reference(traffic.of_others("x").columns, genuine, 3)

    assert (one.accounts, one.customers) == (renamed.accounts, renamed.customers)
    assert one.accounts != simulate_reference(traffic.columns, genuine, 4).accounts
