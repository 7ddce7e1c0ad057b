"""The handbook preset: traffic by the published recipe of the Fraud Detection Handbook, with any seed.

Source: Le Borgne, Siblini, Lebichot, Bontempi, *Reproducible Machine Learning for Credit Card Fraud Detection -
Practical Handbook* (2022), chapter 3: customers and terminals on a square of 100 by 100, Poisson counts, normal amounts
and times of day, three fraud scenarios. Written from the description; amounts are in EUR.
"""

from __future__ import annotations

import numpy as np

from services.core.columns import ENTRY_MODES, Text, TransactionColumns, pack_code, type_i64
from services.core.profiles import DAY_MS
from services.offline.simulator.traffic import Traffic, numbered, random_uuids

TERMINALS_PER_CARD = 2
RADIUS = 5.0


def _terminals_in_reach(rng: np.random.Generator, customers: np.ndarray, terminals: np.ndarray) -> list[type_i64]:
    near = [np.flatnonzero(((terminals - at) ** 2).sum(axis=1) < RADIUS**2) for at in customers]
    # With few terminals some customers have none in reach: they use any one.
    return [found if len(found) else rng.integers(0, len(terminals), 1) for found in near]


def simulate_handbook(cards: int, days: int, seed: int, start_ms: int) -> Traffic:
    """Draw a seeded history of ``days`` days from ``start_ms``."""
    rng = np.random.default_rng(seed)
    customers, terminals = rng.uniform(0, 100, (cards, 2)), rng.uniform(0, 100, (TERMINALS_PER_CARD * cards, 2))
    mean, per_day = rng.uniform(5, 100, cards), rng.uniform(0, 4, cards)
    reach = _terminals_in_reach(rng, customers, terminals)
    counts = rng.poisson(np.repeat(per_day[:, None], days, axis=1))
    card, day = (np.repeat(index.reshape(-1), counts.reshape(-1)) for index in np.indices(counts.shape))
    seconds = rng.normal(43_200, 20_000, len(card)).astype(np.int64)
    inside = (seconds > 0) & (seconds < 86_400)
    card, day, seconds = card[inside], day[inside], seconds[inside]
    amount = rng.normal(mean[card], mean[card] / 2)
    amount = np.where(amount < 0, rng.uniform(0, 2 * mean[card]), amount)
    sizes = np.array([len(found) for found in reach])
    first = np.cumsum(sizes) - sizes
    terminal = np.concatenate(reach)[first[card] + (rng.random(len(card)) * sizes[card]).astype(np.int64)]
    order = np.lexsort((np.arange(len(card)), seconds, day))
    card, day, seconds, terminal = (x[order] for x in (card, day, seconds, terminal))
    amount = amount[order]
    amount, scenario = _add_frauds(rng, card, terminal, day, np.round(amount, 2), (cards, len(terminals), days))
    columns = _columns(rng, card, terminal, start_ms + day * DAY_MS + seconds * 1_000, amount)
    return Traffic(columns, scenario)


def _add_frauds(
    rng: np.random.Generator,
    card: type_i64,
    terminal: type_i64,
    day: type_i64,
    amount: np.ndarray,
    sizes: tuple[int, int, int],
) -> tuple[np.ndarray, type_i64]:
    """Apply the three scenarios in their published order; a later one overwrites an earlier one's mark."""
    cards, terminals, days = sizes
    scenario = np.where(amount > 220.0, 1, 0).astype(np.int64)
    for today in range(days):
        compromised = rng.choice(terminals, min(2, terminals), replace=False)
        scenario[(day >= today) & (day < today + 28) & np.isin(terminal, compromised)] = 2
    for today in range(days):
        victims = rng.choice(cards, min(3, cards), replace=False)
        theirs = np.flatnonzero((day >= today) & (day < today + 14) & np.isin(card, victims))
        bad = rng.choice(theirs, len(theirs) // 3, replace=False)
        amount[bad] *= 5.0
        scenario[bad] = 3
    return amount, scenario


def _columns(
    rng: np.random.Generator, card: type_i64, terminal: type_i64, event_time_ms: type_i64, amount: np.ndarray
) -> TransactionColumns:
    n = len(card)
    minor = np.rint(amount * 100).astype(np.int64)
    euro = np.full(n, pack_code("EUR"), np.int64)
    return TransactionColumns(
        transaction_id=random_uuids(rng, n),
        card_id=numbered("card-", card),
        customer_id=numbered("customer-", card),
        account_id=numbered("account-", card),
        terminal_id=numbered("terminal-", terminal),
        merchant_id=numbered("merchant-", terminal),
        device_id=Text.constant(b"", n),
        merchant_category_code=np.full(n, 5411, np.int64),
        amount_minor=minor,
        currency=euro,
        billing_amount_minor=minor,
        billing_currency=euro,
        event_time_ms=event_time_ms,
        entry_mode=np.full(n, ENTRY_MODES.index("CHIP"), np.int64),
        country=np.full(n, pack_code("BE"), np.int64),
        latitude=np.full(n, np.nan),
        longitude=np.full(n, np.nan),
    )
