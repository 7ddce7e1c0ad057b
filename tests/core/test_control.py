"""Who is of the control group: a share, always the same ones, others with another key."""

from __future__ import annotations

import numpy as np
import pytest

from services.core.columns import pack_code
from services.core.control import ControlGroup

IDS = np.random.default_rng(1).integers(0, 256, (40_000, 16), dtype=np.uint8)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 1.0])
def test_a_share_of_the_transactions_is_drawn_always_the_same_ones(share):
    group = ControlGroup(share, 100.0, "a key")
    drawn = group.drawn(IDS)
    assert drawn.mean() == pytest.approx(share, abs=4 * (share * (1 - share) / len(IDS)) ** 0.5)
    assert (group.drawn(IDS[::-1])[::-1] == drawn).all()
    assert not (drawn & ~ControlGroup(min(1.0, share + 0.1), 100.0, "a key").drawn(IDS)).any()


def test_another_key_draws_others():
    one, other = (ControlGroup(0.2, 100.0, key).drawn(IDS) for key in ("a key", "another"))
    assert (one & other).mean() == pytest.approx(0.04, abs=0.01)


def test_the_limit_is_in_major_units_of_each_currency():
    group = ControlGroup(1.0, 100.0, "a key")
    amounts = np.array([10_000, 10_001, 100, 101])
    currencies = np.array([pack_code(code) for code in ("EUR", "EUR", "JPY", "JPY")])
    assert group.affordable(amounts, currencies).tolist() == [True, False, True, False]


@pytest.mark.parametrize(("share", "limit"), [(-0.1, 1.0), (1.1, 1.0), (float("nan"), 1.0), (0.5, -1.0)])
def test_a_group_that_cannot_be_is_refused(share, limit):
    with pytest.raises(ValueError, match="control group"):
        ControlGroup(share, limit, "a key")
