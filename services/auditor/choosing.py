"""Which cards are audited: always the same ones, by a hash of the card."""

from __future__ import annotations

from typing import Final

import numpy as np

from services.core.columns import Text, type_bool
from services.core.kernels import hash_text

_SALT: Final = np.uint64(0x9E3779B97F4A7C15)
"""So that the audited cards are others than those that a percentage elsewhere chooses."""
_MIXED: Final = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
DEFAULT_SHARE: Final = 0.01
"""That of the setting, for who only folds."""


def audited(keys: Text, share: float) -> type_bool:
    """Return which cards are audited: whoever is with one share is with any larger one.

    Args:
        keys: n tokens of cards.
        share: of all cards, 0 to 1.

    Source of the mixer: Appleby, MurmurHash3 ``fmix64``.
    """
    mixed = hash_text(keys) ^ _SALT
    for factor in _MIXED:
        mixed = (mixed ^ (mixed >> np.uint64(33))) * factor
    mixed ^= mixed >> np.uint64(33)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53 < share
