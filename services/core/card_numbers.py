"""What looks like a card number: the one definition, by which transactions are refused and by which bytes and lines are masked.

A card number is 13 to 19 decimal digits of an issuer's range that pass the Luhn check (ISO/IEC 7812-1). Its digits are joined over
everything but letters of ASCII: blanks, hyphens, dots, slashes, line feeds, whatever bytes lie between them; the digits of every script
count (full-width ones, for example). Two functions go by that:

:func:`holds_card_number`, for a text that is known from its first to its last byte, looks at whole groups of digits: at ``4111 1111 1111
1111 12/27``, but not at 16 digits in the middle of 20, which are a reference number.

:func:`mark_card_numbers`, for bytes of which nobody knows where a text begins, looks at every 13 to 19 digits, and reads the escapes of
JSON as well. So it marks whatever the other refuses, in whatever it lies.

Both are plain Python here, for processes without numba; :mod:`services.core.validation` compiles them.
"""

from __future__ import annotations

import unicodedata
from typing import Any, Final

import numpy as np

DIGITS_MIN, DIGITS_MAX = 13, 19
"""How long a card number is. ISO/IEC 7812-1 allows from 8 on; below 13 no issuer gives any out."""

ISSUERS: Final = np.array(
    [
        (2200, 2204, 16, 19),  # Mir
        (2221, 2720, 16, 16),  # Mastercard
        (3000, 3059, 14, 19),  # Diners Club
        (3095, 3095, 14, 19),
        (3400, 3499, 15, 15),  # American Express
        (3528, 3589, 16, 19),  # JCB
        (3600, 3699, 14, 19),  # Diners Club
        (3700, 3799, 15, 15),  # American Express
        (3800, 3999, 14, 19),  # Diners Club
        (4000, 4999, 13, 19),  # Visa
        (5000, 5099, 13, 19),  # Maestro, Elo, Verve, RuPay
        (5100, 5599, 16, 16),  # Mastercard
        (5600, 6999, 13, 19),  # Maestro, Discover, UnionPay, RuPay, Troy, InterPayment
        (8100, 8299, 16, 19),  # UnionPay, RuPay
        (8600, 8600, 16, 16),  # Uzcard
        (9704, 9704, 16, 19),  # Napas
        (9792, 9792, 16, 16),  # Troy
        (9860, 9860, 16, 16),  # Humo
    ]
)
"""The first four digits, from and to, of the issuers that give out cards, and how many digits theirs have at least and at most.

From the published ranges of the networks. Without ranges every tenth number would be taken for a card number: a time in milliseconds (13
digits that begin with 1), for example. Not among them: 1, airlines' own cards (UATP), since times and counters begin so.
"""

SEPARATOR, LETTER = -1, -2
_ZEROS: Final = np.array([code for code in range(128, 0x20000) if unicodedata.decimal(chr(code), None) == 0])
"""The zero of every script; its other digits follow."""


def character_at(buffer: Any, at: int, stop: int, escapes: bool) -> tuple[int, int]:
    """Return the value of the decimal digit that begins at a byte, or SEPARATOR or LETTER, and how many bytes that takes.

    Args:
        buffer: bytes.
        at: where to look.
        stop: where the text ends.
        escapes: whether the backslash of JSON begins one character, as in u0034, a 4.
    """
    byte = int(buffer[at])
    if 48 <= byte <= 57:
        return byte - 48, 1
    if 65 <= byte <= 90 or 97 <= byte <= 122:
        return LETTER, 1
    if byte >= 128:
        return utf8_at(buffer, at, stop)
    if byte == 92 and escapes and at + 1 < stop:
        return escape_at(buffer, at, stop)
    return SEPARATOR, 1


def utf8_at(buffer: Any, at: int, stop: int) -> tuple[int, int]:
    """Return the same of a byte above 127; what is not UTF-8 is a separator of one byte."""
    byte = int(buffer[at])
    width = 2 if 0xC2 <= byte <= 0xDF else 3 if 0xE0 <= byte <= 0xEF else 4 if 0xF0 <= byte <= 0xF4 else 1
    if width == 1 or at + width > stop:
        return SEPARATOR, 1
    code = byte & (0x7F >> width)
    for k in range(1, width):
        byte = int(buffer[at + k])
        if byte & 0xC0 != 0x80:
            return SEPARATOR, 1
        code = code << 6 | byte & 0x3F
    return decimal_of(code), width


def escape_at(buffer: Any, at: int, stop: int) -> tuple[int, int]:
    """Return the same of a backslash in JSON, with another byte behind it."""
    code = hexadecimal_at(buffer, at, stop)
    if code < 0:
        letter = int(buffer[at + 1])  # of \\, \b, \f, \n, \r, \t
        return SEPARATOR, 2 if letter in (92, 98, 102, 110, 114, 116) else 1
    if 0xD800 <= code < 0xDC00:
        low = hexadecimal_at(buffer, at + 6, stop)
        if 0xDC00 <= low < 0xE000:
            return decimal_of(0x10000 + ((code - 0xD800) << 10) + low - 0xDC00), 12
    return decimal_of(code), 6


