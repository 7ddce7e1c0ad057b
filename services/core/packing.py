"""How a profile lies in its bytes: what profiles of all kinds share, as numba kernels.

A header of ``HEADER_BYTES``, then column by column what each entry has, oldest first: how long before the newest it was, in ms; the low
``HASH_BYTES`` of its transaction's hash; what only this kind of profile has, of fixed size; and last the amounts, as variable-length
integers. So an entry of a card takes some 12 bytes instead of 40, and the rest of a profile is where most entries have nothing.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from services.core.columns import type_u8

HEADER_BYTES: Final = 32
"""Layout, entries, and two counts that each kind uses as it likes, of 2 bytes; the last offset folded, ``truncated_until_ms`` and the newest
event time, of 8."""
AGE_BYTES: Final = 4
"""An age of up to 49 days, which is beyond what any profile keeps."""
HASH_BYTES: Final = 5
HASH_MASK: Final = np.uint64(2 ** (8 * HASH_BYTES) - 1)
"""A transaction is known again by these bits of its hash. That two of a profile with hundreds of entries share them happens once in some billion
transactions; the later one then passes for a repeat."""
_AGE_MAX: Final = 2 ** (8 * AGE_BYTES) - 1
_VARINT_BYTES_MAX: Final = 9
ENTRY_BYTES_MIN: Final = AGE_BYTES + HASH_BYTES + 1
ENTRY_BYTES_MAX: Final = AGE_BYTES + HASH_BYTES + _VARINT_BYTES_MAX


@njit(cache=True, nogil=True, forceinline=True)
def put_number(out: type_u8, at: int, value: int, size: int) -> int:
    """Write an integer of ``size`` bytes, the least significant first; return the position behind it."""
    bits = np.uint64(value)
    for j in range(size):
        out[at + j] = np.uint8(bits >> np.uint64(8 * j))
    return at + size


@njit(cache=True, nogil=True, forceinline=True)
def get_number(raw: type_u8, at: int, size: int) -> np.uint64:
    """Return an integer of ``size`` bytes, unsigned."""
    bits = np.uint64(0)
    for j in range(size):
        bits |= np.uint64(raw[at + j]) << np.uint64(8 * j)
    return bits


@njit(cache=True, nogil=True, forceinline=True)
def put_header(out: type_u8, at: int, counts: tuple[int, int, int, int], times: tuple[int, int, int]) -> int:
    """Write a header: layout, entries and the kind's two counts; last offset, ``truncated_until_ms`` and newest time."""
    for number in counts:
        at = put_number(out, at, number, 2)
    for number in times:
        at = put_number(out, at, number, 8)
    return at


@njit(cache=True, nogil=True, forceinline=True)
def get_header(raw: type_u8, at: int) -> Any:
    """Return what :func:`put_header` wrote."""
    return (
        np.int64(get_number(raw, at, 2)),
        np.int64(get_number(raw, at + 2, 2)),
        np.int64(get_number(raw, at + 4, 2)),
        np.int64(get_number(raw, at + 6, 2)),
        np.int64(get_number(raw, at + 8, 8)),
        np.int64(get_number(raw, at + 16, 8)),
        np.int64(get_number(raw, at + 24, 8)),
    )


@njit(cache=True, nogil=True)
def put_times_and_hashes(out: type_u8, at: int, entries: Any) -> int:
    """Write ages and hashes; return the position behind them."""
    newest_ms = entries[len(entries) - 1]["event_time_ms"] if len(entries) else 0
    for i in range(len(entries)):
        age_ms = newest_ms - entries[i]["event_time_ms"]
        assert 0 <= age_ms <= _AGE_MAX
        at = put_number(out, at, age_ms, AGE_BYTES)
    for i in range(len(entries)):
        at = put_number(out, at, entries[i]["transaction_hash"], HASH_BYTES)
    return at


@njit(cache=True, nogil=True)
def get_times_and_hashes(raw: type_u8, at: int, newest_ms: int, entries: Any) -> int:
    """Read ages and hashes into entries; return the position behind them."""
    for i in range(len(entries)):
        entries[i]["event_time_ms"] = newest_ms - np.int64(get_number(raw, at, AGE_BYTES))
        at += AGE_BYTES
    for i in range(len(entries)):
        entries[i]["transaction_hash"] = get_number(raw, at, HASH_BYTES)
        at += HASH_BYTES
    return at


@njit(cache=True, nogil=True)
def put_amounts(out: type_u8, at: int, entries: Any) -> int:
    """Write amounts from -1 on, one more than each is, seven bits a byte; return the position behind them."""
    for i in range(len(entries)):
        bits = np.uint64(entries[i]["amount_minor"] + 1)
        while bits > np.uint64(127):
            out[at] = np.uint8(bits & np.uint64(127)) | np.uint8(128)
            bits >>= np.uint64(7)
            at += 1
        out[at] = np.uint8(bits)
        at += 1
    return at


@njit(cache=True, nogil=True)
def get_amounts(raw: type_u8, at: int, stop: int, entries: Any) -> bool:
    """Read amounts into entries; whether they are whole, and end where they must."""
    for i in range(len(entries)):
        bits, shift = np.uint64(0), np.uint64(0)
        while at < stop and raw[at] > 127 and shift < np.uint64(7 * _VARINT_BYTES_MAX - 7):
            bits |= np.uint64(raw[at] & 127) << shift
            shift += np.uint64(7)
            at += 1
        if at >= stop or raw[at] > 127:
            return False
        bits |= np.uint64(raw[at]) << shift
        entries[i]["amount_minor"] = np.int64(bits) - 1
        at += 1
    return at == stop
