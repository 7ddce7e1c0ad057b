"""What a transaction must be to be decided on; what it is refused for, from a closed list.

The first reason that applies is the one given, in the order of :class:`Reject`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
from numba import njit

from services.core.columns import TerminalEventColumns, Text, TransactionColumns, type_bool, type_i64, type_u8
from services.core.money import is_country, is_currency
from services.core.profiles import DAY_MS


class Reject(IntEnum):
    """Why a record became a dead letter; the names are the symbols of the Avro enum in ``dead-letters``."""

    NONE = 0
    EMPTY = 1
    TOO_LARGE = 2
    BAD_FRAMING = 3
    UNKNOWN_FINGERPRINT = 4
    WRONG_SCHEMA = 5
    MALFORMED = 6
    TRAILING_BYTES = 7
    INVALID_UTF8 = 8
    NULL_KEY = 9
    KEY_MISMATCH = 10
    INVALID_IDENTIFIER = 11
    CARD_NUMBER = 12
    INVALID_AMOUNT = 13
    UNKNOWN_CURRENCY = 14
    UNKNOWN_COUNTRY = 15
    INVALID_CATEGORY = 16
    INVALID_POSITION = 17
    INVALID_TIME = 18
    KILLS_DECODER = 19
    """The process that decodes it dies; found after two deaths, and not decoded again."""


AMOUNT_MINOR_MAX: Final = 10**12
"""Ten thousand million major units of a two-digit currency: beyond any card payment, within exact sums."""
IDENTIFIER_BYTES_MAX: Final = 64
EARLIEST_MS: Final = 946_684_800_000
"""2000-01-01T00:00:00Z."""
AHEAD_MS_MAX: Final = DAY_MS
"""How far an event's time may lie after the record's Kafka timestamp."""


@njit(cache=True, nogil=True)
def _luhn(digits: type_u8, length: int) -> bool:
    total = 0
    for i in range(length):
        digit = int(digits[length - 1 - i])
        if i % 2:
            digit = digit * 2 - 9 if digit > 4 else digit * 2
        total += digit
    return total % 10 == 0


@njit(cache=True, nogil=True)
def _looks_like_card_number(buffer: type_u8, start: int, length: int) -> bool:
    digits = np.empty(19, np.uint8)
    count = 0
    for i in range(start, start + length):
        byte = buffer[i]
        if 48 <= byte <= 57:
            if count == 19:
                return False
            digits[count] = byte - 48
            count += 1
        elif byte not in (32, 45):  # a space or a hyphen between the digits does not make it a token
            return False
    return count >= 13 and _luhn(digits, count)


@njit(cache=True, nogil=True)
def _bad_identifiers(buffer: type_u8, start: type_i64, length: type_i64, length_max: int, optional: bool) -> type_i64:
    """Return 0, INVALID_IDENTIFIER or CARD_NUMBER for each row."""
    out = np.zeros(len(start), np.int64)
    for i in range(len(start)):
        if length[i] == 0:
            out[i] = 0 if optional else 11
            continue
        if length[i] > length_max:
            out[i] = 11
            continue
        for j in range(start[i], start[i] + length[i]):
            if buffer[j] < 32 or buffer[j] == 127:
                out[i] = 11
                break
        if out[i] == 0 and _looks_like_card_number(buffer, start[i], length[i]):
            out[i] = 12
    return out


def identifier_status(text: Text, *, optional: bool = False) -> type_i64:
    """Return NONE, INVALID_IDENTIFIER or CARD_NUMBER for each row: a token is 1 to 64 bytes, no control characters."""
    return _bad_identifiers(text.buffer, text.start, text.length, IDENTIFIER_BYTES_MAX, optional)


@njit(cache=True, nogil=True)
def _equal_rows(
    a: type_u8, a_start: type_i64, a_length: type_i64, b: type_u8, b_start: type_i64, b_length: type_i64
) -> type_bool:
    out = np.empty(len(a_start), np.bool_)
    for i in range(len(a_start)):
        same = a_length[i] == b_length[i]
        if same:
            for j in range(a_length[i]):
                if a[a_start[i] + j] != b[b_start[i] + j]:
                    same = False
                    break
        out[i] = same
    return out


def equal_text(a: Text, b: Text) -> type_bool:
    """Whether each row of ``a`` has the bytes of the same row of ``b``."""
    return _equal_rows(a.buffer, a.start, a.length, b.buffer, b.start, b.length)


def _outside(values: type_i64, least: int, most: int) -> type_bool:
    return (values < least) | (values > most)


def validate(columns: TransactionColumns, keys: Text, has_key: type_bool, timestamp_ms: type_i64) -> type_i64:
    """Return the :class:`Reject` of every transaction, NONE for the valid ones.

    Args:
        columns: n decoded transactions.
        keys: the record keys; the rows without one are empty.
        has_key: (n,) False where the record has no key.
        timestamp_ms: (n,) the records' Kafka timestamps.
    """
    status = np.zeros(len(columns), np.int64)

    def reject(bad: type_bool, reason: Reject) -> None:
        if bad.any():
            status[(status == Reject.NONE) & bad] = reason

    reject(~has_key, Reject.NULL_KEY)
    reject(~equal_text(columns.card_id, keys), Reject.KEY_MISMATCH)
    names = ("card_id", "customer_id", "account_id", "terminal_id", "merchant_id", "device_id")
    found = np.stack([identifier_status(getattr(columns, name), optional=name == "device_id") for name in names])
    reject((found == Reject.INVALID_IDENTIFIER).any(axis=0), Reject.INVALID_IDENTIFIER)
    reject((found == Reject.CARD_NUMBER).any(axis=0), Reject.CARD_NUMBER)
    for amount in (columns.amount_minor, columns.billing_amount_minor):
        reject(_outside(amount, 0, AMOUNT_MINOR_MAX), Reject.INVALID_AMOUNT)
    for currency in (columns.currency, columns.billing_currency):
        reject(~is_currency(currency), Reject.UNKNOWN_CURRENCY)
    reject(~is_country(columns.country), Reject.UNKNOWN_COUNTRY)
    reject(_outside(columns.merchant_category_code, 0, 9999), Reject.INVALID_CATEGORY)
    reject(_bad_position(columns), Reject.INVALID_POSITION)
    late = columns.event_time_ms - AHEAD_MS_MAX > timestamp_ms
    reject((columns.event_time_ms < EARLIEST_MS) | late, Reject.INVALID_TIME)
    return status


def validate_terminal_events(columns: TerminalEventColumns, keys: Text, has_key: type_bool) -> type_i64:
    """Return the :class:`Reject` of every terminal event or label, NONE for the valid ones.

    Args:
        columns: n decoded events.
        keys: the terminals that the records were sent for; rows without a key are empty.
        has_key: (n,) False where the record has no key.
    """
    status = identifier_status(columns.terminal_id)
    status[(status == Reject.NONE) & ~has_key] = Reject.NULL_KEY
    status[(status == Reject.NONE) & ~equal_text(columns.terminal_id, keys)] = Reject.KEY_MISMATCH
    outside = _outside(columns.amount_minor, 0, AMOUNT_MINOR_MAX)
    status[(status == Reject.NONE) & outside] = Reject.INVALID_AMOUNT
    before = (columns.event_time_ms < EARLIEST_MS) | (columns.is_label & (columns.known_at_ms < EARLIEST_MS))
    status[(status == Reject.NONE) & before] = Reject.INVALID_TIME
    return status


def _bad_position(columns: TransactionColumns) -> type_bool:
    """Both coordinates or none; a NaN that was sent is turned into infinity by the decoder, so that it is refused here."""
    missing = np.isnan(columns.latitude)
    one_sided = missing != np.isnan(columns.longitude)
    with np.errstate(invalid="ignore"):
        beyond = (np.abs(columns.latitude) > 90.0) | (np.abs(columns.longitude) > 180.0)
    return one_sided | beyond
