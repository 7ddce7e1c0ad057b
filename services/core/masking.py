"""What looks like a card number, masked before bytes are kept or shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from services.core.card_numbers import DIGITS_MIN, holds_card_number, mark_card_numbers

_NO_DIGIT: Final = bytes(byte for byte in range(128) if not 48 <= byte <= 57)
"""Bytes that are no part of a digit: of its escape in JSON one byte at least is."""
_LONG: Final = re.compile(rb"[0-9]{65,}")
"""More digits than any identifier has: nobody knows what they are."""


def _mark(raw: bytes, escapes: bool) -> bytearray:
    marked = bytearray(len(raw))
    mark_card_numbers(raw, marked, escapes)
    return marked


def mask_bytes(raw: bytes, mark: Callable[[bytes, bool], Any] = _mark) -> bytes:
    """Return the bytes, same length, with the digits starred out of every run that could hold a card number.

    Every text that is refused for a card number is masked with it, whatever lies before and behind it.

    Args:
        raw: anything.
        mark: marks the digits, with JSON's escapes read or not; the compiled one for records, which can be long.
    """
    while len(raw.translate(None, _NO_DIGIT)) >= DIGITS_MIN:
        # Both ways: what is an escape in a text may be a length and the beginning of a text in another record.
        marked = np.frombuffer(mark(raw, False), np.uint8) | np.frombuffer(mark(raw, True), np.uint8)
        if not marked.any():
            break
        # Digits that were apart may be neighbours now, so it is looked at again.
        raw = np.where(marked, np.uint8(ord("*")), np.frombuffer(raw, np.uint8)).tobytes()
    return _LONG.sub(lambda match: b"*" * len(match[0]), raw)


def text_holds_card_number(text: str) -> bool:
    """Whether a text would be refused for a card number."""
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw.translate(None, _NO_DIGIT)) >= DIGITS_MIN and holds_card_number(raw, 0, len(raw))


def mask_text(text: str) -> str:
    """Return the text, masked as its bytes in UTF-8 are."""
    return mask_bytes(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")
