"""Terminal profiles: what is remembered of one terminal, and the statistics of its windows, as numba kernels.

A terminal's log holds transactions and, days later, labels. An entry is a transaction with what is known of it; a label
finds its transaction by the hash of its id, whichever of the two came first. Windows end ``DELAY_MS`` before the
transaction at hand, because the truth takes that long: a window of ``w`` at event time ``t`` holds the entries with
event time in ``(t - DELAY_MS - w, t - DELAY_MS]``, of all cards. A fraud counts once it is known at ``t``.

Bounds, and what happens beyond them:

- An entry older than ``TERMINAL_KEEP_MS`` before the terminal's newest is forgotten. Features look back ``REACH_MS``; the
  rest is room for readers that lag behind the terminal's own log.
- At most ``MAX_ROWS`` are kept. A busier terminal's oldest entries are summed up in buckets of ``BUCKET_MS``, which count
  as if everything in them had happened when they begin; ``truncated_until_ms`` is the time of the newest entry in a bucket.
  A label for such a transaction is kept as an entry of its own, and counts as a fraud of a transaction that is counted.

Source of the windows: Le Borgne, Siblini, Lebichot, Bontempi, *Reproducible Machine Learning for Credit Card Fraud
Detection - Practical Handbook* (2022), chapter 3.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from services.core.columns import TerminalEventColumns, TransactionColumns, type_bool, type_i64
from services.core.kernels import hash_uuids
from services.core.packing import HASH_MASK, NEVER_MS
from services.core.profiles import DAY_MS, OpenProfiles
from services.core.terminal.layout import ENTRY

DELAY_MS: Final = 7 * DAY_MS
"""How long the truth takes."""
LONGEST_WINDOW_MS: Final = 30 * DAY_MS
REACH_MS: Final = DELAY_MS + LONGEST_WINDOW_MS
TERMINAL_KEEP_MS: Final = 45 * DAY_MS
BUCKET_MS: Final = 6 * 3_600_000
MAX_ROWS: Final = 448
"""Entries and buckets; of buckets there are at most 181, so at least 267 entries are kept as they are."""

BUCKET: Final = np.uint64(0)
ABSENT: Final = np.int64(-1)
UNKNOWN: Final = 0
"""The label of a transaction of which nothing is known."""
_LABEL_S_MAX: Final = 2**31 - 1

TERMINAL_COUNT, TERMINAL_TOTAL, TERMINAL_FRAUDS = range(3)
"""Columns of the statistics of one window, float64."""
TERMINAL_STATISTICS: Final = 3
FIRST_FRAUD, LAST_FRAUD, LAST_GENUINE = range(3)
"""Columns of the ages in ms of what is known within ``REACH_MS``; NaN where there is none. A transaction that nobody called
a fraud counts as genuine when it is ``DELAY_MS`` old."""

REPEATED, TERMINAL_TOO_LATE, BUCKETED = 1, 2, 4
"""Flags of one fold. REPEATED: it was there already. TERMINAL_TOO_LATE: not remembered. BUCKETED: the profile holds buckets."""


def pack_labels(event_time_ms: type_i64, known_at_ms: type_i64, is_fraud: type_bool) -> type_i64:
    """Return labels as an entry keeps them.

    That is: seconds from the transaction until it was known, rounded up, at least 1; negative for a genuine one.
    """
    seconds = np.clip(-((event_time_ms - known_at_ms) // 1000), 1, _LABEL_S_MAX)
    return np.where(is_fraud, seconds, -seconds)


def terminal_events(columns: TransactionColumns) -> TerminalEventColumns:
    """Return transactions as what their terminals' profiles are folded from."""
    n = len(columns)
    return TerminalEventColumns(
        is_label=np.zeros(n, bool),
        transaction_id=columns.transaction_id,
        terminal_id=columns.terminal_id,
        event_time_ms=columns.event_time_ms,
        amount_minor=columns.amount_minor,
        is_fraud=np.zeros(n, bool),
        known_at_ms=np.zeros(n, np.int64),
    )


