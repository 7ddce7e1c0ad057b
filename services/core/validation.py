"""What a transaction must be to be decided on; what it is refused for, from a closed list.

The first reason that applies is the one given, in the order of :class:`Reject`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import numpy as np
from numba import literal_unroll, njit

from services.core.card_number_kernels import holds_card_number
from services.core.card_numbers import DIGITS_MIN
from services.core.columns import TerminalEventColumns, Text, TransactionColumns, type_bool, type_i64, type_u8
from services.core.kernels import same_bytes
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
    INTERNAL_ERROR = 20
    """Deciding on it raised an exception that nobody expected: a mistake of ours, not of the record's sender."""
    WRONG_PARTITION = 21
    """It lies in another partition than the one that its key belongs to (murmur2, as Java's clients choose)."""
    TRANSACTION_NOT_FOUND = 22
    """The transaction that it points to is not in the log, or did not become readable in time."""


# As kernels know them.
_NONE, _NULL_KEY, _KEY_MISMATCH = int(Reject.NONE), int(Reject.NULL_KEY), int(Reject.KEY_MISMATCH)
_INVALID, _CARD_NUMBER = int(Reject.INVALID_IDENTIFIER), int(Reject.CARD_NUMBER)
_INVALID_AMOUNT, _INVALID_CATEGORY = int(Reject.INVALID_AMOUNT), int(Reject.INVALID_CATEGORY)
_UNKNOWN_CURRENCY, _UNKNOWN_COUNTRY = int(Reject.UNKNOWN_CURRENCY), int(Reject.UNKNOWN_COUNTRY)
_INVALID_POSITION, _INVALID_TIME = int(Reject.INVALID_POSITION), int(Reject.INVALID_TIME)

AMOUNT_MINOR_MAX: Final = 10**12
"""Ten thousand million major units of a two-digit currency: beyond any card payment, within exact sums."""
IDENTIFIER_BYTES_MAX: Final = 64
EARLIEST_MS: Final = 946_684_800_000
"""2000-01-01T00:00:00Z."""
AHEAD_MS_MAX: Final = DAY_MS
"""How far an event's time may lie after the record's Kafka timestamp."""


@njit(cache=True, nogil=True, forceinline=True)
def _look_over(buffer: type_u8, start: int, stop: int) -> tuple[int, int]:
    """Return how many bytes are control characters, and how many could be digits or parts of digits."""
    bad, digits = 0, 0
    for j in range(start, stop):
        bad += (buffer[j] < 32) | (buffer[j] == 127)
        digits += ((buffer[j] >= 48) & (buffer[j] <= 57)) | (buffer[j] >= 128)
    return bad, digits


@njit(cache=True, nogil=True, forceinline=True)
def _identifier_reason(buffer: type_u8, start: int, length: int, optional: bool) -> int:
    if length == 0:
        return _NONE if optional else _INVALID
    if length > IDENTIFIER_BYTES_MAX:
        return _INVALID
    bad, digits = _look_over(buffer, start, start + length)
    if bad:
        return _INVALID
    return _CARD_NUMBER if digits >= DIGITS_MIN and holds_card_number(buffer, start, start + length) else _NONE


@njit(cache=True, nogil=True)
def _note_identifiers(texts: Any, required: int, status: type_i64) -> None:
    """Note for each row what is wrong with its identifiers, of which the first ones must be there: the reason that comes first."""
    at = 0
    for text in literal_unroll(texts):  # they need not be of one type
        buffer, start, length = text
        for i in range(len(start)):
            reason = _identifier_reason(buffer, start[i], length[i], at >= required)
            if reason != _NONE and (status[i] == _NONE or reason < status[i]):
                status[i] = reason
        at += 1  # noqa: SIM113 - numba unrolls no enumerate()


def _raw(*texts: Text) -> Any:
    return tuple([(text.buffer, text.start, text.length) for text in texts])


def identifier_status(text: Text) -> type_i64:
    """Return NONE, INVALID_IDENTIFIER or CARD_NUMBER for each row: a token is 1 to 64 bytes, no control characters."""
    status = np.zeros(len(text), np.int64)
    _note_identifiers(_raw(text), 1, status)
    return status


@njit(cache=True, nogil=True)
def _equal_rows(
    a: type_u8, a_start: type_i64, a_length: type_i64, b: type_u8, b_start: type_i64, b_length: type_i64
) -> type_bool:
    out = np.empty(len(a_start), np.bool_)
    for i in range(len(a_start)):
        out[i] = a_length[i] == b_length[i] and same_bytes(a, a_start[i], b, b_start[i], a_length[i])
    return out


