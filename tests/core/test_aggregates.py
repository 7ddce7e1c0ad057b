"""Every row of the aggregates is used, its kernel exists, and what it says can be said of every value."""

from __future__ import annotations

import importlib
import math

import pytest

from services.core.aggregates import AGGREGATES, IS_WINDOWED, Aggregate, ByAmount, Kernel
from services.core.explain.reasons import describe
from services.core.features import DAY_MS, FEATURES, Feature

INDICES = range(len(AGGREGATES))


@pytest.fixture(params=INDICES, ids=[row.name for row in AGGREGATES])
def index(request: pytest.FixtureRequest) -> int:
    return request.param


def feature_of(index: int) -> Feature:
    return Feature(index, 7 * DAY_MS if AGGREGATES[index].windowed else 0)


def test_a_row_is_a_feature_so_that_the_obvious_twin_computes_it_too(index):
    """The tests of features compare each column with plain Python: a row without its branch in a kernel would be NaN there."""
    assert index in {feature.aggregate for feature in FEATURES}


def test_no_name_comes_twice():
    assert len({(row.entity, row.name) for row in AGGREGATES}) == len(AGGREGATES)


@pytest.mark.parametrize("kernel", Kernel)
def test_the_kernel_that_a_row_names_is_there(kernel):
    module, _, name = kernel.value.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_words_are_whole_whatever_the_value(index):
    feature = feature_of(index)
    for value in (0.0, 0.4, 1.0, 2.0, 3.0, math.nan):
        words = describe(feature, value, "6.37 EUR")
        assert words, "nothing is said"
        assert not {"{", "nan"} & {*words, *words.split()}, words


def test_what_depends_on_the_amount_says_the_amount_or_is_a_mean(index):
    row = AGGREGATES[index]
    named = row.name.startswith("amount") or row.by_amount == ByAmount.MEAN
    assert named == (row.by_amount != ByAmount.SAME)


def test_what_a_change_undoes_is_a_change_that_is_tried():
    assert {row.without[0] for row in AGGREGATES if row.without} == {"terminal", "place", "travel_notice"}


@pytest.mark.parametrize("window_ms", [0, DAY_MS])
def test_a_window_where_none_belongs_is_refused_and_so_is_a_missing_one(index, window_ms):
    if bool(window_ms) == bool(IS_WINDOWED[index]):
        assert Feature(index, window_ms).row is AGGREGATES[index]
    else:
        with pytest.raises(ValueError, match=AGGREGATES[index].name):
            Feature(index, window_ms)


def test_a_row_without_words_for_no_value_says_the_features_name():
    row = next(i for i in INDICES if not AGGREGATES[i].unknown)
    assert describe(feature_of(row), math.nan, "") == f"{feature_of(row).name} is not known"
    assert isinstance(AGGREGATES[row], Aggregate)
