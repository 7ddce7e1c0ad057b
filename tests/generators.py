"""Seeded random streams of transactions: bursts, equal times, late ones, repeats, times on the edges of windows."""

from __future__ import annotations

import struct

import numpy as np

from services.core.columns import Text, TransactionColumns, pack_code
from tests.naive import DAY_MS, HOUR_MS, MINUTE_MS, Event

START_MS = 1_767_225_600_000
EDGES_MS = (10 * MINUTE_MS, HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS, 31 * DAY_MS)


def random_events(seed: int, count: int, cards: int = 3, late_share: float = 0.2, dense: bool = False) -> list[Event]:
    """Return events in log order; their event times jump forward, stand still, hit window edges and fall back."""
    rng = np.random.default_rng(seed)
    events: list[Event] = []
    now = START_MS
    for i in range(count):
        if events and rng.random() < 0.05:
            events.append(events[int(rng.integers(0, len(events)))])  # the same transaction once more
            continue
        now += _step(rng, dense)
        time = now
        if rng.random() < late_share:
            time -= int(rng.integers(0, 3 * DAY_MS if rng.random() < 0.9 else 45 * DAY_MS))
        elif events and not dense and rng.random() < 0.2:
            edge = EDGES_MS[int(rng.integers(0, len(EDGES_MS)))]
            time = events[int(rng.integers(0, len(events)))].event_time_ms + edge + int(rng.integers(-1, 2))
            now = max(now, time)
        positioned = rng.random() < 0.7
        events.append(
            Event(
                identifier=i,
                card=int(rng.integers(0, cards)),
                event_time_ms=time,
                amount_minor=int(rng.choice([0, 100, int(rng.integers(1, 100_000))])),
                terminal=int(rng.integers(0, 5)),
                country=str(rng.choice(["BE", "FR", "US"])),
                entry_mode=int(rng.integers(0, 6)),
                latitude=_single(rng.uniform(-89, 89)) if positioned else None,
                longitude=_single(rng.uniform(-179, 179)) if positioned else None,
            )
        )
    return events


def _single(value: float) -> float:
    """Round to single precision, as profiles keep positions, so that the twin measures from the same place."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _step(rng: np.random.Generator, dense: bool) -> int:
    if dense:
        return int(rng.integers(0, 20 * MINUTE_MS))
    choices = (0, int(rng.integers(0, 2_000)), int(rng.integers(0, HOUR_MS)), int(rng.integers(0, 4 * DAY_MS)))
    return choices[int(rng.integers(0, 4))]


def to_columns(events: list[Event]) -> TransactionColumns:
    """Return events as a batch of transactions."""
    n = len(events)

    def texts(prefix: str, numbers: list[int]) -> Text:
        return Text.of([f"{prefix}-{number}".encode() for number in numbers])

    identifiers = np.zeros((n, 16), np.uint8)
    for i, event in enumerate(events):
        identifiers[i, :8] = np.frombuffer(struct.pack(">Q", event.identifier + 1), np.uint8)
    cards, minor = [e.card for e in events], np.array([e.amount_minor for e in events], np.int64)
    return TransactionColumns(
        transaction_id=identifiers,
        card_id=texts("card", cards),
        customer_id=texts("customer", cards),
        account_id=texts("account", cards),
        terminal_id=texts("terminal", [e.terminal for e in events]),
        merchant_id=texts("merchant", [e.terminal for e in events]),
        device_id=Text.constant(b"", n),
        merchant_category_code=np.full(n, 5411, np.int64),
        amount_minor=minor,
        currency=np.full(n, pack_code("EUR"), np.int64),
        billing_amount_minor=minor,
        billing_currency=np.full(n, pack_code("EUR"), np.int64),
        event_time_ms=np.array([e.event_time_ms for e in events], np.int64),
        entry_mode=np.array([e.entry_mode for e in events], np.int64),
        country=np.array([pack_code(e.country) for e in events], np.int64),
        latitude=np.array([np.nan if e.latitude is None else e.latitude for e in events], np.float64),
        longitude=np.array([np.nan if e.longitude is None else e.longitude for e in events], np.float64),
    )
