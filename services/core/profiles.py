"""Profiles: what the grid remembers about one card or terminal, and how a batch of them lies in memory.

On the wire a profile is a fixed header and then its entries, oldest first, so it is as long as what it remembers. A
batch of profiles is *opened* into one structured array of entries with room for what the batch may add, folded in
place by the kernels of :mod:`services.core.windows` or :mod:`services.core.terminals`, and *sealed* back into byte strings.
What an entry is differs, so each kind of profile has a :class:`ProfileLayout`.

Bounds of a card's profile, and what happens beyond them:

- An entry older than ``KEEP_MS`` before the card's newest transaction is forgotten. That is the longest window plus the
  lateness that is folded exactly, so no feature of a transaction up to ``LATENESS_MS`` late misses anything.
- A transaction that is later than ``KEEP_MS`` is decided on but not remembered, and its decision says so.
- At most ``MAX_ENTRIES`` transactions are kept. A busier card loses its oldest one, and ``truncated_until_ms`` records
  the time of the newest entry lost: a decision whose windows reach back to it says ``PROFILE_TRUNCATED``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from services.core.columns import type_bool, type_i64, type_u8

DAY_MS = 86_400_000
HORIZON_MS = 30 * DAY_MS
LATENESS_MS = DAY_MS
KEEP_MS = HORIZON_MS + LATENESS_MS
MAX_ENTRIES = 256
NEVER_MS = -(2**62)
"""The ``truncated_until_ms`` of a profile that has lost nothing."""

HEADER = np.dtype(
    [
        ("layout", "<u2"),
        ("reserved", "<u2"),
        ("count", "<u4"),
        ("last_offset", "<i8"),  # of the last record folded into this profile: finds a fold on a wrong base
        ("truncated_until_ms", "<i8"),
    ]
)
ENTRY = np.dtype(
    [
        ("event_time_ms", "<i8"),
        ("amount_minor", "<i8"),  # of the billing amount: one currency per card
        ("transaction_hash", "<u8"),
        ("terminal_hash", "<u8"),
        ("latitude", "<f4"),  # NaN where unknown; single precision is a metre
        ("longitude", "<f4"),
        ("country", "<u2"),
        ("entry_mode", "u1"),
        ("reserved", "u1"),
    ]
)
HEADER_BYTES = HEADER.itemsize


@dataclass(frozen=True, slots=True)
class ProfileLayout:
    """How the entries of one kind of profile lie in its bytes."""

    version: int
    """Of the bytes and of the meaning of their fields; kept beside the applied offset, and differs between all kinds."""
    entry: np.dtype[Any]


CARD = ProfileLayout(1, ENTRY)


class CorruptProfileError(Exception):
    """Stored profiles are not what this layout gives them; ``rows`` are their places among those that were to be opened."""

    def __init__(self, message: str, rows: Sequence[int]) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


@dataclass(frozen=True, slots=True)
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


@njit(cache=True, nogil=True)
def _copy_entries(source: type_u8, source_at: type_i64, target: type_u8, target_at: type_i64, size: type_i64) -> None:
    for k in range(len(size)):
        a, b = source_at[k], target_at[k]
        target[b : b + size[k]] = source[a : a + size[k]]


def _refuse(bad: type_bool, message: str) -> None:
    if bad.any():
        raise CorruptProfileError(message, np.flatnonzero(bad).tolist())


def open_profiles(blobs: list[bytes | None], additions: type_i64, layout: ProfileLayout = CARD) -> OpenProfiles:
    """Open stored profiles for folding.

    Args:
        blobs: the stored bytes of each card or terminal, None for one that has no profile.
        additions: (k,) how many records of the batch belong to each: the room to leave.
        layout: what the profiles are.

    Raises:
        CorruptProfileError: a blob is not of this layout.
    """
    entry_bytes = layout.entry.itemsize
    size = np.fromiter((0 if blob is None else len(blob) for blob in blobs), np.int64, len(blobs))
    known = size > 0
    _refuse(
        known & ((size < HEADER_BYTES) | ((size - HEADER_BYTES) % entry_bytes != 0)),
        "the length of a stored profile is not that of a header and whole entries",
    )
    joined = np.frombuffer(b"".join([blob for blob in blobs if blob is not None]), np.uint8)
    blob_at = np.cumsum(size) - size
    header = np.zeros(len(blobs), HEADER)
    header["truncated_until_ms"] = NEVER_MS
    header["last_offset"] = -1
    positions = blob_at[known, None] + np.arange(HEADER_BYTES)
    header[known] = joined[positions].reshape(-1).view(HEADER) if known.any() else header[known]
    count = np.where(known, (size - HEADER_BYTES) // entry_bytes, 0)
    _refuse(
        known & ((header["layout"] != layout.version) | (header["count"] != count)),
        f"a stored profile is not of layout {layout.version}, or does not hold what its header says",
    )
    room = count + additions
    begin = np.cumsum(room) - room
    entries = np.empty(int(room.sum()), layout.entry)
    _copy_entries(joined, blob_at + HEADER_BYTES, entries.view(np.uint8), begin * entry_bytes, count * entry_bytes)
    return OpenProfiles(
        layout,
        entries,
        begin,
        count,
        header["last_offset"].astype(np.int64),
        header["truncated_until_ms"].astype(np.int64),
    )


def refuse_ahead(profiles: OpenProfiles, slot: type_i64, offset: type_i64) -> None:
    """Refuse profiles that hold a record which is still to be folded: the grid was written past its owner.

    Args:
        profiles: as they were read.
        slot: (n,) the profile that each record of a batch belongs to.
        offset: (n,) the offset of each.

    Raises:
        CorruptProfileError: there is one.
    """
    first = np.full(len(profiles), 2**62, np.int64)
    np.minimum.at(first, slot, offset)
    _refuse(profiles.last_offset >= first, "a profile is ahead of its log: the grid was written past its owner")


def seal_changed(profiles: OpenProfiles, last_offset: type_i64) -> list[bytes | None]:
    """Seal profiles; None for those into which nothing was folded since their last offsets were these."""
    sealed: list[bytes | None] = list(seal_profiles(profiles))
    for k in np.flatnonzero(profiles.last_offset == last_offset):  # only repeats and too late ones: exceptional
        sealed[k] = None
    return sealed


def seal_profiles(profiles: OpenProfiles) -> list[bytes]:
    """Return the bytes to store of each profile: the inverse of :func:`open_profiles`."""
    entry_bytes = profiles.layout.entry.itemsize
    size = HEADER_BYTES + profiles.count * entry_bytes
    at = np.cumsum(size) - size
    header = np.zeros(len(profiles), HEADER)
    header["layout"] = profiles.layout.version
    header["count"] = profiles.count
    header["last_offset"] = profiles.last_offset
    header["truncated_until_ms"] = profiles.truncated_until_ms
    out = np.empty(int(size.sum()), np.uint8)
    out[at[:, None] + np.arange(HEADER_BYTES)] = header.view(np.uint8).reshape(-1, HEADER_BYTES)
    _copy_entries(
        profiles.entries.view(np.uint8),
        profiles.begin * entry_bytes,
        out,
        at + HEADER_BYTES,
        profiles.count * entry_bytes,
    )
    raw = out.tobytes()
    return [raw[a : a + b] for a, b in zip(at.tolist(), size.tolist(), strict=True)]
