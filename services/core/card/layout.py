"""How a card's profile lies in memory and in its bytes.

In the bytes an entry says by its number at which *place* it was, a terminal and a country: cards return to the same ones. Positions, which only
the newest entries have, come in a list of their own. Places are numbered in order of first appearance, so a profile has one form only.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from services.core.columns import type_bool, type_i64, type_u8
from services.core.layouts import CARD_LAYOUT
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
from services.core.profiles import MAX_ENTRIES, ProfileLayout

ENTRY: Final = np.dtype(
    [
        ("event_time_ms", "<i8"),
        ("amount_minor", "<i8"),  # of the billing amount: one currency per card
        ("transaction_hash", "<u8"),  # within HASH_MASK
        ("terminal_hash", "<u4"),  # the low half: that two terminals of a card share it changes a count by one
        ("latitude", "<f4"),  # NaN where unknown or forgotten; single precision is a metre
        ("longitude", "<f4"),
        ("country", "<u2"),
        ("reserved", "<u2"),
    ]
)
TERMINAL_HASH_MASK: Final = np.uint64(2**32 - 1)

_PLACE_BYTES: Final = 6
"""A terminal's hash and a country: entries point at a place by a byte."""
_POSITION_BYTES: Final = 9
"""The entry and its two coordinates, of the few entries that have any."""
_KINDS: Final = 512
"""Room to find a place again: twice as many as there can be."""


@njit(cache=True, nogil=True)
def _card_size(counts: tuple[int, int, int]) -> int:
    """Return the bytes of a profile with so many entries, places and positions, without its amounts."""
    count, places, positions = counts
    return HEADER_BYTES + count * (AGE_BYTES + HASH_BYTES + 1) + places * _PLACE_BYTES + positions * _POSITION_BYTES


@njit(cache=True, nogil=True)
def _unpack_card(raw: type_u8, at: int, size: int, own: Any, scratch: Any) -> bool:
    """Read one profile's entries; whether it is whole."""
    degrees, bits = scratch
    count, places, positions = get_counts(raw, at)
    fixed = _card_size((count, places, positions))
    if count > MAX_ENTRIES or max(places, positions) > count or fixed + count > size:
        return False
    place_at = get_times_and_hashes(raw, at, own)
    places_at = place_at + count
    for i in range(count):
        place = np.int64(raw[place_at + i])
        if place >= places:
            return False
        own[i]["terminal_hash"] = np.uint32(get_number(raw, places_at + place * _PLACE_BYTES, 4))
        own[i]["country"] = np.uint16(get_number(raw, places_at + place * _PLACE_BYTES + 4, 2))
        own[i]["latitude"] = np.nan
        own[i]["longitude"] = np.nan
        own[i]["reserved"] = 0
    for j in range(positions):
        position_at = places_at + places * _PLACE_BYTES + j * _POSITION_BYTES
        if raw[position_at] >= count:
            return False
        bits[0], bits[1] = get_number(raw, position_at + 1, 4), get_number(raw, position_at + 5, 4)
        own[raw[position_at]]["latitude"] = degrees[0]
        own[raw[position_at]]["longitude"] = degrees[1]
    return get_amounts(raw, at + fixed, at + size, own)


@njit(cache=True, nogil=True)
def _unpack_cards(raw: type_u8, size: type_i64, slot: type_i64, profiles: Any) -> type_bool:
    entries, begin, count, _, _ = profiles
    bad = open_headers(raw, size, slot, CARD_LAYOUT, profiles)
    degrees = np.empty(2, np.float32)
    scratch = (degrees, degrees.view(np.uint32))
    at = 0
    for k in range(len(size)):
        if size[k] and not bad[k]:
            bad[k] = not _unpack_card(raw, at, size[k], entries[begin[k] : begin[k] + count[k]], scratch)
        at += size[k]
    return bad


@njit(cache=True, nogil=True)
def _number_places(entries: Any, k: int, table: type_i64, places: type_i64, place: type_u8) -> int:
    """Number the places of a profile's entries in order of first appearance; return how many there are."""
    found = 0
    for i in range(len(entries)):
        value = np.int64(entries[i]["terminal_hash"]) << 16 | np.int64(entries[i]["country"])
        at = entries[i]["terminal_hash"] & (_KINDS - 1)
        # A cell holds the profile that it was last used for, so that nobody has to empty it.
        while table[at] >> 8 == k and places[table[at] & 255] != value:
            at = (at + 1) & (_KINDS - 1)
        if table[at] >> 8 != k:
            table[at] = k << 8 | found
            places[found] = value
            found += 1
        place[i] = table[at] & 255
    return found


@njit(cache=True, nogil=True)
def _put_positions(out: type_u8, at: int, entries: Any, scratch: Any) -> int:
    degrees, bits = scratch
    for i in range(len(entries)):
        if not np.isnan(entries[i]["latitude"]):
            degrees[0], degrees[1] = entries[i]["latitude"], entries[i]["longitude"]
            at = put_number(out, at, i, 1)
            at = put_number(out, at, bits[0], 4)
            at = put_number(out, at, bits[1], 4)
    return at


@njit(cache=True, nogil=True)
def _pack_cards(profiles: Any, out: type_u8, stops: type_i64) -> int:
    all_entries, begin, count, _, _ = profiles
    table, places = np.full(_KINDS, -1, np.int64), np.empty(MAX_ENTRIES, np.int64)
    place, degrees = np.empty(MAX_ENTRIES, np.uint8), np.empty(2, np.float32)
    scratch = (degrees, degrees.view(np.uint32))
    at = 0
    for k in range(len(begin)):
        entries, header_at = all_entries[begin[k] : begin[k] + count[k]], at
        at = put_times_and_hashes(out, put_header(out, at, CARD_LAYOUT, profiles, k), entries)
        found = _number_places(entries, k, table, places, place)
        out[at : at + count[k]] = place[: count[k]]
        at += count[k]
        for j in range(found):
            at = put_number(out, at, places[j] >> 16, 4)
            at = put_number(out, at, places[j] & 0xFFFF, 2)
        stop = _put_positions(out, at, entries, scratch)
        put_counts(out, header_at, found, (stop - at) // _POSITION_BYTES)
        at = put_amounts(out, stop, entries)
        stops[k] = at
    return at


CARD: Final = ProfileLayout(
    CARD_LAYOUT, ENTRY, ENTRY_BYTES_MAX + 1 + _PLACE_BYTES + _POSITION_BYTES, _unpack_cards, _pack_cards
)