def hexadecimal_at(buffer: Any, at: int, stop: int) -> int:
    """Return the code of a backslash, a u and four hexadecimal digits, or -1 for anything else."""
    if at + 6 > stop or int(buffer[at]) != 92 or int(buffer[at + 1]) != 117:
        return -1
    code = 0
    for k in range(2, 6):
        byte = int(buffer[at + k])
        low = byte | 32
        if 48 <= byte <= 57:
            code = code * 16 + byte - 48
        elif 97 <= low <= 102:
            code = code * 16 + low - 87
        else:
            return -1
    return code


def decimal_of(code: int) -> int:
    """Return the value of a decimal digit of any script, or SEPARATOR for any other character."""
    if 48 <= code <= 57:
        return code - 48
    for k in range(len(_ZEROS)):
        if _ZEROS[k] <= code < _ZEROS[k] + 10:
            return code - int(_ZEROS[k])
    return SEPARATOR


def of_an_issuer(first_four: int, digits: int) -> bool:
    """Whether a number that begins so, and is so long, is of a known range."""
    for k in range(len(ISSUERS)):
        if ISSUERS[k, 0] <= first_four <= ISSUERS[k, 1] and ISSUERS[k, 2] <= digits <= ISSUERS[k, 3]:
            return True
    return False


def begins_card_number(buffer: Any, at: int, stop: int, anywhere: bool, escapes: bool) -> bool:
    """Whether a card number begins with the digit at a byte.

    Args:
        buffer: bytes.
        at: where the digit is.
        stop: where the text ends.
        anywhere: whether it may end before another digit.
        escapes: as for :func:`character_at`.
    """
    digits, first_four = 0, 0
    # Luhn's sums of what is read so far: if the last digit counts once, and if it counts double.
    once, double, matches = 0, 0, False
    while at < stop:
        value, width = int(buffer[at]) - 48, 1
        if not 0 <= value <= 9:
            value, width = character_at(buffer, at, stop, escapes)
        if matches and (anywhere or value < 0):
            return True
        if value == LETTER or (value >= 0 and digits == DIGITS_MAX):
            return False
        if value >= 0:
            digits += 1
            if digits <= 4:
                first_four = 10 * first_four + value
            once, double = double + value, once + (2 * value - 9 if value > 4 else 2 * value)
            matches = digits >= DIGITS_MIN and once % 10 == 0 and of_an_issuer(first_four, digits)
        at += width
    return matches


def holds_card_number(buffer: Any, start: int, stop: int) -> bool:
    """Whether groups of digits of a text make a card number, one group or several that follow each other."""
    at, inside = start, False
    if is_digest(buffer, start, stop):
        return False
    while at < stop:
        value, width = int(buffer[at]) - 48, 1
        if not 0 <= value <= 9:
            value, width = character_at(buffer, at, stop, False)
        if value >= 0 and not inside and begins_card_number(buffer, at, stop, False, False):
            return True
        inside = value >= 0
        at += width
    return False


def is_digest(buffer: Any, start: int, stop: int) -> bool:
    """Whether a text as a whole is a UUID or a digest in hexadecimal digits: of a thousand such texts one would hold a card number.

    What begins with as many digits as a card number has is none: it may be one that letters were added to, or the data of a magnetic stripe.
    """
    length, letters, digits = stop - start, 0, 0
    if length not in (32, 36, 40, 64):
        return False
    for k in range(length):
        byte = int(buffer[start + k])
        if length == 36 and k in (8, 13, 18, 23):
            if byte != 45:
                return False
        elif 97 <= byte | 32 <= 102:
            letters += 1
            if letters == 1 and digits >= DIGITS_MIN:
                return False
        elif 48 <= byte <= 57:
            digits += 1
        else:
            return False
    return letters > 0


def mark_card_numbers(buffer: Any, marked: Any, escapes: bool) -> None:
    """Set ``marked`` to 1 for every byte of a digit of every run, between two letters, that could hold a card number."""
    at, run, hit, stop = 0, 0, False, len(buffer)
    while at <= stop:
        value, width = LETTER, 1
        if at < stop:
            value, width = character_at(buffer, at, stop, escapes)
        if value == LETTER:
            if hit:
                mark_digits(buffer, run, at, marked, escapes)
            run, hit = at + width, False
        elif value >= 0 and not hit:
            hit = begins_card_number(buffer, at, stop, True, escapes)
        at += width


def mark_digits(buffer: Any, at: int, stop: int, marked: Any, escapes: bool) -> None:
    """Set ``marked`` to 1 for every byte of a digit between two places."""
    while at < stop:
        value, width = character_at(buffer, at, stop, escapes)
        if value >= 0:
            for k in range(width):
                marked[at + k] = 1
        at += width
