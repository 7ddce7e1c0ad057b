"""A fraud that begins on a day changes nothing of the history that it is added to."""

from __future__ import annotations

import numpy as np
import pytest

from services.offline.simulator.generate import simulate
from services.offline.simulator.people import MODE
from services.offline.simulator.waves import RELAY, with_relays

DAY_MS = 86_400_000
START_MS = 1_767_225_600_000


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_relays_begin_on_their_day_and_leave_the_others_as_they_are(seed):
    before = simulate(400, 20, seed, START_MS)
    after = with_relays(before, seed, START_MS + 10 * DAY_MS, 0.02)

    new = after.scenario == RELAY
    kept = after.take(np.flatnonzero(~new))
    assert (kept.columns.transaction_id == before.columns.transaction_id).all()
    assert (kept.scenario == before.scenario).all()
    columns = after.take(np.flatnonzero(new)).columns
    assert len(columns) > 100
    assert columns.event_time_ms.min() >= START_MS + 10 * DAY_MS
    assert columns.event_time_ms.max() <= before.columns.event_time_ms[-1]
    assert (columns.entry_mode == MODE["CONTACTLESS"]).all()
    assert columns.billing_amount_minor.min() >= 3_800
    assert columns.billing_amount_minor.max() < 5_000
    assert (np.diff(after.columns.event_time_ms) >= 0).all()
    ids = {one.tobytes() for one in after.columns.transaction_id}
    assert len(ids) == len(after)


def test_the_same_seed_gives_the_same_relays_and_a_day_behind_the_end_none():
    before = simulate(100, 10, 1, START_MS)
    once, again = (with_relays(before, 5, START_MS + 5 * DAY_MS, 0.05) for _ in range(2))
    assert (once.columns.transaction_id == again.columns.transaction_id).all()
    assert len(with_relays(before, 5, START_MS + 50 * DAY_MS, 0.05)) == len(before)
