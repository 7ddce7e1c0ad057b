"""What the attack can fail of."""

from __future__ import annotations

from typing import Final


class ChaosError(Exception):
    """The attack could not be made, which proves nothing."""


PATIENCE_S: Final = 180.0
"""How long something may take that is not measured before that is an error: machines are slow and shared."""