def equal_text(a: Text, b: Text) -> type_bool:
    """Whether each row of ``a`` has the bytes of the same row of ``b``."""
    return _equal_rows(a.buffer, a.start, a.length, b.buffer, b.start, b.length)


def validate(columns: TransactionColumns, keys: Text, has_key: type_bool, timestamp_ms: type_i64) -> type_i64:
    """Return the :class:`Reject` of every transaction, NONE for the valid ones.

    Args:
        columns: n decoded transactions.
        keys: the record keys; the rows without one are empty.
        has_key: (n,) False where the record has no key.
        timestamp_ms: (n,) the records' Kafka timestamps.
    """
    identifiers = _raw(
        columns.card_id, columns.customer_id, columns.account_id, columns.terminal_id, columns.merchant_id,
        columns.device_id,
    )  # fmt: skip
    keyed = has_key, keys.buffer, keys.start, keys.length
    amounts = columns.amount_minor, columns.billing_amount_minor, columns.merchant_category_code
    codes = columns.currency, columns.billing_currency, columns.country
    place_and_time = columns.latitude, columns.longitude, columns.event_time_ms, timestamp_ms
    return _first_reasons(identifiers, keyed, amounts, codes, place_and_time)


@njit(cache=True, nogil=True)
def _first_reasons(identifiers: Any, keyed: Any, amounts: Any, codes: Any, place_and_time: Any) -> type_i64:
    """Return for each row the first reason to refuse it; the last identifier may be missing, the first one is the card."""
    cards, card_start, card_length = identifiers[0]
    has_key, keys, key_start, key_length = keyed
    status = np.zeros(len(has_key), np.int64)
    _note_identifiers(identifiers, len(identifiers) - 1, status)
    amount_minor, billing_amount_minor, category = amounts
    currency, billing_currency, country = codes
    latitude, longitude, event_time_ms, timestamp_ms = place_and_time
    for i in range(len(status)):
        if not has_key[i]:
            status[i] = _NULL_KEY
        elif card_length[i] != key_length[i] or not same_bytes(cards, card_start[i], keys, key_start[i], key_length[i]):
            status[i] = _KEY_MISMATCH
        elif status[i] != _NONE:
            continue
        elif not (0 <= amount_minor[i] <= AMOUNT_MINOR_MAX and 0 <= billing_amount_minor[i] <= AMOUNT_MINOR_MAX):
            status[i] = _INVALID_AMOUNT
        elif not (is_currency(currency[i]) and is_currency(billing_currency[i])):
            status[i] = _UNKNOWN_CURRENCY
        elif not is_country(country[i]):
            status[i] = _UNKNOWN_COUNTRY
        elif not 0 <= category[i] <= 9999:
            status[i] = _INVALID_CATEGORY
        elif _bad_position(latitude[i], longitude[i]):
            status[i] = _INVALID_POSITION
        elif not (event_time_ms[i] >= EARLIEST_MS and event_time_ms[i] - AHEAD_MS_MAX <= timestamp_ms[i]):
            status[i] = _INVALID_TIME
    return status


@njit(cache=True, nogil=True)
def _bad_position(latitude: float, longitude: float) -> bool:
    """Both coordinates or none; a NaN that was sent is turned into infinity by the decoder, so that it is refused here."""
    if np.isnan(latitude) or np.isnan(longitude):
        return not (np.isnan(latitude) and np.isnan(longitude))
    return abs(latitude) > 90.0 or abs(longitude) > 180.0


def validate_terminal_events(
    columns: TerminalEventColumns, keys: Text, has_key: type_bool, wanted: Text | None = None
) -> type_i64:
    """Return the :class:`Reject` of every terminal event or label, NONE for the valid ones.

    Args:
        columns: n decoded events.
        keys: the records' keys; rows without one are empty.
        has_key: (n,) False where the record has no key.
        wanted: what the keys must be; None: the terminals.
    """
    wanted = columns.terminal_id if wanted is None else wanted
    status = identifier_status(columns.terminal_id)
    status[(status == Reject.NONE) & ~has_key] = Reject.NULL_KEY
    status[(status == Reject.NONE) & ~equal_text(wanted, keys)] = Reject.KEY_MISMATCH
    outside = (columns.amount_minor < 0) | (columns.amount_minor > AMOUNT_MINOR_MAX)
    status[(status == Reject.NONE) & outside] = Reject.INVALID_AMOUNT
    before = (columns.event_time_ms < EARLIEST_MS) | (columns.is_label & (columns.known_at_ms < EARLIEST_MS))
    status[(status == Reject.NONE) & before] = Reject.INVALID_TIME
    return status
