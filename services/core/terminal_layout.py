"""How a terminal's profile lies in memory and in its bytes.

In the bytes labels and counts come in a list of their own: most entries are transactions of which nothing is known.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from services.core.columns import type_bool, type_i64, type_u8
from services.core.packing import (
    AGE_BYTES,
    ENTRY_BYTES_MAX,
    HASH_BYTES,
    HEADER_BYTES,
    get_amounts,
    get_header,
    get_number,
    get_times_and_hashes,
    put_amounts,
    put_header,
    put_number,
    put_times_and_hashes,
)
from services.core.profiles import NEVER_MS, ProfileLayout

TERMINAL_LAYOUT: Final = 0x102
ENTRY: Final = np.dtype(
    [
        ("event_time_ms", "<i8"),  # of the transaction; of a bucket: its begin
        ("transaction_hash", "<u8"),  # within HASH_MASK; BUCKET for a bucket
        ("amount_minor", "<i8"),  # ABSENT while only the label is known; of a bucket: the sum
        ("label", "<i4"),  # see pack_labels(); of a bucket: the frauds in it
        ("count", "<u4"),  # of a bucket: the transactions in it; else 0
    ]
)
_KNOWN_BYTES: Final = 10
"""The entry, its label and its count, of the few entries that have any."""


@njit(cache=True, nogil=True)
def _unpack_terminal(raw: type_u8, at: int, size: int, entries: Any) -> int:
    """Read one profile into the beginning of the entries; return how many it has, or -1."""
    layout, count, known, _, _, _, newest_ms = get_header(raw, at)
    fixed = HEADER_BYTES + count * (AGE_BYTES + HASH_BYTES) + known * _KNOWN_BYTES
    if layout != TERMINAL_LAYOUT or known > count or fixed + count > size:
        return -1
    own = entries[:count]
    known_at = get_times_and_hashes(raw, at + HEADER_BYTES, newest_ms, own)
    for i in range(count):
        own[i]["label"] = 0
        own[i]["count"] = 0
    for _ in range(known):
        row = np.int64(get_number(raw, known_at, 2))
        if row >= count:
            return -1
        own[row]["label"] = np.int32(np.uint32(get_number(raw, known_at + 2, 4)))
        own[row]["count"] = np.uint32(get_number(raw, known_at + 6, 4))
        known_at += _KNOWN_BYTES
    return count if get_amounts(raw, at + fixed, at + size, own) else -1


@njit(cache=True, nogil=True)
def _unpack_terminals(raw: type_u8, size: type_i64, additions: type_i64, profiles: Any) -> type_bool:
    entries, begin, count, truncated_until_ms, last_offset = profiles
    bad = np.zeros(len(size), np.bool_)
    at, stop = 0, 0
    for k in range(len(size)):
        begin[k], count[k], truncated_until_ms[k], last_offset[k] = stop, 0, NEVER_MS, -1
        if size[k]:
            found = _unpack_terminal(raw, at, size[k], entries[stop:]) if size[k] >= HEADER_BYTES else -1
            if found < 0:
                bad[k] = True
            else:
                _, count[k], _, _, last_offset[k], truncated_until_ms[k], _ = get_header(raw, at)
        at += size[k]
        stop += count[k] + additions[k]
    return bad


@njit(cache=True, nogil=True)
def _pack_terminals(profiles: Any, out: type_u8, stops: type_i64) -> int:
    all_entries, begin, count, truncated_until_ms, last_offset = profiles
    at = 0
    for k in range(len(begin)):
        entries = all_entries[begin[k] : begin[k] + count[k]]
        known = 0
        for i in range(len(entries)):
            known += entries[i]["label"] != 0 or entries[i]["count"] != 0
        newest_ms = entries[count[k] - 1]["event_time_ms"] if count[k] else 0
        counts = (TERMINAL_LAYOUT, count[k], known, 0)
        at = put_header(out, at, counts, (last_offset[k], truncated_until_ms[k], newest_ms))
        at = put_times_and_hashes(out, at, entries)
        for i in range(len(entries)):
            if entries[i]["label"] != 0 or entries[i]["count"] != 0:
                at = put_number(out, at, i, 2)
                at = put_number(out, at, entries[i]["label"], 4)
                at = put_number(out, at, entries[i]["count"], 4)
        at = put_amounts(out, at, entries)
        stops[k] = at
    return at


TERMINAL: Final = ProfileLayout(
    TERMINAL_LAYOUT, ENTRY, ENTRY_BYTES_MAX + _KNOWN_BYTES, _unpack_terminals, _pack_terminals
)
