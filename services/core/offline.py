"""The vectors of a whole history, by the same folds and kernels as in the workers: what training uses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from services.core.card.features import FoldedCards, fold
from services.core.card.layout import CARD
from services.core.columns import TerminalEventColumns, Text, TransactionColumns, type_f64, type_i64
from services.core.kernels import group_text
from services.core.money import scales_of
from services.core.profiles import open_profiles
from services.core.reference.features import ReferenceRows, see_reference
from services.core.terminal.features import fill_terminal_row, looking_at
from services.core.terminal.layout import TERMINAL
from services.core.terminal.windows import entries_of, fold_row, terminal_events


def compute_offline(
    columns: TransactionColumns, labels: TerminalEventColumns | None = None, reference: ReferenceRows | None = None
) -> FoldedCards:
    """Compute the vectors of a whole history, in log order, from empty profiles.

    Bit-equal to what the workers compute from the same log, as long as the terminals' log is folded in time: then a label
    that becomes known between two transactions counts for the second and not for the first.

    Args:
        columns: n transactions in the order of their log.
        labels: what became known of them, in any order; without it no terminal has a history, and its columns are NaN.
        reference: what was known of accounts and customers, the same for the whole history; without it their columns are NaN.
    """
    slot, first = group_text(columns.card_id, np.zeros(len(columns), np.int64))
    profiles = open_profiles([None] * len(first), CARD, slot)
    folded = fold(columns, slot, np.arange(len(columns)), np.ones(len(columns), bool), profiles)
    if labels is not None:
        see_terminals(columns, labels, np.maximum.accumulate(columns.event_time_ms), folded.vectors)
    if reference is not None and len(columns):
        see_reference(columns, reference, folded.vectors)
    return folded


def see_terminals(
    columns: TransactionColumns, labels: TerminalEventColumns, clock_ms: type_i64, vectors: type_f64
) -> None:
    """Fill in what is known of terminals when each transaction comes.

    Args:
        columns: n transactions in the order of their log: all that there are of these terminals.
        labels: what became known of them, in any order.
        clock_ms: (n,) the latest event time of the whole log up to each, those of other terminals included: a label is folded before the first
            transaction whose clock is not before it.
        vectors: (n, features); their columns of terminals are written.
    """
    n = len(columns)
    if not n:
        return
    events = np.concatenate([entries_of(terminal_events(columns)), entries_of(labels)])
    at = np.concatenate([np.arange(n), np.searchsorted(clock_ms, labels.known_at_ms)])
    order = np.lexsort((np.arange(n + len(labels)) < n, at))
    terminals = Text.joined([columns.terminal_id, labels.terminal_id])
    slot, first = group_text(terminals, np.zeros(len(terminals), np.int64))
    profiles = open_profiles([None] * len(first), TERMINAL, slot)
    scale = scales_of(columns.currency)
    times_ms = np.concatenate([columns.event_time_ms, labels.known_at_ms])
    _fold_all((order, slot, events, times_ms), scale, profiles.arrays, vectors)


@njit(cache=True, nogil=True)
def _fold_all(log: Any, scale: type_f64, profiles: Any, vectors: type_f64) -> None:
    order, slot, events, times_ms = log
    looking = looking_at(profiles)
    for i in order:
        if i < len(vectors):
            fill_terminal_row(looking, slot[i], times_ms[i], scale[i], vectors[i])
        fold_row(profiles, slot[i], events[i])
