"""Classes of transactions and the fallback tiers: each by its definition, row by row, and the safe default by amount."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from services.core.classes import TransactionClass, classify
from services.core.columns import ENTRY_MODES, pack_code
from services.core.fallback import FallbackTier, SafeDefault, best_tier
from services.core.features import FEATURE_NAMES
from services.core.policy import Action

MODE, ABROAD, USES = (
    FEATURE_NAMES.index(name)
    for name in ("transaction_entry_mode", "customer_abroad_unannounced", "card_count_with_current_30d")
)


def class_of(mode: str, abroad: float, uses: float) -> TransactionClass:
    """The definition, for one transaction."""
    if uses == 1:
        return TransactionClass.FIRST_USE
    if mode == "ATM":
        return TransactionClass.CASH
    if abroad == 1:
        return TransactionClass.CROSS_BORDER
    return TransactionClass.ECOMMERCE if mode in ("ECOMMERCE", "MANUAL") else TransactionClass.CARD_PRESENT


def test_every_transaction_is_of_the_class_that_its_definition_says():
    cases = list(product(ENTRY_MODES, (0.0, 1.0, np.nan), (1.0, 2.0, 40.0, np.nan)))
    vectors = np.full((len(cases), len(FEATURE_NAMES)), np.nan)
    for row, (mode, abroad, uses) in zip(vectors, cases, strict=True):
        row[MODE], row[ABROAD], row[USES] = ENTRY_MODES.index(mode), abroad, uses

    found = classify(vectors)

    assert [TransactionClass(one) for one in found] == [class_of(*case) for case in cases]
    assert set(found.tolist()) == set(TransactionClass)


@pytest.mark.parametrize(
    ("champion", "small", "profiles", "others", "tier"),
    [
        (True, True, True, True, FallbackTier.CHAMPION),
        (True, True, True, False, FallbackTier.SMALL_MODEL),
        (False, True, True, True, FallbackTier.SMALL_MODEL),
        (False, False, True, True, FallbackTier.RULES),
        (True, True, False, True, FallbackTier.RULES),
        (True, True, False, False, FallbackTier.RULES),
    ],
)
def test_the_highest_tier_is_the_one_whose_needs_are_met(champion, small, profiles, others, tier):
    assert best_tier(champion=champion, small=small, profiles=profiles, others=others) == tier


def test_the_safe_default_goes_by_the_amount_in_major_units_of_its_currency():
    safe = SafeDefault(30.0, 300.0)
    amounts = [0, 2_999, 3_000, 29_999, 30_000, 29, 30, 300]
    currencies = ["EUR"] * 5 + ["JPY"] * 3

    actions = safe.actions(np.array(amounts), np.array([pack_code(code) for code in currencies]))

    a, c, r = Action.APPROVE, Action.CHALLENGE, Action.REVIEW
    assert actions.tolist() == [a, a, c, c, r, a, c, r]
    with pytest.raises(ValueError, match="ascend"):
        SafeDefault(300.0, 30.0)
