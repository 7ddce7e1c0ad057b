"""What looks like a card number, compiled: see :mod:`services.core.card_numbers`, which is the definition."""

from __future__ import annotations

import numpy as np
from numba import njit
from numba.extending import register_jitable

from services.core import card_numbers
from services.core.card_numbers import DIGITS_MIN
from services.core.columns import Text, type_bool, type_i64, type_u8
from services.core.masking import mask_bytes

register_jitable(forceinline=True)(card_numbers.character_at)
for _plain in (
    card_numbers.utf8_at, card_numbers.escape_at, card_numbers.hexadecimal_at, card_numbers.decimal_of, card_numbers.of_an_issuer,
    card_numbers.begins_card_number, card_numbers.is_digest, card_numbers.mark_digits,
):  # fmt: skip
    register_jitable(_plain)

_holds_card_number = njit(cache=True, nogil=True)(card_numbers.holds_card_number)
_mark_card_numbers = njit(cache=True, nogil=True)(card_numbers.mark_card_numbers)


@njit(cache=True, nogil=True, forceinline=True)
def could_hold_card_number(buffer: type_u8, start: int, stop: int) -> bool:
    """Whether there are digits enough without a letter between them: settles nearly all tokens in a few nanoseconds."""
    run = longest = 0
    for j in range(start, stop):
        byte = buffer[j]
        # A byte beyond ASCII can be a part of a digit.
        run += ((byte >= 48) & (byte <= 57)) | (byte >= 128)
        # Without a branch: of hexadecimal digits nobody foresees which is a letter.
        run *= 1 - ((byte | 32 >= 97) & (byte | 32 <= 122))
        longest = max(longest, run)
    return longest >= DIGITS_MIN


@njit(cache=True, nogil=True, forceinline=True)
def holds_card_number(buffer: type_u8, start: int, stop: int) -> bool:
    """See :func:`services.core.card_numbers.holds_card_number`."""
    return could_hold_card_number(buffer, start, stop) and _holds_card_number(buffer, start, stop)


@njit(cache=True, nogil=True)
def _rows_that_hold(buffer: type_u8, start: type_i64, length: type_i64) -> type_bool:
    out = np.empty(len(start), np.bool_)
    for i in range(len(start)):
        out[i] = holds_card_number(buffer, start[i], start[i] + length[i])
    return out


def rows_with_card_numbers(text: Text) -> type_bool:
    """Return which rows hold one, shape (n,)."""
    return _rows_that_hold(text.buffer, text.start, text.length)


def _mark(raw: bytes, escapes: bool) -> type_u8:
    marked = np.zeros(len(raw), np.uint8)
    _mark_card_numbers(np.frombuffer(raw, np.uint8), marked, escapes)
    return marked


def mask_record(raw: bytes) -> bytes:
    """Mask the bytes of a record: as :func:`services.core.masking.mask_bytes`, in microseconds."""
    return mask_bytes(raw, _mark)
