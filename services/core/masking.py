"""Card-number-like digits, masked before bytes are kept or shown."""

from __future__ import annotations

import re
from typing import Final

_RUN: Final = re.compile(rb"[0-9](?:[ -]?[0-9]){12,}")
"""Thirteen digits or more, perhaps grouped by single spaces or hyphens."""
_LENGTHS: Final = range(13, 20)
"""How long a card number can be (ISO/IEC 7812)."""


def luhn_valid(digits: bytes) -> bool:
    """Whether ASCII digits pass the Luhn check (ISO/IEC 7812-1, annex B)."""
    total = 0
    for i, digit in enumerate(reversed(digits)):
        value = (digit - 48) * (1 + i % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


_SEARCHED_MAX: Final = 64
"""A longer run is masked without searching it: it is no identifier, and the search must stay cheap for hostile input."""


def _holds_card_number(digits: bytes) -> bool:
    return len(digits) > _SEARCHED_MAX or any(
        luhn_valid(digits[at : at + length]) for length in _LENGTHS for at in range(max(0, len(digits) - length + 1))
    )


def _mask(match: re.Match[bytes]) -> bytes:
    run = match[0]
    digits = bytes(b for b in run if 48 <= b <= 57)
    return re.sub(rb"[0-9]", b"*", run) if _holds_card_number(digits) else run


def mask_bytes(raw: bytes) -> bytes:
    """Return the bytes, same length, with every run of digits that holds a possible card number starred out."""
    return _RUN.sub(_mask, raw)


def mask_text(text: str) -> str:
    """Return the text with every run of digits that holds a possible card number starred out."""
    return mask_bytes(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")
