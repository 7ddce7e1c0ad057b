"""The features against their naive twin, over seeded streams with late, duplicate and equal-time events."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.aggregates import (
    HOUR,
    PAST_COUNT,
)
from services.core.card.features import fold
from services.core.card.layout import CARD
from services.core.card.windows import LATE, REPEAT, TOO_LATE, TRUNCATED
from services.core.features import (
    FEATURE_NAMES,
    FEATURE_SET_HASH,
    FEATURES,
    Feature,
)
from services.core.kernels import group_text
from services.core.offline import compute_offline
from services.core.profiles import DAY_MS, open_profiles, seal_profiles
from tests.generators import random_events, to_columns
from tests.naive import Event, NaiveCard

OWN = [feature.name for feature in FEATURES if feature.entity in ("card", "transaction")]
FLAGS = {"REPEAT": REPEAT, "LATE": LATE, "TRUNCATED": TRUNCATED, "TOO_LATE": TOO_LATE}


def naive(events: list[Event], *, bounded: bool = True) -> tuple[np.ndarray, np.ndarray]:
    cards: dict[int, NaiveCard] = {}
    vectors, flags = [], []
    for event in events:
        vector, said = cards.setdefault(event.card, NaiveCard(bounded)).decide(event)
        vectors.append(vector)
        flags.append(sum(FLAGS[name] for name in said))
    return np.array(vectors), np.array(flags)


def assert_same_vectors(expected: np.ndarray, actual: np.ndarray) -> None:
    for j, name in enumerate(OWN):
        np.testing.assert_allclose(actual[:, j], expected[:, j], rtol=1e-6, atol=1e-6, equal_nan=True, err_msg=name)


def test_no_feature_is_missing_or_all_alike_in_the_streams_that_twins_are_compared_on():
    """Where both sides are NaN they are equal: so of every feature the streams must give something to compare."""
    vectors = np.concatenate([compute_offline(to_columns(random_events(seed, 120))).vectors for seed in range(20)])

    alike = [name for j, name in enumerate(OWN) if len(np.unique(vectors[:, j][np.isfinite(vectors[:, j])])) < 2]
    assert alike == []


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 120))
def test_every_feature_and_flag_equals_its_naive_twin(seed: int, count: int):
    events = random_events(seed, count)

    folded = compute_offline(to_columns(events))

    vectors, flags = naive(events)
    np.testing.assert_array_equal(flags, folded.flags)
    assert_same_vectors(vectors, folded.vectors)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_decision_without_a_flag_misses_nothing_of_the_whole_history(seed: int):
    events = random_events(seed, 150, cards=2)

    folded = compute_offline(to_columns(events))

    vectors, _ = naive(events, bounded=False)
    whole = (folded.flags & ~REPEAT) == 0
    assert_same_vectors(vectors[whole], folded.vectors[whole])


def test_a_card_beyond_the_bound_says_that_its_profile_is_truncated_and_stays_bounded():
    events = random_events(5, 900, cards=1, late_share=0.05, dense=True)

    folded = compute_offline(to_columns(events))

    vectors, flags = naive(events)
    assert (folded.flags & TRUNCATED).any()
    np.testing.assert_array_equal(flags, folded.flags)
    assert_same_vectors(vectors, folded.vectors)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(1, 99), max_size=6))
def test_any_split_into_batches_gives_the_same_bits_and_the_same_profiles(seed: int, cuts: list[int]):
    columns = to_columns(random_events(seed, 100))
    edges = [0, *sorted(set(cuts)), 100]
    stored: dict[bytes, bytes] = {}
    parts = []
    for a, b in pairwise(edges):
        part = columns.take(np.arange(a, b))
        slot, first = group_text(part.card_id, np.zeros(b - a, np.int64))
        cards = part.card_id.take(first).tolist()
        profiles = open_profiles([stored.get(card) for card in cards], CARD, slot)
        parts.append(fold(part, slot, np.arange(a, b), np.ones(b - a, bool), profiles).vectors)
        stored |= dict(zip(cards, seal_profiles(profiles), strict=True))

    whole = compute_offline(columns).vectors

    np.testing.assert_array_equal(np.concatenate(parts).view(np.int64), whole.view(np.int64))


def test_folding_without_emitting_leaves_the_same_profiles():
    columns = to_columns(random_events(3, 80))
    slot, first = group_text(columns.card_id, np.zeros(80, np.int64))
    sealed = []
    for emit in (True, False):
        profiles = open_profiles([None] * len(first), CARD, slot)
        fold(columns, slot, np.arange(80), np.full(80, emit), profiles)
        sealed.append(seal_profiles(profiles))

    assert sealed[0] == sealed[1]


def test_the_transaction_at_hand_is_never_in_its_own_past():
    event = Event(1, 1, 1_767_225_600_000, 5_000, 1, "BE", 0, None, None)

    vector = dict(zip(FEATURE_NAMES, compute_offline(to_columns([event, event])).vectors[1], strict=True))

    assert vector["card_count_1h"] == 0
    assert vector["card_count_with_current_1d"] == 1
    assert np.isnan(vector["card_amount_to_mean_30d"])


def test_names_are_derived_and_distinct_and_the_hash_is_of_this_very_set():
    assert Feature(PAST_COUNT, 10 * 60_000).name == "card_count_10m"
    assert len(set(FEATURE_NAMES)) == len(FEATURES) == 42
    assert len(FEATURE_SET_HASH) == 16


def test_a_window_beyond_the_horizon_is_refused():
    with pytest.raises(ValueError, match="horizon"):
        Feature(PAST_COUNT, 31 * DAY_MS)


def test_a_window_where_none_belongs_and_none_where_one_does_are_refused():
    with pytest.raises(ValueError, match="window"):
        Feature(PAST_COUNT)
    with pytest.raises(ValueError, match="window"):
        Feature(HOUR, DAY_MS)
