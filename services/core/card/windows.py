"""The fold of one card's profile and the statistics of its windows, as numba kernels.

A window of ``w`` milliseconds at a transaction of event time ``t`` holds the remembered transactions of the card with
event time in ``(t - w, t]`` that came before it on the log: the lower bound is excluded, a transaction of the same
millisecond counts when it came earlier and not when it comes later. The transaction at hand is never among them, nor
is an earlier copy of it. Sums are of integer minor units, so they are exact whatever the order.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from services.core.columns import type_f64, type_i64
from services.core.packing import NEVER_MS
from services.core.profiles import HORIZON_MS, KEEP_MS, LATENESS_MS, MAX_ENTRIES

COUNT, TOTAL, SQUARES, LARGEST, SAME_TERMINAL, TERMINALS, COUNTRIES = range(7)
"""Columns of the statistics of one window, float64. TOTAL is exact below 2**53 minor units."""
STATISTICS = 7
_SAME_TERMINAL, _SAME_COUNTRY = 1, 2

LAST_SECONDS, LAST_KM, LAST_SECONDS_POSITION = range(3)
"""Columns of what is known of the transaction before: NaN where there is none."""

REPEAT, LATE, TRUNCATED, TOO_LATE = 1, 2, 4, 8
"""Flags of one fold. REPEAT: the transaction is in the profile already. LATE: more than the folded lateness behind the
card's newest, so windows may miss what was forgotten. TRUNCATED: a window reaches back to entries lost to
``MAX_ENTRIES``. TOO_LATE: so late that it was not remembered."""

TERMINAL_UNKNOWN, TERMINAL_SUMMED, REFERENCE_MISSED = 16, 32, 64
"""Flags of what was read of others. TERMINAL_UNKNOWN: the terminal's profile could not be read, or nobody folds them.
TERMINAL_SUMMED: a window of the terminal reaches back to what is only kept as sums. REFERENCE_MISSED: account and customer
could not be read in time."""

PROFILE_MISSED, MODEL_MISSED = 128, 256
"""Flags of what a decision had to do without. PROFILE_MISSED: the card's own profile was not read. MODEL_MISSED: the released model, or
all of it but its small booster, could not be used."""

WRONG_PARTITION, REFERENCE_UNKNOWN = 512, 1024
"""WRONG_PARTITION: the transaction lies in another partition than its card's others, so what they say of the card was not seen.
REFERENCE_UNKNOWN: nothing is known of the account or the customer, although others of its partition were announced."""

DEGRADATIONS = {
    "LATE": LATE,
    "PROFILE_TRUNCATED": TRUNCATED,
    "NOT_REMEMBERED": TOO_LATE,
    "TERMINAL_UNKNOWN": TERMINAL_UNKNOWN,
    "TERMINAL_SUMMED": TERMINAL_SUMMED,
    "REFERENCE_MISSED": REFERENCE_MISSED,
    "PROFILE_MISSED": PROFILE_MISSED,
    "MODEL_MISSED": MODEL_MISSED,
    "WRONG_PARTITION": WRONG_PARTITION,
    "REFERENCE_UNKNOWN": REFERENCE_UNKNOWN,
}
"""What a decision may not have seen, in the order of the Avro enum, with its flag."""

EARTH_RADIUS_KM = 6371.0088


@njit(cache=True, nogil=True)
def distance_km(latitude_a: float, longitude_a: float, latitude_b: float, longitude_b: float) -> float:
    """Return the great-circle distance of two positions in degrees (haversine, mean radius of IUGG)."""
    a, b = np.radians(latitude_a), np.radians(latitude_b)
    dlat, dlon = b - a, np.radians(longitude_b - longitude_a)
    h = np.sin(dlat / 2) ** 2 + np.cos(a) * np.cos(b) * np.sin(dlon / 2) ** 2
    return 2.0 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(min(1.0, h)))


@njit(cache=True, nogil=True)
def _seen_since(entries, i, newest, transaction_hash):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return what of entry i comes again between i (excluded) and newest (included), the copy of the same transaction aside."""
    seen = 0
    for j in range(i + 1, newest + 1):
        if entries[j]["transaction_hash"] != transaction_hash:
            if entries[j]["terminal_hash"] == entries[i]["terminal_hash"]:
                seen |= _SAME_TERMINAL
            if entries[j]["country"] == entries[i]["country"]:
                seen |= _SAME_COUNTRY
    return seen


