"""What a decision is made by when not everything is at hand in time: declared fallback tiers, from the best fallback tier to the last resort."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from services.core.columns import type_i64
from services.core.money import scales_of
from services.core.policy import Action


class FallbackTier(IntEnum):
    """What a decision was made by; in the order of the Avro enum. Each needs less than the one before."""

    CHAMPION = 0
    """The boosters of the table of classes: they need the card's profile, its terminal, its account and its customer."""
    SMALL_MODEL = 1
    """The small booster: it needs the card's profile."""
    RULES = 2
    """A rule decided; what a rule asks for and is missing makes it say nothing."""
    SAFE_DEFAULT = 3
    """The amount alone."""


def best_tier(*, champion: bool, small: bool, profiles: bool, others: bool) -> FallbackTier:
    """Return the highest fallback tier that can be stood on; from RULES on, each transaction stands where a rule holds, or at the bottom.

    Args:
        champion: whether the boosters of the table of classes can be used.
        small: whether the small booster can be.
        profiles: whether the cards' own profiles were read.
        others: whether what is known of terminals, accounts and customers was read.
    """
    if champion and profiles and others:
        return FallbackTier.CHAMPION
    return FallbackTier.SMALL_MODEL if small and profiles else FallbackTier.RULES


@dataclass(frozen=True, slots=True)
class SafeDefault:
    """What is done when nobody can speak: small amounts pass, others are asked about, large ones are looked at."""

    challenge_from: float
    """In major units of the billing currency, as is the other."""
    review_from: float

    def __post_init__(self) -> None:
        if not 0 <= self.challenge_from <= self.review_from:
            raise ValueError(f"the amounts of the safe default must ascend: {self}")

    def actions(self, amount_minor: type_i64, currency: type_i64) -> type_i64:
        """Return the :class:`Action` of each billing amount."""
        major = amount_minor / scales_of(currency)
        challenged = np.where(major >= self.challenge_from, np.int64(Action.CHALLENGE), np.int64(Action.APPROVE))
        return np.where(major >= self.review_from, np.int64(Action.REVIEW), challenged)
