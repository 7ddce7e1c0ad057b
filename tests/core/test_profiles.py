"""Profiles on the wire: what goes in comes out, and what was damaged is refused."""

from __future__ import annotations

import numpy as np
import pytest

from services.core.card_features import fold
from services.core.kernels import group_text
from services.core.profiles import (
    ENTRY,
    HEADER_BYTES,
    MAX_ENTRIES,
    CorruptProfileError,
    open_profiles,
    seal_profiles,
)
from tests.generators import random_events, to_columns


def sealed_profiles(seed: int, count: int) -> list[bytes]:
    columns = to_columns(random_events(seed, count))
    slot, first = group_text(columns.card_id, np.zeros(len(columns), np.int64))
    profiles = open_profiles([None] * len(first), np.bincount(slot).astype(np.int64))
    fold(columns, slot, np.arange(len(columns)), np.ones(len(columns), bool), profiles)
    return seal_profiles(profiles)


def test_opening_and_sealing_changes_nothing():
    blobs = sealed_profiles(1, 200)

    opened = open_profiles([*blobs, None], np.zeros(len(blobs) + 1, np.int64))

    assert seal_profiles(opened)[:-1] == blobs
    assert opened.count[-1] == 0


def test_a_profile_is_as_long_as_what_it_remembers_and_never_longer_than_the_bound():
    for blob in sealed_profiles(2, 2_000):
        entries = (len(blob) - HEADER_BYTES) / ENTRY.itemsize
        assert entries == int(entries) <= MAX_ENTRIES


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"\x09" + b[1:], lambda b: b + b"\x00" * ENTRY.itemsize]
)
def test_a_damaged_profile_is_refused(damage):
    blob = sealed_profiles(3, 50)[0]

    with pytest.raises(CorruptProfileError):
        open_profiles([damage(blob)], np.ones(1, np.int64))
