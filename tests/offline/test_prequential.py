"""The handbook's protocol: what is trained on, what is tested, what is left out, and what comes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.core.features import FEATURE_NAMES
from services.offline.trainer.prequential import PRODUCTION, Examples, Fold, Recipe, known_before, rows_of_test
from tests.benchmarks.quality import FOLDS, measure_quality
from tests.benchmarks.replaying import read_recorded

FOLD = Fold(train_until=100)


def examples(*rows: tuple[int, int, bool]) -> Examples:
    """Return transactions of (card, day, fraud)."""
    card, day, fraud = (np.array(column) for column in zip(*rows, strict=True))
    return Examples(np.zeros((len(rows), len(FEATURE_NAMES))), fraud.astype(bool), card, day)


def test_a_fold_trains_waits_for_the_labels_and_tests():
    assert (FOLD.train_from, FOLD.train_until, FOLD.test_from) == (93, 100, 107)
    assert Fold(100, 8).train_from == 44
    first = [str(np.datetime64(fold.train_from, "D")) for fold in FOLDS]
    assert first == ["2018-08-15", "2018-08-08", "2018-08-01", "2018-07-25"]


@pytest.mark.parametrize(
    ("fraud_day", "test_day", "known"),
    [
        (92, 107, False), (93, 107, True), (99, 107, True), (100, 107, False), (100, 108, True),
        (105, 113, True), (106, 113, False), (107, 113, False),
    ],
)  # fmt: skip
def test_a_card_is_known_by_a_fraud_that_is_eight_days_old_or_of_the_training_week(fraud_day, test_day, known):
    table = examples((1, fraud_day, True), (2, fraud_day, False))

    assert known_before(table, FOLD, test_day).tolist() == ([1] if known else [])


def test_cards_that_are_known_are_left_out_of_the_test_from_then_on():
    table = examples((1, 101, True), (1, 108, False), (1, 109, True), (2, 109, True), (2, 114, True), (2, 106, False))

    assert rows_of_test(table, FOLD).tolist() == [1, 3]


def test_a_recipe_with_an_unknown_feature_is_refused():
    with pytest.raises(ValueError, match="no such features"):
        Recipe(("transaction_amount", "no_such"), {}, 1)
    with pytest.raises(ValueError, match="no such features"):
        Recipe(("transaction_amount",), {}, 1, frozenset({"transaction_hour"}))


def test_more_money_is_never_less_risk():
    rng = np.random.default_rng(1)
    vectors = rng.random((500, len(PRODUCTION.names)))
    booster = PRODUCTION.fit(vectors, rng.random(500) < 0.2)

    row = np.repeat(vectors[:1], 50, axis=0)
    row[:, PRODUCTION.names.index("transaction_amount")] = np.linspace(0, 2, 50)

    assert (np.diff(booster.inplace_predict(row)) >= 0).all()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_handbook_is_reproduced_and_outdone(handbook: Path):
    recorded = read_recorded(handbook / "transactions.parquet", "handbook")
    found = measure_quality(recorded, None, lambda _: None, ["reproduced", "production"])

    said = found.as_json()
    published = {"auc_roc": 0.862, "average_precision": 0.639, "card_precision_100": 0.273}
    assert said["reproduced"] == pytest.approx(published, abs=0.002)
    aims = {"auc_roc": 0.880, "average_precision": 0.720, "card_precision_100": 0.308}
    assert all(said["production"][name] >= aim for name, aim in aims.items()), said
    assert found.leaks == []
    assert len(found.table().splitlines()) == 3
