"""What the attack can fail of."""

from __future__ import annotations


class ChaosError(Exception):
    """The attack could not be made, which proves nothing."""
