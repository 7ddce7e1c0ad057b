"""The anomaly score: against scikit-learn's own, against what must be refused, and what becomes of anomalous transactions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest as Sklearn

from services.core.policy import Action, escalate_anomalies
from services.inference import ModelError
from services.inference.isolation import IsolationForest
from services.offline.trainer.anomaly import REVIEWED_SHARE, SAMPLES, TREES, fit_isolation_forest

FEATURES = 6


def rows_of(seed: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 1, (count, FEATURES)) * [1, 10, 100, 1, 0, 1e-3]
    rows[:, 3] = np.round(rows[:, 3])
    return rows


def fitted() -> IsolationForest:
    return fit_isolation_forest(rows_of(1, 5_000), rows_of(2, 20_000))


def test_scores_are_scikit_learns():
    rows = rows_of(3, 3_000) * np.random.default_rng(4).uniform(0.5, 5, (3_000, 1))
    theirs = Sklearn(n_estimators=TREES, max_samples=SAMPLES, random_state=7).fit(rows_of(1, 5_000))

    np.testing.assert_allclose(fitted().score(rows), -theirs.score_samples(rows), rtol=1e-6)


def test_a_missing_value_is_taken_for_a_typical_one():
    rows, forest = rows_of(5, 200), fitted()
    holed = rows.copy()
    holed[:, 1] = np.nan
    rows[:, 1] = forest.typical[1]

    np.testing.assert_array_equal(forest.score(holed), forest.score(rows))
    assert forest.score(np.full((1, FEATURES), np.nan))[0] < 0.5
    assert forest.typical[1] == np.median(rows_of(1, 5_000)[:, 1])


def test_what_is_far_away_is_anomalous_and_few_are_reviewed():
    forest = fitted()

    assert forest.score(np.full((1, FEATURES), 1e6))[0] > forest.review
    usual = (forest.score(rows_of(6, 20_000)) >= forest.review).mean()
    assert 0 < usual < 5 * REVIEWED_SHARE


def test_a_row_is_scored_alone_and_a_release_comes_back_bit_by_bit():
    forest, rows = fitted(), rows_of(7, 300)

    again = IsolationForest.of(json.dumps(forest.as_json()).encode(), FEATURES)

    np.testing.assert_array_equal(again.score(rows), forest.score(rows))
    np.testing.assert_array_equal(np.concatenate([forest.score(row[None]) for row in rows]), forest.score(rows))
    assert again.review == forest.review
    assert forest.score(rows[:0]).shape == (0,)


def test_only_what_would_be_approved_is_looked_at():
    actions = np.array([Action.APPROVE, Action.APPROVE, Action.CHALLENGE, Action.BLOCK])

    done = escalate_anomalies(actions, np.array([True, False, True, True]))

    assert done.tolist() == [Action.REVIEW, Action.APPROVE, Action.CHALLENGE, Action.BLOCK]


def damaged(**changes) -> bytes:
    read = {
        "root": [0], "left": [1, -1, -1], "right": [2, -1, -1], "feature": [0, 0, 0], "cut": [0.5, 0, 0], "depth": [0, 1, 2],
        "typical": [0.0] * FEATURES, "usual_depth": 1.5, "review": 0.9,
    }  # fmt: skip
    return json.dumps(read | changes).encode()


def test_the_smallest_forest_is_read():
    forest = IsolationForest.of(damaged(), FEATURES)

    assert forest.score(np.zeros((1, FEATURES)))[0] == pytest.approx(2 ** (-1 / 1.5))
    assert forest.score(np.full((1, FEATURES), 0.5))[0] == pytest.approx(2 ** (-1 / 1.5))
    assert forest.score(np.ones((1, FEATURES)))[0] == pytest.approx(2 ** (-2 / 1.5))


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{}", b"[1]", b"\xff", damaged(left=[0, -1, -1]), damaged(left=[3, -1, -1]), damaged(right=[-1, -1, -1]), damaged(root=[]),
        damaged(root=[3]), damaged(root=[-1]), damaged(feature=[FEATURES, 0, 0]), damaged(feature=[-1, 0, 0]), damaged(cut=[None, 0, 0]),
        damaged(depth=[0, 1]), damaged(depth=[0, -1, 1]), damaged(usual_depth=0), damaged(review=2), damaged(review=None), damaged(typical=[0.0]),
        damaged(left=["a", -1, -1]), damaged(left=[2**40, -1, -1]), damaged(typical=[None] * FEATURES), damaged(left=[1, 0, -1], right=[2, 2, -1]),
    ],
)  # fmt: skip
def test_what_is_no_sound_forest_is_refused(raw):
    with pytest.raises(ModelError, match="anomaly model"):
        IsolationForest.of(raw, FEATURES)
