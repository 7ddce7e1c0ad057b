"""What the scorer sees of terminals: other workers' profiles, as they stand."""

from __future__ import annotations

import numpy as np

from services.codec.writing import Nullable
from services.core.card.features import FoldedCards
from services.core.card.windows import TERMINAL_SUMMED, TERMINAL_UNKNOWN
from services.core.columns import TransactionColumns, type_bool, type_i64
from services.core.money import scales_of
from services.core.packing import NEVER_MS
from services.core.profiles import CorruptProfileError, OpenProfiles, open_profiles
from services.core.terminal.features import fill_terminal_features
from services.core.terminal.layout import TERMINAL
from services.core.terminal.windows import REACH_MS
from services.worker.processor import LookedUp


def see_terminals(columns: TransactionColumns, slot: type_i64, found: LookedUp | None, folded: FoldedCards) -> Nullable:
    """Fill the terminals' columns of the vectors, and mark what could not be seen.

    Args:
        columns: n transactions.
        slot: (n,) the terminal, of those looked up, that each belongs to.
        found: what was found of them; None where it did not come in time.
        folded: its vectors and flags are changed in place.

    Returns:
        (n,) how far the profiles of each terminal's partition were behind the transaction, in ms of event time.
    """
    n = len(columns)
    if found is None:
        folded.flags[:] |= TERMINAL_UNKNOWN
        return Nullable(np.zeros(n, np.int64), np.zeros(n, bool))
    opened, readable = _open(found)
    known = readable & (found.folded_until_ms != NEVER_MS)
    scale = scales_of(columns.currency)
    seen = np.where(known[slot], slot, -1)
    fill_terminal_features(folded.vectors, columns.event_time_ms, scale, seen, opened)
    folded.flags[~known[slot]] |= TERMINAL_UNKNOWN
    summed = known[slot] & (opened.truncated_until_ms[slot] > columns.event_time_ms - REACH_MS)
    folded.flags[summed] |= TERMINAL_SUMMED
    return Nullable(np.maximum(0, columns.event_time_ms - found.folded_until_ms[slot]), known[slot])


def _open(found: LookedUp) -> tuple[OpenProfiles, type_bool]:
    """Open what was read, and say which of it could be: damage there is found and mended by whoever folds it."""
    readable = np.ones(len(found.profiles), bool)
    blobs = list(found.profiles)
    while True:
        try:
            return open_profiles(blobs, TERMINAL), readable
        except CorruptProfileError as error:
            for row in error.rows:
                blobs[row], readable[row] = None, False