def label_events(
    columns: TransactionColumns, rows: type_i64, is_fraud: type_bool, known_at_ms: type_i64
) -> TerminalEventColumns:
    """Return labels of the given rows of transactions: what became known of each, and when."""
    return TerminalEventColumns(
        is_label=np.ones(len(rows), bool),
        transaction_id=columns.transaction_id[rows],
        terminal_id=columns.terminal_id.take(rows),
        event_time_ms=columns.event_time_ms[rows],
        amount_minor=np.zeros(len(rows), np.int64),
        is_fraud=is_fraud,
        known_at_ms=known_at_ms,
    )


def fraud_labels(columns: TransactionColumns, fraud: type_bool) -> TerminalEventColumns:
    """Return a label of each fraud, known a day after it: features look at it a week after it at the earliest."""
    rows = np.flatnonzero(fraud)
    return label_events(columns, rows, np.ones(len(rows), bool), columns.event_time_ms[rows] + DAY_MS)


def entries_of(columns: TerminalEventColumns) -> np.ndarray:
    """Return transactions and labels as what :func:`fold_terminals` folds, shape (n,)."""
    rows = np.zeros(len(columns), ENTRY)
    rows["event_time_ms"] = columns.event_time_ms
    hashes = hash_uuids(columns.transaction_id) & HASH_MASK
    rows["transaction_hash"] = np.where(hashes == BUCKET, np.uint64(1), hashes)
    rows["amount_minor"] = np.where(columns.is_label, ABSENT, columns.amount_minor)
    labels = pack_labels(columns.event_time_ms, columns.known_at_ms, columns.is_fraud)
    rows["label"] = np.where(columns.is_label, labels, UNKNOWN)
    return rows


@njit(cache=True, nogil=True)
def _find(entries: Any, begin: int, stop: int, transaction_hash: np.uint64) -> int:
    for at in range(stop - 1, begin - 1, -1):
        if entries[at]["transaction_hash"] == transaction_hash:
            return at
    return -1


@njit(cache=True, nogil=True)
def _put_oldest_into_bucket(profiles: Any, k: int) -> None:
    """Sum the oldest entry up in the bucket before it, or turn it into one."""
    entries, begin, count, truncated_until_ms = profiles
    at = begin[k]
    while entries[at]["transaction_hash"] == BUCKET:
        at += 1
    time_ms, amount = entries[at]["event_time_ms"], entries[at]["amount_minor"]
    frauds = 1 if entries[at]["label"] > 0 else 0
    there = amount != ABSENT
    truncated_until_ms[k] = max(truncated_until_ms[k], time_ms)
    bucket_ms = time_ms // BUCKET_MS * BUCKET_MS
    if at > begin[k] and entries[at - 1]["event_time_ms"] == bucket_ms:
        into = at - 1
        entries[into]["label"] += frauds
        if there:
            entries[into]["count"] += 1
            entries[into]["amount_minor"] += amount
        for i in range(at, begin[k], -1):
            entries[i] = entries[i - 1]
        begin[k] += 1
        count[k] -= 1
        return
    entries[at]["event_time_ms"] = bucket_ms
    entries[at]["transaction_hash"] = BUCKET
    entries[at]["amount_minor"] = amount if there else 0
    entries[at]["label"] = frauds
    entries[at]["count"] = 1 if there else 0


@njit(cache=True, nogil=True)
def fold_row(profiles: Any, k: int, new: Any) -> int:
    """Fold one transaction, or one label (its amount is ABSENT), into profile k; return the flags."""
    entries, begin, count, truncated_until_ms = profiles
    stop = begin[k] + count[k]
    flags = BUCKETED if truncated_until_ms[k] != NEVER_MS else 0
    if count[k] and entries[stop - 1]["event_time_ms"] - new["event_time_ms"] >= TERMINAL_KEEP_MS:
        return flags | TERMINAL_TOO_LATE
    at = _find(entries, begin[k], stop, new["transaction_hash"])
    if at >= 0:
        if new["amount_minor"] == ABSENT:
            entries[at]["label"] = new["label"]  # the last word counts
        elif entries[at]["amount_minor"] == ABSENT:
            entries[at]["amount_minor"] = new["amount_minor"]
        else:
            return flags | REPEATED
        return flags
    at = stop
    while at > begin[k] and entries[at - 1]["event_time_ms"] > new["event_time_ms"]:
        entries[at] = entries[at - 1]
        at -= 1
    entries[at] = new
    count[k] += 1
    oldest_kept_ms = entries[stop]["event_time_ms"] - TERMINAL_KEEP_MS
    while entries[begin[k]]["event_time_ms"] <= oldest_kept_ms:
        begin[k] += 1
        count[k] -= 1
    while count[k] > MAX_ROWS:
        _put_oldest_into_bucket(profiles, k)
        flags |= BUCKETED
    if truncated_until_ms[k] <= oldest_kept_ms:
        truncated_until_ms[k] = NEVER_MS
    return flags


