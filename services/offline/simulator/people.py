"""The default preset: people with homes, habits, incomes and rhythms, who pay at terminals and online merchants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from services.core.columns import ENTRY_MODES, TransactionColumns, type_f64, type_i64
from services.core.money import EXPONENTS
from services.core.profiles import DAY_MS
from services.offline.simulator.traffic import Traffic, numbered, optional_text, packed, random_uuids
from services.offline.simulator.world import CASH, CATEGORIES, CITIES, EUR_PER_UNIT, HOME_WEIGHTS

MODE = {name: code for code, name in enumerate(ENTRY_MODES)}
HABITS = 16
"""Terminals that a person uses again and again."""
TERMINALS_PER_CITY = 400
ONLINE_MERCHANTS = 600
TRIP_SHARE = 0.08
"""People who spend some days of a month in another city."""


@dataclass(frozen=True, slots=True)
class World:
    """Terminals and online merchants: physical ones first, ``TERMINALS_PER_CITY`` a city, then the online ones."""

    city: type_i64
    category: type_i64
    latitude: type_f64
    longitude: type_f64
    by_category: type_i64
    """Terminals of a city in the order of popularity: a permutation of each city's block."""

    @property
    def online_first(self) -> int:
        """The number of the first online merchant."""
        return len(CITIES) * TERMINALS_PER_CITY


@dataclass(frozen=True, slots=True)
class People:
    """One row a card holder; every card has one holder and one account."""

    home: type_i64
    spending: type_f64
    """How much more or less than usual a person spends."""
    per_day: type_f64
    peak_hour: type_f64
    weekend: type_f64
    """How much more (or less) a person pays at weekends."""
    online: type_f64
    """The share of online purchases."""
    habits: type_i64
    """(n, HABITS) terminals near home."""
    trip_city: type_i64
    trip_begin_ms: type_i64
    trip_end_ms: type_i64


def build_world(rng: np.random.Generator) -> World:
    """Draw terminals and merchants."""
    physical = [i for i, c in enumerate(CATEGORIES) if not c.online]
    online = [i for i, c in enumerate(CATEGORIES) if c.online]
    count = len(CITIES) * TERMINALS_PER_CITY

    def draw(categories: list[int], size: int) -> type_i64:
        weights = np.array([CATEGORIES[i].weight for i in categories])
        return rng.choice(categories, size, p=weights / weights.sum())

    city = np.concatenate(
        [np.repeat(np.arange(len(CITIES)), TERMINALS_PER_CITY), rng.integers(0, len(CITIES), ONLINE_MERCHANTS)]
    )
    category = np.concatenate([draw(physical, count), draw(online, ONLINE_MERCHANTS)])
    latitude = np.array([c.latitude for c in CITIES])[city] + rng.normal(0, 0.06, len(city))
    longitude = np.array([c.longitude for c in CITIES])[city] + rng.normal(0, 0.09, len(city))
    return World(city, category, latitude, longitude, np.argsort(rng.random(count).reshape(len(CITIES), -1), axis=1))


def build_people(rng: np.random.Generator, cards: int, start_ms: int, days: int, per_day: float) -> People:
    """Draw card holders."""
    home = rng.choice(len(CITIES), cards, p=HOME_WEIGHTS / HOME_WEIGHTS.sum())
    popularity = 1.0 / np.arange(1, TERMINALS_PER_CITY + 1) ** 0.6
    habits = rng.choice(TERMINALS_PER_CITY, (cards, HABITS), p=popularity / popularity.sum())
    travels = rng.random(cards) < TRIP_SHARE
    trip_begin = start_ms + (rng.random(cards) * days * DAY_MS).astype(np.int64)
    trip_days = rng.integers(2, 9, cards)
    return People(
        home=home,
        spending=rng.lognormal(0.0, 0.45, cards),
        per_day=rng.gamma(2.5, per_day / 2.5, cards),
        peak_hour=rng.normal(13.5, 2.0, cards),
        weekend=rng.lognormal(0.0, 0.3, cards),
        online=rng.beta(2, 5, cards),
        habits=habits + home[:, None] * TERMINALS_PER_CITY,
        trip_city=(home + rng.integers(1, len(CITIES), cards)) % len(CITIES),
        trip_begin_ms=np.where(travels, trip_begin, 2**62),
        trip_end_ms=np.where(travels, trip_begin + trip_days * DAY_MS, 2**62),
    )


@dataclass(slots=True)
class Draft:
    """Transactions while they are being made up, one row each, in no order."""

    card: type_i64
    event_time_ms: type_i64
    terminal: type_i64
    amount_eur: type_f64
    entry_mode: type_i64
    new_device: np.ndarray
    scenario: type_i64

    def __len__(self) -> int:
        return len(self.card)

    def joined(self, other: Draft) -> Draft:
        """Return both drafts' rows."""
        names = ("card", "event_time_ms", "terminal", "amount_eur", "entry_mode", "new_device", "scenario")
        return Draft(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in names))


