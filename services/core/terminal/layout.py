"""How a terminal's profile lies in memory and in its bytes.

In the bytes labels and counts come in a list of their own: most entries are transactions of which nothing is known.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from services.core.columns import type_bool, type_i64, type_u8
from services.core.layouts import TERMINAL_LAYOUT
from services.core.packing import (
    AGE_BYTES,
    ENTRY_BYTES_MAX,
    HASH_BYTES,
    HEADER_BYTES,
    get_amounts,
    get_counts,
    get_number,
    get_times_and_hashes,
    open_headers,
    put_amounts,
    put_counts,
    put_header,
    put_number,
    put_times_and_hashes,
)
from services.core.profiles import ProfileLayout

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
def _unpack_terminal(raw: type_u8, at: int, size: int, own: Any) -> bool:
    """Read one profile's entries; whether it is whole."""
    count, known, _ = get_counts(raw, at)
    fixed = HEADER_BYTES + count * (AGE_BYTES + HASH_BYTES) + known * _KNOWN_BYTES
    if known > count or fixed + count > size:
        return False
    known_at = get_times_and_hashes(raw, at, own)
    for i in range(count):
        own[i]["label"] = 0
        own[i]["count"] = 0
    for _ in range(known):
        row = np.int64(get_number(raw, known_at, 2))
        if row >= count:
            return False
        own[row]["label"] = np.int32(np.uint32(get_number(raw, known_at + 2, 4)))
        own[row]["count"] = np.uint32(get_number(raw, known_at + 6, 4))
        known_at += _KNOWN_BYTES
    return get_amounts(raw, at + fixed, at + size, own)


@njit(cache=True, nogil=True)
def _unpack_terminals(raw: type_u8, size: type_i64, slot: type_i64, profiles: Any) -> type_bool:
    entries, begin, count, _, _ = profiles
    bad = open_headers(raw, size, slot, TERMINAL_LAYOUT, profiles)
    at = 0
    for k in range(len(size)):
        if size[k] and not bad[k]:
            bad[k] = not _unpack_terminal(raw, at, size[k], entries[begin[k] : begin[k] + count[k]])
        at += size[k]
    return bad


@njit(cache=True, nogil=True)
def _pack_terminals(profiles: Any, out: type_u8, stops: type_i64) -> int:
    all_entries, begin, count, _, _ = profiles
    at = 0
    for k in range(len(begin)):
        entries, header_at = all_entries[begin[k] : begin[k] + count[k]], at
        at = put_times_and_hashes(out, put_header(out, at, TERMINAL_LAYOUT, profiles, k), entries)
        known = 0
        for i in range(len(entries)):
            if entries[i]["label"] != 0 or entries[i]["count"] != 0:
                at = put_number(out, at, i, 2)
                at = put_number(out, at, entries[i]["label"], 4)
                at = put_number(out, at, entries[i]["count"], 4)
                known += 1
        put_counts(out, header_at, known, 0)
        at = put_amounts(out, at, entries)
        stops[k] = at
    return at


TERMINAL: Final = ProfileLayout(
    TERMINAL_LAYOUT, ENTRY, ENTRY_BYTES_MAX + _KNOWN_BYTES, _unpack_terminals, _pack_terminals
)
