"""Profiles on the wire: what goes in comes out, and what was damaged is refused."""

from __future__ import annotations

import numpy as np
import pytest

from services.core.card.features import fold
from services.core.card.layout import CARD
from services.core.kernels import group_text
from services.core.packing import HEADER_BYTES, NEVER_MS
from services.core.profiles import (
    DAY_MS,
    LATENESS_MS,
    MAX_ENTRIES,
    CorruptProfileError,
    OpenProfiles,
    ProfileLayout,
    open_profiles,
    seal_profiles,
)
from services.core.terminal.layout import TERMINAL
from services.core.terminal.windows import ABSENT, BUCKET
from tests.generators import random_events, to_columns


def folded_profiles(seed: int, count: int) -> OpenProfiles:
    columns = to_columns(random_events(seed, count))
    slot, first = group_text(columns.card_id, np.zeros(len(columns), np.int64))
    profiles = open_profiles([None] * len(first), CARD, slot)
    fold(columns, slot, np.arange(len(columns)), np.ones(len(columns), bool), profiles)
    return profiles


def sealed_profiles(seed: int, count: int) -> list[bytes]:
    return seal_profiles(folded_profiles(seed, count))


def random_terminals(seed: int) -> OpenProfiles:
    """Profiles with all that an entry may be, in any mix."""
    rng = np.random.default_rng(seed)
    count = rng.integers(1, 60, 20)
    begin = np.cumsum(count) - count
    entries = np.zeros(count.sum(), TERMINAL.entry)
    for a, n in zip(begin, count, strict=True):
        entries["event_time_ms"][a : a + n] = np.sort(rng.integers(0, 45 * DAY_MS, n)) + rng.integers(-(2**40), 2**40)
    entries["transaction_hash"] = np.where(rng.random(len(entries)) < 0.2, BUCKET, rng.integers(1, 2**40, len(entries)))
    entries["amount_minor"] = np.where(
        rng.random(len(entries)) < 0.2, ABSENT, 10 ** rng.integers(0, 13, len(entries)) - rng.integers(0, 2)
    )
    entries["label"] = rng.integers(-(2**31), 2**31, len(entries)) * (rng.random(len(entries)) < 0.3)
    entries["count"] = rng.integers(0, 2**32, len(entries)) * (rng.random(len(entries)) < 0.3)
    return OpenProfiles(TERMINAL, entries, begin, count, begin * 7 - 1, np.where(begin % 2, NEVER_MS, -begin))


def same(one: OpenProfiles, other: OpenProfiles) -> bool:
    rows = [p.entries[b : b + n] for p in (one, other) for b, n in zip(p.begin, p.count, strict=True)]
    half = len(rows) // 2
    return (
        one.count.tolist() == other.count.tolist()
        and one.last_offset.tolist() == other.last_offset.tolist()
        and one.truncated_until_ms.tolist() == other.truncated_until_ms.tolist()
        and all(a.tobytes() == b.tobytes() for a, b in zip(rows[:half], rows[half:], strict=True))
    )


@pytest.mark.parametrize("profiles", [folded_profiles(1, 2_000), random_terminals(1)], ids=["cards", "terminals"])
def test_opening_and_sealing_changes_nothing(profiles):
    blobs, layout = seal_profiles(profiles), profiles.layout

    opened = open_profiles([*blobs, None], layout)

    assert seal_profiles(opened)[:-1] == blobs
    assert opened.count[-1] == 0
    assert same(open_profiles(blobs, layout, np.repeat(np.arange(len(blobs)), 3)), profiles)


def test_a_profile_is_as_long_as_what_it_remembers_and_never_longer_than_the_bound():
    profiles = folded_profiles(2, 2_000)

    assert profiles.count.max() <= MAX_ENTRIES
    for blob, count in zip(seal_profiles(profiles), profiles.count.tolist(), strict=True):
        assert HEADER_BYTES + 11 * count <= len(blob) <= HEADER_BYTES + CARD.entry_bytes_max * count


def test_a_position_is_forgotten_when_nothing_that_is_folded_exactly_looks_back_to_it():
    profiles = folded_profiles(4, 2_000)

    for begin, count in zip(profiles.begin, profiles.count, strict=True):
        entries = profiles.entries[begin : begin + count]
        positioned = entries["event_time_ms"][~np.isnan(entries["latitude"])]
        assert (positioned < entries["event_time_ms"][-1] - LATENESS_MS).sum() <= 1
    assert 0 < np.isnan(profiles.entries["latitude"]).mean() < 1


def damaged(blobs: list[bytes], seed: int) -> list[bytes]:
    rng = np.random.default_rng(seed)
    out = []
    for blob in blobs:
        changed = bytearray(blob[: rng.integers(1, len(blob) + 1)] if rng.random() < 0.3 else blob)
        for at in rng.integers(0, len(changed), rng.integers(0, 4)):
            changed[at] = rng.integers(0, 256)
        out.append(bytes(changed) + rng.bytes(rng.integers(0, 9) if rng.random() < 0.2 else 0))
    return out


@pytest.mark.parametrize(
    ("blobs", "layout"),
    [(sealed_profiles(5, 500), CARD), (seal_profiles(random_terminals(5)), TERMINAL)],
    ids=["cards", "terminals"],
)
def test_damage_is_refused_or_harmless_and_never_touches_other_profiles(blobs: list[bytes], layout: ProfileLayout):
    refused = 0
    for seed in range(200):
        mixed = damaged(blobs, seed)
        try:
            opened = open_profiles(mixed, layout, np.arange(len(mixed)))
        except CorruptProfileError as error:
            refused += len(error.rows)
            kept = [row for row in range(len(mixed)) if row not in error.rows]
            opened = open_profiles([mixed[row] for row in kept], layout, np.arange(len(kept)))
        assert (opened.count >= 0).all()
        assert (opened.begin + opened.count <= len(opened.entries)).all()
    assert refused > 200


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"\x09" + b[1:], lambda b: b + b"\x00" * 40])
def test_a_damaged_profile_is_refused(damage):
    blob = sealed_profiles(3, 50)[0]

    with pytest.raises(CorruptProfileError):
        open_profiles([damage(blob)], CARD, np.zeros(1, np.int64))