@njit(cache=True, nogil=True)
def _fold_rows(rows: Any, slot: type_i64, profiles: Any) -> type_i64:
    flags = np.zeros(len(rows), np.int64)
    for i in range(len(rows)):
        flags[i] = fold_row(profiles, slot[i], rows[i])
    return flags


def fold_terminals(rows: np.ndarray, slot: type_i64, offset: type_i64, profiles: OpenProfiles) -> type_i64:
    """Fold a batch of a terminal log into its profiles, in order.

    Args:
        rows: (n,) of ``ENTRY``: transactions, and labels with ABSENT for the amount; ``count`` is 0.
        slot: (n,) the row of ``profiles`` that belongs to each.
        offset: (n,) the Kafka offset of each.
        profiles: changed in place.

    Returns:
        (n,) the flags of each.
    """
    flags = _fold_rows(rows, slot, profiles.arrays)
    folded = (flags & (REPEATED | TERMINAL_TOO_LATE)) == 0
    profiles.last_offset[slot[folded]] = offset[folded]  # ascending, so the last one stays
    return flags


@njit(cache=True, nogil=True)
def terminal_statistics(profiles: Any, k: int, event_time_ms: int, windows_ms: type_i64, room: Any) -> None:
    """Fill ``room``, which is statistics (windows, TERMINAL_STATISTICS) and ages in ms (3,), from profile k at an event time.

    ``windows_ms`` ascends and its last is the furthest that is looked back.
    """
    statistics, ages_ms = room
    entries, begin, count, truncated_until_ms = profiles
    first = begin[k]
    ages_ms[:] = np.nan
    counted, total, defrauded = np.int64(0), np.int64(0), np.int64(0)
    w = 0
    at = first + count[k] - 1
    while at >= first and entries[at]["event_time_ms"] > event_time_ms - DELAY_MS:
        at -= 1
    while w < len(windows_ms):
        back_ms = event_time_ms - DELAY_MS - entries[at]["event_time_ms"] if at >= first else np.int64(2**62)
        while w < len(windows_ms) and back_ms >= windows_ms[w]:
            statistics[w, TERMINAL_COUNT], statistics[w, TERMINAL_TOTAL] = counted, total
            statistics[w, TERMINAL_FRAUDS] = defrauded
            w += 1
        if w == len(windows_ms):
            return
        age_ms = np.float64(back_ms + DELAY_MS)
        label, amount, transactions = entries[at]["label"], entries[at]["amount_minor"], np.int64(entries[at]["count"])
        if entries[at]["transaction_hash"] == BUCKET:
            frauds = np.int64(label)
        else:
            frauds = np.int64(1) if label > 0 and age_ms >= 1000.0 * label else np.int64(0)
            if amount == ABSENT:
                amount = np.int64(0)
                # Its transaction is counted in a bucket, or has not come.
                frauds = frauds if entries[at]["event_time_ms"] <= truncated_until_ms[k] else np.int64(0)
            else:
                transactions = np.int64(1)
        total += amount
        counted += transactions
        defrauded += frauds
        if frauds > 0:
            ages_ms[FIRST_FRAUD] = age_ms
            if np.isnan(ages_ms[LAST_FRAUD]):
                ages_ms[LAST_FRAUD] = age_ms
        if transactions > frauds and np.isnan(ages_ms[LAST_GENUINE]):
            ages_ms[LAST_GENUINE] = age_ms
        at -= 1
