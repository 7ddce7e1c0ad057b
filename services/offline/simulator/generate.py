"""Simulate: a preset, a number of cards, days, a seed; the same arguments give the same transactions, byte for byte."""

from __future__ import annotations

from typing import Final

import numpy as np

from services.offline.simulator.frauds import Scene, add_frauds, mark_frauds
from services.offline.simulator.handbook import simulate_handbook
from services.offline.simulator.people import build_people, build_world, draw_genuine, finish
from services.offline.simulator.traffic import Traffic

PRESETS: Final = ("default", "handbook")
PER_DAY: Final = 1.5
"""Transactions a card makes on an average day in the default preset."""
CARDS_MAX: Final = 999_999
DAYS_MAX: Final = 3_660


def simulate(cards: int, days: int, seed: int, start_ms: int, preset: str = "default") -> Traffic:
    """Draw a seeded history, in the order of event time.

    Args:
        cards: how many cards, 1 to ``CARDS_MAX``.
        days: how many days, 1 to ``DAYS_MAX``.
        seed: any whole number from 0.
        start_ms: the midnight that the first day begins at.
        preset: one of ``PRESETS``.

    Raises:
        ValueError: an argument is out of range.
    """
    if not (1 <= cards <= CARDS_MAX and 1 <= days <= DAYS_MAX and seed >= 0 and preset in PRESETS):
        raise ValueError(f"cards 1 to {CARDS_MAX}, days 1 to {DAYS_MAX}, seed from 0, preset one of {PRESETS}")
    if preset == "handbook":
        return simulate_handbook(cards, days, seed, start_ms)
    rng = np.random.default_rng(seed)
    world = build_world(rng)
    people = build_people(rng, cards, start_ms, days, PER_DAY)
    draft = draw_genuine(rng, world, people, start_ms, days)
    scene = Scene(rng, people, world, start_ms, days)
    mark_frauds(scene, draft)
    draft = add_frauds(scene, draft)
    traffic = finish(rng, world, people, draft)
    # What was begun on the last evening may go on into the next day: a history of n days ends with the n-th.
    inside = traffic.columns.event_time_ms < start_ms + days * 86_400_000
    return traffic.take(np.flatnonzero(inside))
