"""A fraud pattern that begins on a day, on top of a simulated history: what a model that was trained before has never seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from services.core.columns import TransactionColumns
from services.core.profiles import DAY_MS
from services.offline.simulator.people import MODE
from services.offline.simulator.traffic import SCENARIOS, Traffic, random_uuids

RELAY: Final = SCENARIOS.index("contactless-relay")
MINUTE_MS: Final = 60_000
_PAYMENTS: Final = (4, 8)
"""Of one run: from, and below."""
_AMOUNT_MINOR: Final = (3_800, 5_000)
"""Just below the amount from which a contactless payment asks for a code."""


def with_relays(traffic: Traffic, seed: int, begins_ms: int, share_per_day: float) -> Traffic:
    """Return a history with contactless payments by thieves who relay a card: a run of them within half an hour where it was used.

    Args:
        traffic: the history, in the order of event time.
        seed: any whole number from 0.
        begins_ms: from when on there are such runs; up to the end of the history.
        share_per_day: of all cards, how many have a run on a day.
    """
    rng, columns = np.random.default_rng(seed), traffic.columns
    later = np.flatnonzero((columns.event_time_ms >= begins_ms) & (columns.entry_mode == MODE["CONTACTLESS"]))
    if not len(later):
        return traffic
    cards = len(set(columns.card_id.tolist()))
    days = (int(columns.event_time_ms[-1]) - begins_ms) / DAY_MS
    victims = rng.choice(later, max(1, rng.poisson(cards * share_per_day * days)))
    payments = rng.integers(*_PAYMENTS, len(victims))
    rows = np.repeat(victims, payments)
    drawn = columns.take(rows)
    amount = rng.integers(*_AMOUNT_MINOR, len(rows))
    added = replace(
        drawn,
        transaction_id=random_uuids(rng, len(rows)),
        event_time_ms=drawn.event_time_ms + rng.integers(MINUTE_MS, 30 * MINUTE_MS, len(rows)),
        amount_minor=amount,
        billing_amount_minor=amount,
        currency=drawn.billing_currency,
    )
    inside = added.event_time_ms <= columns.event_time_ms[-1]
    both = Traffic(
        TransactionColumns.joined([columns, added.take(inside)]),
        np.concatenate([traffic.scenario, np.full(int(inside.sum()), RELAY)]),
    )
    return both.take(np.argsort(both.columns.event_time_ms, kind="stable"))
