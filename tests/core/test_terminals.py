"""Terminals' profiles against their slow twin, and what happens beyond their bounds."""

from __future__ import annotations

import numpy as np
import pytest

from services.core.columns import TerminalEventColumns, Text
from services.core.features import FEATURES
from services.core.kernels import group_text
from services.core.packing import NEVER_MS
from services.core.profiles import DAY_MS, OpenProfiles, open_profiles, seal_profiles
from services.core.terminal.features import TERMINAL_COLUMNS, fill_terminal_features
from services.core.terminal.layout import TERMINAL
from services.core.terminal.windows import (
    BUCKET,
    BUCKET_MS,
    BUCKETED,
    MAX_ROWS,
    REPEATED,
    TERMINAL_KEEP_MS,
    TERMINAL_TOO_LATE,
    entries_of,
    fold_terminals,
)  # fmt: skip
from tests.naive import NaiveTerminal

BEGIN_MS = 1_767_225_600_000
Happening = tuple[str, int, int, int, int, bool, int]
"""kind, terminal, transaction, event time, amount, is_fraud, known at."""


def happenings(seed: int, count: int, *, terminals: int = 3, days: int = 60) -> list[Happening]:
    """Transactions and labels in some order of arrival: late, repeated, corrected, a label before its transaction."""
    rng = np.random.default_rng(seed)
    found: list[tuple[float, Happening]] = []
    for i in range(count):
        terminal, at_ms = int(rng.integers(terminals)), BEGIN_MS + int(rng.integers(days * DAY_MS // 1000)) * 1000
        late_ms = int(rng.choice([0, 0, 0, 3_600_000, 2 * DAY_MS]))
        transaction: Happening = ("t", terminal, i, at_ms, int(rng.integers(1, 50_000)), False, 0)
        found += [(at_ms + late_ms, transaction)] * int(rng.choice([1, 1, 1, 2]))
        for _ in range(int(rng.choice([0, 0, 1, 2]))):
            known_ms = at_ms + int(rng.integers(1, 20 * DAY_MS // 1000)) * 1000
            arrives = known_ms if rng.random() < 0.9 else at_ms - 5_000
            found.append((arrives, ("l", terminal, i, at_ms, 0, bool(rng.random() < 0.7), known_ms)))
    return [happening for _, happening in sorted(found, key=lambda pair: pair[0])]


def to_columns(events: list[Happening]) -> TerminalEventColumns:
    return TerminalEventColumns(
        is_label=np.array([e[0] == "l" for e in events], bool),
        transaction_id=np.array([list(e[2].to_bytes(16, "big")) for e in events], np.uint8).reshape(-1, 16),
        terminal_id=Text.of([b"terminal-%d" % e[1] for e in events]),
        event_time_ms=np.array([e[3] for e in events], np.int64),
        amount_minor=np.array([e[4] for e in events], np.int64),
        is_fraud=np.array([e[5] for e in events], bool),
        known_at_ms=np.array([e[6] for e in events], np.int64),
    )


class Folder:
    """Folds batches and keeps the stored bytes, as the profiler and the grid do."""

    def __init__(self) -> None:
        self.stored: dict[bytes, bytes] = {}
        self.offset = 0

    def fold(self, events: list[Happening]) -> np.ndarray:
        columns = to_columns(events)
        slot, first = group_text(columns.terminal_id, np.zeros(len(columns), np.int64))
        names = columns.terminal_id.take(first).tolist()
        opened = open_profiles([self.stored.get(n) for n in names], TERMINAL, slot)
        flags = fold_terminals(entries_of(columns), slot, self.offset + np.arange(len(columns)), opened)
        self.offset += len(columns)
        self.stored |= dict(zip(names, seal_profiles(opened), strict=True))
        return flags

    def opened(self, terminal: int) -> OpenProfiles:
        return open_profiles([self.stored.get(b"terminal-%d" % terminal)], TERMINAL)

    def features(self, terminal: int, at_ms: int) -> list[float]:
        vectors = np.full((1, len(FEATURES)), np.nan)
        fill_terminal_features(
            vectors, np.array([at_ms]), np.array([100.0]), np.zeros(1, np.int64), self.opened(terminal)
        )  # fmt: skip
        return vectors[0, TERMINAL_COLUMNS].tolist()


@pytest.mark.parametrize("seed", range(8))
def test_features_are_those_of_the_twin_whatever_the_batches(seed: int):
    rng, events = np.random.default_rng(100 + seed), happenings(seed, 120)
    folder, twins, newest = Folder(), [NaiveTerminal() for _ in range(3)], BEGIN_MS
    assert len(events) > 60
    while events:
        size = int(rng.integers(1, 12))
        batch, events = events[:size], events[size:]
        folder.fold(batch)
        for kind, terminal, identifier, at_ms, amount, is_fraud, known_ms in batch:
            if kind == "t":
                twins[terminal].transaction(identifier, at_ms, amount)
            else:
                twins[terminal].label(identifier, known_ms, is_fraud)
        newest = max(newest, *(e[3] for e in batch))
        for terminal, twin in enumerate(twins):
            for at_ms in (newest, newest + 3 * DAY_MS, newest - 7 * DAY_MS):
                np.testing.assert_array_equal(folder.features(terminal, at_ms), twin.features(at_ms))


def test_a_window_holds_what_is_exactly_seven_days_old_and_not_what_is_as_old_as_the_window_more():
    at_ms = BEGIN_MS + 50 * DAY_MS
    folder = Folder()
    edges = (7 * DAY_MS, 7 * DAY_MS - 1, 8 * DAY_MS, 8 * DAY_MS - 1, 37 * DAY_MS, 37 * DAY_MS - 1)
    folder.fold(sorted([("t", 0, i, at_ms - age, 100, False, 0) for i, age in enumerate(edges)], key=lambda e: e[3]))

    assert folder.features(0, at_ms)[:3] == [2.0, 3.0, 4.0]


def test_a_label_changes_nothing_before_it_is_known_nor_before_its_transaction_is_seven_days_old():
    at_ms = BEGIN_MS
    folder = Folder()
    folder.fold([("t", 0, 1, at_ms, 100, False, 0), ("l", 0, 1, at_ms, 0, True, at_ms + 10 * DAY_MS)])
    folder.fold([("t", 0, 2, at_ms + 1, 100, False, 0), ("l", 0, 2, at_ms + 1, 0, True, at_ms + DAY_MS)])

    def risk(day: float) -> float:
        return folder.features(0, at_ms + int(day * DAY_MS) + 1)[8]

    assert [risk(d) for d in (6.9, 7, 9.9, 10, 36.9)] == [0.0, 0.5, 0.5, 1.0, 1.0]


def busy(count: int, step_ms: int) -> list[Happening]:
    return [("t", 0, i, BEGIN_MS + i * step_ms, 100 + i % 7, False, 0) for i in range(count)]


def test_a_busy_terminal_keeps_sums_of_its_oldest_and_labels_of_them_count():
    step_ms = 20 * 60_000
    events = busy(2_000, step_ms)  # 28 days
    folder, twin = Folder(), NaiveTerminal()
    flags = np.concatenate([folder.fold(events[at : at + 300]) for at in range(0, 2_000, 300)])
    opened = folder.opened(0)
    rows = opened.entries[opened.begin[0] : opened.begin[0] + opened.count[0]]
    until_ms = int(opened.truncated_until_ms[0])
    frauds = list(range(0, 2_000, 11))
    folder.fold([("l", 0, i, BEGIN_MS + i * step_ms, 0, True, BEGIN_MS + i * step_ms + DAY_MS) for i in frauds])

    for _, _, i, at_ms, amount, _, _ in events:  # a bucket counts as if all in it had happened when it begins
        twin.transaction(i, at_ms // BUCKET_MS * BUCKET_MS if at_ms <= until_ms else at_ms, amount)
        if i in frauds:
            twin.label(i, 0, True)
    now_ms = BEGIN_MS + 35 * DAY_MS
    found, expected = folder.features(0, now_ms), twin.features(now_ms)

    assert len(rows) <= MAX_ROWS
    assert (rows["transaction_hash"] == BUCKET).any()
    assert flags[-1] & BUCKETED
    assert not flags[0] & BUCKETED
    assert found[:6] == pytest.approx(expected[:6], rel=1e-12)
    assert found[8] == pytest.approx(expected[8], abs=0.01)
    assert sum(rows["count"]) + (rows["transaction_hash"] != BUCKET).sum() == 2_000


def test_buckets_are_forgotten_and_then_the_profile_is_exact_again():
    folder = Folder()
    folder.fold(busy(1_000, 20 * 60_000))
    assert folder.opened(0).truncated_until_ms[0] != NEVER_MS

    folder.fold([("t", 0, 9_000 + d, BEGIN_MS + (14 + d) * DAY_MS, 100, False, 0) for d in range(60)])

    assert folder.opened(0).truncated_until_ms[0] == NEVER_MS


def test_repeats_and_what_is_too_late_change_nothing():
    folder = Folder()
    folder.fold([("t", 0, 1, BEGIN_MS, 100, False, 0), ("t", 0, 2, BEGIN_MS + TERMINAL_KEEP_MS - 1, 100, False, 0)])
    before = dict(folder.stored)

    flags = folder.fold([("t", 0, 1, BEGIN_MS, 100, False, 0), ("t", 0, 3, BEGIN_MS - 1, 100, False, 0)])

    assert flags.tolist() == [REPEATED, TERMINAL_TOO_LATE]
    assert folder.stored == before
