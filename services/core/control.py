"""The control group: a small share of what would be stopped is let through, so that it can be known what would have become of it.

A model that blocks hides the truth about what it blocks: nobody learns whether that was fraud. Of a random sample that was let through with a
known probability, sums over all of it can be estimated without bias. Source: Horvitz and Thompson, A Generalization of Sampling Without
Replacement From a Finite Universe, 1952.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.core.columns import type_bool, type_i64, type_u8
from services.core.kernels import hash_uuids
from services.core.money import scales_of

NOT_LET_THROUGH: Final = -1
_MANTISSA: Final = 53
_FIRST: Final = np.uint64(0xFF51AFD7ED558CCD)
_SECOND: Final = np.uint64(0xC4CEB9FE1A85EC53)


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """How it is drawn."""

    share: float
    """Of what could be let through, 0 to 1: the probability of each transaction, its propensity."""
    amount_max: float
    """What costs more, in major units of the billing currency, is never let through."""
    key: str
    """Who does not know it cannot tell which transactions are let through."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.amount_max < 0:
            raise ValueError(f"the control group has a share between 0 and 1 and a limit from 0: {self}")

    def drawn(self, transaction_id: type_u8) -> type_bool:
        """Return (n,) which transactions are of the group, by their ids of shape (n, 16): a repeat is drawn as the first time."""
        salt = np.frombuffer(hashlib.sha256(self.key.encode()).digest()[:8], np.uint64)[0]
        mixed = hash_uuids(transaction_id) ^ salt
        for factor in (_FIRST, _SECOND):  # as MurmurHash3 ends
            mixed = (mixed ^ (mixed >> np.uint64(33))) * factor
        mixed ^= mixed >> np.uint64(33)
        return (mixed >> np.uint64(64 - _MANTISSA)).astype(np.float64) < self.share * 2.0**_MANTISSA

    def affordable(self, amount_minor: type_i64, currency: type_i64) -> type_bool:
        """Return (n,) which billing amounts may be let through."""
        return amount_minor / scales_of(currency) <= self.amount_max
