"""Profiles: what the grid remembers about one card or terminal, and how a batch of them lies in memory.

On the wire a profile is as long as what it remembers (:mod:`services.core.packing`). A batch of profiles is *opened* into one structured
array of entries with room for what the batch may add, folded in place by the kernels of :mod:`services.core.card.windows` or
:mod:`services.core.terminal.windows`, and *sealed* back into byte strings. What an entry is differs, so each kind of profile has a
:class:`ProfileLayout`: :mod:`services.core.card.layout` and :mod:`services.core.terminal.layout`.

Bounds of a card's profile, and what happens beyond them:

- An entry older than ``KEEP_MS`` before the card's newest transaction is forgotten. That is the longest window plus the
  lateness that is folded exactly, so no feature of a transaction up to ``LATENESS_MS`` late misses anything.
- A transaction that is later than ``KEEP_MS`` is decided on but not remembered, and its decision says so.
- Where a card was is remembered of its transactions of the last ``LATENESS_MS``, and of the last one before these that has a position: no
  transaction that is folded exactly looks further back for one.
- At most ``MAX_ENTRIES`` transactions are kept. A busier card loses its oldest one, and ``truncated_until_ms`` records
  the time of the newest entry lost: a decision whose windows reach back to it says ``PROFILE_TRUNCATED``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from services.core.columns import type_bool, type_i64, type_u8
from services.core.immutable import immutable
from services.core.packing import ENTRY_BYTES_MIN, HEADER_BYTES

DAY_MS = 86_400_000
HORIZON_MS = 30 * DAY_MS
LATENESS_MS = DAY_MS
KEEP_MS = HORIZON_MS + LATENESS_MS
MAX_ENTRIES = 256

Unpack = Callable[[type_u8, type_i64, type_i64, Any], type_bool]
"""Takes the bytes of profiles one after the other, their sizes, the profile of each record to leave room for, and ``OpenProfiles.all_arrays`` to fill;
returns which are not of the layout."""
Pack = Callable[[Any, type_u8, type_i64], int]
"""Takes ``OpenProfiles.all_arrays``, room for the bytes, and where to say where each profile ends; returns where the last one does."""


@dataclass(frozen=True, slots=True)
class ProfileLayout:
    """How the entries of one kind of profile lie in its bytes."""

    version: int
    """Of the bytes and of the meaning of their fields; kept beside the applied offset, and differs between all kinds."""
    entry: np.dtype[Any]
    entry_bytes_max: int
    """What an entry takes at most, with all that belongs to it."""
    unpack: Unpack
    pack: Pack


class CorruptProfileError(Exception):
    """Stored profiles are not what this layout gives them; ``rows`` are their places among those that were to be opened."""

    def __init__(self, message: str, rows: Sequence[int]) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


@immutable
class OpenProfiles:
    """The profiles of one batch, opened for folding: row k belongs to the k-th distinct card or terminal.

    Entries of profile k, oldest first, are ``entries[begin[k] : begin[k] + count[k]]``; its room ends where that of
    profile k + 1 begins. The kernels change all arrays in place.
    """

    layout: ProfileLayout
    entries: NDArray[Any]
    begin: type_i64
    count: type_i64
    last_offset: type_i64
    truncated_until_ms: type_i64

    def __len__(self) -> int:
        return len(self.begin)

    @property
    def arrays(self) -> tuple[NDArray[Any], type_i64, type_i64, type_i64]:
        """Entries, begin, count and truncated_until_ms, as kernels take them together."""
        return self.entries, self.begin, self.count, self.truncated_until_ms

    @property
    def all_arrays(self) -> tuple[NDArray[Any], type_i64, type_i64, type_i64, type_i64]:
        """The same, and last_offset."""
        return self.entries, self.begin, self.count, self.truncated_until_ms, self.last_offset


def _refuse(bad: type_bool, message: str) -> None:
    if np.count_nonzero(bad):  # twice as quick as any()
        raise CorruptProfileError(message, np.flatnonzero(bad).tolist())


_NO_SLOTS: Final = np.empty(0, np.int64)
"""The slots of no records."""


def open_profiles(blobs: Sequence[bytes | None], layout: ProfileLayout, slot: type_i64 = _NO_SLOTS) -> OpenProfiles:
    """Open stored profiles for folding.

    Args:
        blobs: the stored bytes of each card or terminal, None for one that has no profile.
        layout: what the profiles are.
        slot: (n,) the profile that each record of the batch belongs to: room is left for all that are to be folded.

    Raises:
        CorruptProfileError: a blob is not of this layout.
    """
    present = [blob or b"" for blob in blobs]
    size = np.fromiter(map(len, present), np.int64, len(present))
    joined = np.frombuffer(b"".join(present), np.uint8)
    entries = np.empty(len(joined) // ENTRY_BYTES_MIN + len(slot), layout.entry)
    opened = OpenProfiles(layout, entries, *np.empty((4, len(present)), np.int64))
    bad = layout.unpack(joined, size, slot, opened.all_arrays)
    _refuse(bad, f"a stored profile is not of layout {layout.version}, or does not hold what its header says")
    return opened


def refuse_ahead(profiles: OpenProfiles, slot: type_i64, offset: type_i64) -> None:
    """Refuse profiles that hold a record which is still to be folded: the grid was written past its owner.

    Args:
        profiles: as they were read.
        slot: (n,) the profile that each record of a batch belongs to.
        offset: (n,) the offset of each.

    Raises:
        CorruptProfileError: there is one.
    """
    ahead = _ahead(profiles.last_offset, slot, offset)
    _refuse(ahead, "a profile is ahead of its log: the grid was written past its owner")


@njit(cache=True, nogil=True)
def _ahead(last_offset: type_i64, slot: type_i64, offset: type_i64) -> type_bool:
    ahead = np.zeros(len(last_offset), np.bool_)
    for i in range(len(slot)):
        ahead[slot[i]] |= offset[i] <= last_offset[slot[i]]
    return ahead


def seal_changed(profiles: OpenProfiles, last_offset: type_i64) -> list[bytes | None]:
    """Seal profiles; None for those into which nothing was folded since their last offsets were these."""
    sealed: list[bytes | None] = list(seal_profiles(profiles))
    for k in (profiles.last_offset == last_offset).nonzero()[0].tolist():  # only repeats and too late ones: exceptional
        sealed[k] = None
    return sealed


def seal_profiles(profiles: OpenProfiles) -> list[bytes]:
    """Return the bytes to store of each profile: the inverse of :func:`open_profiles`."""
    # There is room for no more entries than these, whatever they hold.
    bound = HEADER_BYTES * len(profiles) + profiles.layout.entry_bytes_max * len(profiles.entries)
    out, stops = np.empty(bound, np.uint8), np.empty(len(profiles), np.int64)
    total = profiles.layout.pack(profiles.all_arrays, out, stops)
    raw = out[:total].tobytes()
    return [raw[a:b] for a, b in pairwise([0, *stops.tolist()])]
