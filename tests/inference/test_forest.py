"""The kernels over a forest's arrays, against XGBoost itself."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import xgboost

from services.inference.artifact import load_model
from services.inference.forest import PATH_FEATURES_MAX, Forest, ForestError, Scores, Shares
from services.inference.released import live_model
from services.inference.trees import Booster


def random_rows(seed: int, count: int, features: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 2, (count, features))
    rows[rng.random(rows.shape) < 0.2] = np.nan
    return rows


def trained(seed: int, features: int = 8, **parameters) -> xgboost.Booster:
    rows = random_rows(seed, 2_000, features)
    labels = (np.nan_to_num(rows[:, 0]) * np.nan_to_num(rows[:, 1]) + np.nan_to_num(rows[:, 2]) > 1) | np.isnan(
        rows[:, 3]
    )
    settings = {"objective": "binary:logistic", "nthread": 1, "seed": seed, "base_score": 0.5, **parameters}
    return xgboost.train(settings, xgboost.DMatrix(rows, label=labels), num_boost_round=20)


def raw(booster: xgboost.Booster) -> bytes:
    return bytes(booster.save_raw("json"))


def edge_rows(forest: Forest, seed: int, count: int) -> np.ndarray:
    """Numbers on the trees' own cuts and right beside them, zeros of both signs, infinities, and missing ones."""
    rng, inner = np.random.default_rng(seed), forest.left >= 0
    cuts = forest.threshold[inner].astype(np.float32)
    beside = np.concatenate([cuts, np.nextafter(cuts, np.float32(-np.inf)), np.nextafter(cuts, np.float32(np.inf))])
    return rng.choice(np.concatenate([beside, [0.0, -0.0, 1e30, -1e30, 1e-40, np.nan]]), (count, forest.features))


@pytest.mark.parametrize(
    ("seed", "parameters"),
    [
        (1, {"max_depth": 6}),
        (2, {"max_depth": 3}),
        (3, {"max_depth": 1}),
        (4, {"max_depth": 12, "min_child_weight": 0}),
    ],
)
def test_scores_have_the_bits_of_xgboosts(seed, parameters):
    booster = trained(seed, **parameters)
    forest = Forest.of(raw(booster))

    for rows in (random_rows(seed + 100, 3_000, 8), edge_rows(forest, seed, 3_000)):
        expected = booster.predict(xgboost.DMatrix(rows)).astype(np.float64)
        np.testing.assert_array_equal(Scores(forest).predict(rows), expected)
        for size in range(1, 10):  # few rows go another way than many
            parts = [Scores(forest).predict(rows[at : at + size]) for at in range(0, 900, size)]
            np.testing.assert_array_equal(np.concatenate(parts)[:900], expected[:900])
        np.testing.assert_array_equal(Booster(raw(booster)).predict(rows), expected)


def test_where_the_kernel_is_not_exact_xgboost_itself_scores(monkeypatch):
    booster = trained(4)
    rows = random_rows(104, 500, 8)
    monkeypatch.setattr(Scores, "predict", lambda _, vectors: np.full(len(vectors), 0.5))

    found = Booster(raw(booster))

    np.testing.assert_array_equal(found.predict(rows), booster.predict(xgboost.DMatrix(rows)).astype(np.float64))


@pytest.mark.parametrize("depth", [1, 3, 6, 9])
def test_shares_are_xgboosts(depth):
    booster = trained(5, max_depth=depth)
    rows = random_rows(6, 500, 8)

    shares = Shares.of(Forest.of(raw(booster))).explain(rows)

    expected = booster.predict(xgboost.DMatrix(rows), pred_contribs=True)[:, :-1]
    np.testing.assert_allclose(shares, expected, atol=2e-5)


def test_shares_are_those_of_their_definition():
    """Every order in which the features could have become known, one by one: the slow obvious twin."""
    booster = trained(7, features=4, max_depth=4)
    forest = Forest.of(raw(booster))
    row = random_rows(8, 1, 4)[0]

    def value(node: int, known: frozenset[int]) -> float:
        if forest.left[node] < 0:
            return float(forest.threshold[node])
        feature, below = int(forest.feature[node]), (int(forest.left[node]), int(forest.right[node]))
        if feature in known:
            x = row[feature]
            to_left = bool(forest.missing_left[node]) if np.isnan(x) else np.float32(x) < forest.threshold[node]
            return value(below[0] if to_left else below[1], known)
        return sum(forest.cover[b] / forest.cover[node] * value(b, known) for b in below)

    def total(known: frozenset[int]) -> float:
        return sum(value(int(root), known) for root in forest.root)

    shares = np.zeros(4)
    for order in itertools.permutations(range(4)):
        for at, feature in enumerate(order):
            before = frozenset(order[:at])
            shares[feature] += (total(before | {feature}) - total(before)) / math.factorial(4)

    np.testing.assert_allclose(Shares.of(forest).explain(row[None])[0], shares, atol=1e-5)


def test_the_released_model_is_scored_and_explained_by_the_kernels():
    folder = live_model()
    booster = xgboost.Booster(model_file=str(folder / "champion.json"))
    forest = Forest.of((folder / "champion.json").read_bytes())
    rows = np.abs(random_rows(9, 2_000, forest.features)) * 30

    for scored in (rows, edge_rows(forest, 9, 2_000)):
        expected = booster.predict(xgboost.DMatrix(scored)).astype(np.float64)
        np.testing.assert_array_equal(Scores(forest).predict(scored), expected)
    expected = booster.predict(xgboost.DMatrix(rows[:300]), pred_contribs=True)[:, :-1]
    np.testing.assert_allclose(load_model(folder).champion.explain(rows[:300]), expected, atol=1e-4)


def test_a_path_through_too_many_features_is_refused():
    booster = trained(11, features=30, max_depth=16, min_child_weight=0, gamma=0)

    with pytest.raises(ForestError, match=f"more than {PATH_FEATURES_MAX}"):
        Shares.of(Forest.of(raw(booster)))