def local_day_times(rng: np.random.Generator, peak_hour: type_f64) -> type_i64:
    """Draw milliseconds of the day around each peak; what falls outside the day is folded back into it."""
    hours = rng.normal(peak_hour, 3.6)
    return ((hours % 24.0) * 3_600_000).astype(np.int64)


def draw_genuine(rng: np.random.Generator, world: World, people: People, start_ms: int, days: int) -> Draft:
    """Draw what people do of themselves."""
    counts = rng.poisson(people.per_day * days)
    card = np.repeat(np.arange(len(counts)), counts)
    n = len(card)
    day = rng.integers(0, days, n)
    weekday = (start_ms // DAY_MS + day + 3) % 7
    # A person who pays less at weekends moves some of those days' purchases to another day.
    moved = (weekday >= 5) & (rng.random(n) > people.weekend[card])
    day = np.where(moved, rng.integers(0, days, n), day)
    event_time_ms = start_ms + day * DAY_MS + local_day_times(rng, people.peak_hour[card])
    online = rng.random(n) < people.online[card]
    habit = np.minimum(rng.geometric(0.18, n) - 1, HABITS - 1)
    stray = rng.random(n) < 0.12
    anywhere = people.home[card] * TERMINALS_PER_CITY + rng.integers(0, TERMINALS_PER_CITY, n)
    terminal = np.where(stray, anywhere, people.habits[card, habit])
    away = (event_time_ms >= people.trip_begin_ms[card]) & (event_time_ms < people.trip_end_ms[card])
    abroad = people.trip_city[card] * TERMINALS_PER_CITY + rng.integers(0, TERMINALS_PER_CITY, n)
    terminal = np.where(away, abroad, terminal)
    favourite = (card * 7 + rng.integers(0, 12, n)) % ONLINE_MERCHANTS
    terminal = np.where(online, world.online_first + favourite, terminal)
    means = np.array([c.mean_eur for c in CATEGORIES])[world.category[terminal]]
    amount = means * people.spending[card] * rng.lognormal(-0.15, 0.55, n)
    return Draft(
        card, event_time_ms, terminal, amount, draw_entry_modes(rng, world, terminal),
        np.zeros(n, bool), np.zeros(n, np.int64),
    )  # fmt: skip


def draw_entry_modes(rng: np.random.Generator, world: World, terminal: type_i64) -> type_i64:
    """Draw how each card is read: mostly contactless and chip in shops, always online at online merchants."""
    choice = rng.choice(
        [MODE["CONTACTLESS"], MODE["CHIP"], MODE["MAGSTRIPE"], MODE["MANUAL"]],
        len(terminal),
        p=[0.68, 0.29, 0.02, 0.01],
    )
    codes = np.array([c.code for c in CATEGORIES])[world.category[terminal]]
    choice = np.where(codes == CASH, MODE["ATM"], choice)
    return np.where(terminal >= world.online_first, MODE["ECOMMERCE"], choice)


def finish(rng: np.random.Generator, world: World, people: People, draft: Draft) -> Traffic:
    """Turn a draft into transactions in the order of their times."""
    order = np.argsort(draft.event_time_ms, kind="stable")
    d = Draft(*(getattr(draft, f)[order] for f in Draft.__slots__))
    city, home = world.city[d.terminal], people.home[d.card]
    currencies, country = [c.currency for c in CITIES], packed([c.country for c in CITIES])[city]
    minor_per_eur = np.array([10.0 ** EXPONENTS[c] / EUR_PER_UNIT[c] for c in currencies])
    physical = d.terminal < world.online_first
    device = np.where(d.new_device, 500_000 + rng.integers(0, 400_000, len(d)), d.card)
    return Traffic(
        TransactionColumns(
            transaction_id=random_uuids(rng, len(d)),
            card_id=numbered("card-", d.card),
            customer_id=numbered("customer-", d.card),
            account_id=numbered("account-", d.card),
            terminal_id=numbered("terminal-", d.terminal),
            merchant_id=numbered("merchant-", d.terminal // 2),
            device_id=optional_text(numbered("device-", device), ~physical),
            merchant_category_code=np.array([c.code for c in CATEGORIES])[world.category[d.terminal]],
            amount_minor=np.rint(d.amount_eur * minor_per_eur[city]).astype(np.int64),
            currency=packed(currencies)[city],
            billing_amount_minor=np.rint(d.amount_eur * minor_per_eur[home]).astype(np.int64),
            billing_currency=packed(currencies)[home],
            event_time_ms=d.event_time_ms,
            entry_mode=d.entry_mode,
            country=country,
            latitude=np.where(physical, world.latitude[d.terminal], np.nan),
            longitude=np.where(physical, world.longitude[d.terminal], np.nan),
        ),
        d.scenario,
    )