@njit(cache=True, nogil=True)
def window_statistics(  # type: ignore[no-untyped-def]
    entries,  # noqa: ANN001
    event_time_ms: int,
    transaction_hash: np.uint64,
    terminal_hash: np.uint64,
    windows_ms: type_i64,
    distinct_horizon_ms: int,
    statistics: type_f64,
) -> int:
    """Fill ``statistics`` (windows, STATISTICS) for a transaction against a card's entries, oldest first.

    ``windows_ms`` ascends. Distinct terminals and countries are counted back to ``distinct_horizon_ms`` only, since
    that costs a scan an entry. Returns the index of the newest entry that is not after the transaction, or -1.
    """
    newest = len(entries) - 1
    while newest >= 0 and entries[newest]["event_time_ms"] > event_time_ms:
        newest -= 1
    count, total, squares, largest = 0, np.int64(0), 0.0, -1.0
    same_terminal, terminals, countries = 0, 0, 0
    w = 0
    i = newest
    while True:
        age = event_time_ms - entries[i]["event_time_ms"] if i >= 0 else np.int64(2**62)
        while w < len(windows_ms) and age >= windows_ms[w]:
            statistics[w, COUNT], statistics[w, TOTAL] = count, total
            statistics[w, SQUARES], statistics[w, LARGEST] = squares, largest
            statistics[w, SAME_TERMINAL] = same_terminal
            statistics[w, TERMINALS], statistics[w, COUNTRIES] = terminals, countries
            w += 1
        if w == len(windows_ms):
            break
        if entries[i]["transaction_hash"] != transaction_hash:
            amount = entries[i]["amount_minor"]
            count += 1
            total += amount
            squares += np.float64(amount) * np.float64(amount)
            largest = max(largest, np.float64(amount))
            same_terminal += entries[i]["terminal_hash"] == terminal_hash
            if age < distinct_horizon_ms:
                seen = _seen_since(entries, i, newest, transaction_hash)
                terminals += not seen & _SAME_TERMINAL
                countries += not seen & _SAME_COUNTRY
        i -= 1
    return newest


