"""What fraudsters do: the handbook's three scenarios and three more, added to a draft of genuine traffic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from services.core.columns import type_i64
from services.core.profiles import DAY_MS
from services.offline.simulator.people import MODE, ONLINE_MERCHANTS, TERMINALS_PER_CITY, Draft, People, World
from services.offline.simulator.traffic import SCENARIOS
from services.offline.simulator.world import CITIES

CODE = {name: code for code, name in enumerate(SCENARIOS)}
MINUTE_MS = 60_000

LARGE_SHARE = 0.0012
COMPROMISED_TERMINALS_PER_DAY = 0.000_03
"""Of all terminals: each is bad for 28 days, and everything paid at it is fraud."""
COMPROMISED_CARDS_PER_DAY = 0.000_5
TESTED_CARDS_PER_DAY = 0.000_2
TRAVELLING_CARDS_PER_DAY = 0.001_4
TAKEN_OVER_CARDS_PER_DAY = 0.000_6


@dataclass(frozen=True, slots=True)
class Scene:
    """What fraud is committed in: the people and places, the days, and the generator that draws it."""

    rng: np.random.Generator
    people: People
    world: World
    start_ms: int
    days: int


def _some(rng: np.random.Generator, population: int, share_per_day: float, days: int) -> type_i64:
    """Draw members of a population, one at least, so that short simulations have every fraud."""
    return rng.integers(0, population, max(1, rng.poisson(population * share_per_day * days)))


def mark_frauds(scene: Scene, draft: Draft) -> None:
    """Turn some genuine transactions into the handbook's frauds, in place: 1 amounts, 2 terminals, 3 cards."""
    rng, people, world, start_ms, days = scene.rng, scene.people, scene.world, scene.start_ms, scene.days
    large = rng.choice(len(draft), max(1, int(len(draft) * LARGE_SHARE)), replace=False)
    draft.amount_eur[large] = 220.0 + draft.amount_eur[large] * rng.uniform(4.0, 12.0, len(large))
    draft.scenario[large] = CODE["large-amount"]
    for terminal in _some(rng, len(world.city), COMPROMISED_TERMINALS_PER_DAY, days):
        begin = start_ms + int(rng.integers(0, days)) * DAY_MS
        bad = (
            (draft.terminal == terminal) & (draft.event_time_ms >= begin) & (draft.event_time_ms < begin + 28 * DAY_MS)
        )
        draft.scenario[bad] = CODE["compromised-terminal"]
    for card in _some(rng, len(people.home), COMPROMISED_CARDS_PER_DAY, days):
        begin = start_ms + int(rng.integers(0, days)) * DAY_MS
        bad = (draft.card == card) & (draft.event_time_ms >= begin) & (draft.event_time_ms < begin + 14 * DAY_MS)
        bad &= (rng.random(len(draft)) < 1 / 3) & (draft.scenario == 0)
        draft.amount_eur[bad] *= 5.0
        draft.scenario[bad] = CODE["compromised-card"]


def add_frauds(scene: Scene, draft: Draft) -> Draft:
    """Return the draft with the transactions that only fraudsters make."""
    return draft.joined(_test_cards(scene)).joined(_travel_impossibly(scene, draft)).joined(_take_accounts_over(scene))


def _online(rng: np.random.Generator, world: World, count: int) -> type_i64:
    return world.online_first + rng.integers(0, ONLINE_MERCHANTS, count)


def _test_cards(scene: Scene) -> Draft:
    """Five to nine tiny payments within minutes, and then a large one."""
    rng, people, world, start_ms, days = scene.rng, scene.people, scene.world, scene.start_ms, scene.days
    victims = _some(rng, len(people.home), TESTED_CARDS_PER_DAY, days)
    tries = rng.integers(5, 10, len(victims))
    card = np.repeat(victims, tries + 1)
    last = np.cumsum(tries + 1) - 1
    begin = start_ms + (rng.random(len(victims)) * days * DAY_MS).astype(np.int64)
    position = np.arange(len(card)) - np.repeat(np.cumsum(tries + 1) - (tries + 1), tries + 1)
    time = np.repeat(begin, tries + 1) + position * 45_000 + rng.integers(0, 40_000, len(card))
    amount = rng.uniform(0.5, 2.0, len(card))
    amount[last] = rng.uniform(250, 900, len(victims))
    return Draft(
        card, time, _online(rng, world, len(card)), amount, np.full(len(card), MODE["ECOMMERCE"]),
        np.ones(len(card), bool), np.full(len(card), CODE["card-testing"]),
    )  # fmt: skip


def _travel_impossibly(scene: Scene, draft: Draft) -> Draft:
    """A purchase in a far city within the hour after a genuine one at a terminal."""
    rng, people, world, days = scene.rng, scene.people, scene.world, scene.days
    count = max(1, rng.poisson(len(people.home) * TRAVELLING_CARDS_PER_DAY * days))
    eligible = np.flatnonzero((draft.terminal < world.online_first) & (draft.scenario == 0))
    base = rng.choice(eligible, count)
    here = world.city[draft.terminal[base]]
    there = (here + rng.integers(1, len(CITIES), count)) % len(CITIES)
    terminal = there * TERMINALS_PER_CITY + rng.integers(0, TERMINALS_PER_CITY, count)
    mode = rng.choice([MODE["MAGSTRIPE"], MODE["CHIP"], MODE["CONTACTLESS"]], count, p=[0.5, 0.3, 0.2])
    return Draft(
        draft.card[base], draft.event_time_ms[base] + rng.integers(15 * MINUTE_MS, 60 * MINUTE_MS, count), terminal,
        rng.uniform(60, 500, count), mode, np.zeros(count, bool), np.full(count, CODE["impossible-travel"]),
    )  # fmt: skip


def _take_accounts_over(scene: Scene) -> Draft:
    """Three to six online purchases in one night, from a new device, at merchants and of amounts unlike the card's."""
    rng, people, world, start_ms, days = scene.rng, scene.people, scene.world, scene.start_ms, scene.days
    victims = _some(rng, len(people.home), TAKEN_OVER_CARDS_PER_DAY, days)
    purchases = rng.integers(3, 7, len(victims))
    card = np.repeat(victims, purchases)
    night = start_ms + np.repeat(rng.integers(0, days, len(victims)), purchases) * DAY_MS
    time = night + np.repeat(rng.integers(60, 240, len(victims)), purchases) * MINUTE_MS
    time += rng.integers(0, 90 * MINUTE_MS, len(card))
    amount = rng.uniform(80, 420, len(card)) * np.maximum(1.0, people.spending[card])
    return Draft(
        card, time, _online(rng, world, len(card)), amount, np.full(len(card), MODE["ECOMMERCE"]),
        np.ones(len(card), bool), np.full(len(card), CODE["account-takeover"]),
    )  # fmt: skip
