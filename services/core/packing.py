"""How a profile lies in its bytes: what profiles of all kinds share, as numba kernels.

A header of ``HEADER_BYTES``, then column by column what each entry has, oldest first: how long before the newest it was, in ms; the low
``HASH_BYTES`` of its transaction's hash; what only this kind of profile has, of fixed size; and last the amounts, as variable-length
integers. So an entry of a card takes some 12 bytes instead of 40, and the rest of a profile is where most entries have nothing.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from services.core.columns import type_bool, type_i64, type_u8

NEVER_MS: Final = -(2**62)
"""The ``truncated_until_ms`` of a profile that has lost nothing."""
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
def get_counts(raw: type_u8, at: int) -> Any:
    """Return a header's entries, and the kind's two counts."""
    return (
        np.int64(get_number(raw, at + 2, 2)),
        np.int64(get_number(raw, at + 4, 2)),
        np.int64(get_number(raw, at + 6, 2)),
    )


@njit(cache=True, nogil=True)
def open_headers(raw: type_u8, size: type_i64, slot: type_i64, layout: int, profiles: Any) -> type_bool:
    """Read the headers of profiles that lie one behind the other, and share the room out among them.

    Args:
        raw: their bytes.
        size: (k,) how many each has; none where there is no profile.
        slot: (n,) the profile that each record to be folded belongs to: room is left for it.
        layout: the version that they must be of.
        profiles: ``OpenProfiles.all_arrays``, filled but for the entries.

    Returns:
        (k,) which of them are not of the layout, or too short for what they say; they are empty.
    """
    _, begin, count, truncated_until_ms, last_offset = profiles
    bad, additions = np.zeros(len(size), np.bool_), np.zeros(len(size), np.int64)
    for i in range(len(slot)):
        additions[slot[i]] += 1
    at, room = 0, 0
    for k in range(len(size)):
        begin[k], count[k], truncated_until_ms[k], last_offset[k] = room, 0, NEVER_MS, -1
        if size[k]:
            entries = np.int64(get_number(raw, at + 2, 2)) if size[k] >= HEADER_BYTES else 0
            if size[k] < HEADER_BYTES + entries * ENTRY_BYTES_MIN or get_number(raw, at, 2) != np.uint64(layout):
                bad[k] = True
            else:
                count[k] = entries
                last_offset[k] = np.int64(get_number(raw, at + 8, 8))
                truncated_until_ms[k] = np.int64(get_number(raw, at + 16, 8))
        at += size[k]
        room += count[k] + additions[k]
    return bad


@njit(cache=True, nogil=True)
def put_header(out: type_u8, at: int, layout: int, profiles: Any, k: int) -> int:
    """Write the header of profile k, but for the kind's two counts, which :func:`put_counts` writes; return the position behind it."""
    entries, begin, count, truncated_until_ms, last_offset = profiles
    newest_ms = entries[begin[k] + count[k] - 1]["event_time_ms"] if count[k] else 0
    put_number(out, at, layout, 2)
    put_number(out, at + 2, count[k], 2)
    put_counts(out, at, 0, 0)
    put_number(out, at + 8, last_offset[k], 8)
    put_number(out, at + 16, truncated_until_ms[k], 8)
    return put_number(out, at + 24, newest_ms, 8)


@njit(cache=True, nogil=True, forceinline=True)
def put_counts(out: type_u8, at: int, one: int, other: int) -> None:
    """Write the kind's two counts into the header at ``at``."""
    put_number(out, at + 4, one, 2)
    put_number(out, at + 6, other, 2)


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
def get_times_and_hashes(raw: type_u8, at: int, entries: Any) -> int:
    """Read ages and hashes behind the header at ``at`` into entries; return the position behind them."""
    newest_ms = np.int64(get_number(raw, at + 24, 8))
    at += HEADER_BYTES
    for i in range(len(entries)):
        entries[i]["event_time_ms"] = newest_ms - np.int64(get_number(raw, at, AGE_BYTES))
        at += AGE_BYTES
    for i in range(len(entries)):
        entries[i]["transaction_hash"] = get_number(raw, at, HASH_BYTES)
        at += HASH_BYTES
    return at


@njit(cache=True, nogil=True, forceinline=True)
def put_varint(out: type_u8, at: int, bits: np.uint64) -> int:
    """Write an unsigned integer, seven bits a byte, the least significant first; return the position behind it."""
    while bits > np.uint64(127):
        out[at] = np.uint8(bits & np.uint64(127)) | np.uint8(128)
        bits >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(bits)
    return at + 1


@njit(cache=True, nogil=True)
def put_amounts(out: type_u8, at: int, entries: Any) -> int:
    """Write amounts from -1 on, one more than each is, seven bits a byte; return the position behind them."""
    for i in range(len(entries)):
        at = put_varint(out, at, np.uint64(entries[i]["amount_minor"] + 1))
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