@njit(cache=True, nogil=True)
def median_amount(  # type: ignore[no-untyped-def]
    entries,  # noqa: ANN001
    event_time_ms: int,
    transaction_hash: np.uint64,
    amounts: type_f64,
) -> float:
    """Return the median of the amounts of the last entries, as many as ``amounts`` has room for.

    NaN where there are none within the horizon. ``amounts`` is scratch space: it ends sorted as far as it was used.
    """
    count = 0
    for i in range(len(entries) - 1, -1, -1):
        if count == len(amounts) or event_time_ms - entries[i]["event_time_ms"] >= HORIZON_MS:
            break
        if entries[i]["transaction_hash"] == transaction_hash:
            continue
        amount = np.float64(entries[i]["amount_minor"])
        at = count
        while at > 0 and amounts[at - 1] > amount:  # so few that sorting them in goes as fast as selecting
            amounts[at] = amounts[at - 1]
            at -= 1
        amounts[at] = amount
        count += 1
    if count == 0:
        return np.nan
    return (amounts[(count - 1) // 2] + amounts[count // 2]) / 2.0


@njit(cache=True, nogil=True)
def amounts_above(  # type: ignore[no-untyped-def]
    entries,  # noqa: ANN001
    event_time_ms: int,
    transaction_hash: np.uint64,
    window_ms: int,
    amount: float,
) -> float:
    """Return how many entries of a window that ends at their last one have more than an amount; none has more than NaN."""
    count = 0.0
    for i in range(len(entries) - 1, -1, -1):
        if event_time_ms - entries[i]["event_time_ms"] >= window_ms:
            break
        if entries[i]["transaction_hash"] != transaction_hash and entries[i]["amount_minor"] > amount:
            count += 1.0
    return count


@njit(cache=True, nogil=True)
def last_seen(  # type: ignore[no-untyped-def]
    entries,  # noqa: ANN001
    newest: int,
    event_time_ms: int,
    transaction_hash: np.uint64,
    latitude: float,
    longitude: float,
    last: type_f64,
) -> None:
    """Fill ``last`` (3,): seconds since the last transaction, kilometres and seconds since the last known position."""
    last[:] = np.nan
    for i in range(newest, -1, -1):
        if entries[i]["transaction_hash"] == transaction_hash:
            continue
        seconds = (event_time_ms - entries[i]["event_time_ms"]) / 1000.0
        if seconds * 1000.0 >= HORIZON_MS:
            return
        if np.isnan(last[LAST_SECONDS]):
            last[LAST_SECONDS] = seconds
        if np.isnan(latitude):
            return
        if not np.isnan(entries[i]["latitude"]):
            last[LAST_KM] = distance_km(
                np.float64(entries[i]["latitude"]), np.float64(entries[i]["longitude"]), latitude, longitude
            )
            last[LAST_SECONDS_POSITION] = seconds
            return


@njit(cache=True, nogil=True)
def fold_flags(entries, truncated_until_ms: int, event_time_ms: int, transaction_hash: np.uint64) -> int:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the flags of a transaction against the profile as it is before the transaction is folded."""
    flags = 0
    for i in range(len(entries)):
        if entries[i]["transaction_hash"] == transaction_hash:
            flags |= REPEAT
            break
    if len(entries) > 0:
        behind_ms = entries[len(entries) - 1]["event_time_ms"] - event_time_ms
        if behind_ms > LATENESS_MS:
            flags |= LATE
        if behind_ms >= KEEP_MS and not flags & REPEAT:
            flags |= TOO_LATE
    if truncated_until_ms > event_time_ms - HORIZON_MS:
        flags |= TRUNCATED
    return flags


@njit(cache=True, nogil=True)
def insert_entry(entries, begin: type_i64, count: type_i64, truncated_until_ms: type_i64, k: int, entry) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Fold ``entry`` into profile ``k``: keep the order of event time, then forget what is beyond the bounds.

    An entry goes behind those of the same millisecond, so equal times keep the order of the log.
    """
    at = begin[k] + count[k]
    while at > begin[k] and entries[at - 1]["event_time_ms"] > entry["event_time_ms"]:
        entries[at] = entries[at - 1]
        at -= 1
    entries[at] = entry
    count[k] += 1
    oldest_kept_ms = entries[begin[k] + count[k] - 1]["event_time_ms"] - KEEP_MS
    while entries[begin[k]]["event_time_ms"] <= oldest_kept_ms:
        begin[k] += 1
        count[k] -= 1
    if count[k] > MAX_ENTRIES:
        truncated_until_ms[k] = max(truncated_until_ms[k], entries[begin[k]]["event_time_ms"])
        begin[k] += 1
        count[k] -= 1
    if truncated_until_ms[k] <= oldest_kept_ms:
        truncated_until_ms[k] = NEVER_MS
    _forget_positions(entries, begin[k], begin[k] + count[k])


@njit(cache=True, nogil=True)
def _forget_positions(entries, begin: int, stop: int) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Forget the positions that nothing folded exactly looks back to: a newer one is old enough to be found by all."""
    needed_ms = entries[stop - 1]["event_time_ms"] - LATENESS_MS
    found = False
    for i in range(stop - 1, begin - 1, -1):
        if entries[i]["event_time_ms"] < needed_ms and not np.isnan(entries[i]["latitude"]):
            if found:
                entries[i]["latitude"] = np.nan
                entries[i]["longitude"] = np.nan
            found = True
