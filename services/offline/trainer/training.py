"""From transactions with their truth to a booster and its test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import xgboost

from services.core.classes import TransactionClass, classify
from services.core.columns import type_bool, type_f64, type_i64
from services.core.features import FEATURE_NAMES
from services.core.policy import Action
from services.inference.artifact import CHAMPION, SMALL, ReleasedModel
from services.inference.base import Predictor
from services.inference.isolation import IsolationForest
from services.inference.trees import Booster, ClassTable, Route
from services.offline.trainer.anomaly import fit_isolation_forest
from services.offline.trainer.classes import OWN_FRAUDS_MIN, Judged, Table, booster_name, choose_table
from services.offline.trainer.costs import CostTable, choose_thresholds
from services.offline.trainer.evaluation import action_metrics, ranking_metrics, scenario_metrics
from services.offline.trainer.labelled import PARAMETERS, ROUNDS, History, Labelled, with_gaps, without_others
from services.offline.watching.distribution import distribution_of

SMALL_ROUNDS: Final = 50
SMALL_DEPTH: Final = 4
"""Of the small booster: it sees the card's own past alone, and more trees, or deeper ones, make it little better."""


@dataclass(frozen=True, slots=True)
class Split:
    """A split by time: warm-up for the windows, training, a gap as long as labels take, validation and test.

    Days are whole days since the first. Nothing that a label of the training range could say is known later than the
    gap: at the first day of validation every label of the training range has arrived.
    """

    train_from: int
    train_until: int
    label_delay: int
    validate_days: int
    test_until: int

    @property
    def validate_from(self) -> int:
        """The first day of validation."""
        return self.train_until + self.label_delay

    @property
    def test_from(self) -> int:
        """The first day of the test."""
        return self.validate_from + self.validate_days

    def __post_init__(self) -> None:
        if not 0 <= self.train_from < self.train_until <= self.validate_from < self.test_from < self.test_until:
            raise ValueError(f"the history is too short to split by time: {self}")


def split_for(days: int, label_delay: int) -> Split:
    """Return a split of a history of ``days``: up to 30 days of warm-up, then about 3/5, 1/5 and 1/5 of the rest."""
    warm_up = min(30, days // 4)
    rest = days - warm_up - label_delay
    if rest < 3:
        raise ValueError(
            f"the history is too short: {days} days, of which {warm_up} fill the windows and {label_delay} pass until labels are known; "
            "give more days, or say with --label-delay-days how soon labels are known"
        )
    fifth = max(1, rest // 5)
    return Split(warm_up, warm_up + rest - 2 * fifth, label_delay, fifth, days)


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model with what is to be said about it."""

    boosters: dict[str, xgboost.Booster]
    anomaly: IsolationForest
    table: Table
    small_route: Route
    training: dict[str, Any]
    metrics: dict[str, Any]
    golden_vectors: type_f64
    test_scores: type_f64
    test_fraud: type_bool


@dataclass(frozen=True, slots=True)
class _Examples:
    """Transactions, and which rows are for what."""

    rows: Labelled
    train: type_bool
    validate: type_bool
    test: type_bool

    @property
    def ranges(self) -> dict[str, type_bool]:
        return {"train": self.train, "validate": self.validate, "test": self.test}

    def measure(
        self, predictor: Predictor, rows: type_bool, costs: CostTable, *, alone: bool = False
    ) -> dict[str, Any]:
        """Return the metrics of a predictor on some rows; ``alone``: of which it sees nothing that others know."""
        data = self.rows
        scores = data.each(rows, partial(_alone, predictor.predict) if alone else predictor.predict)
        fraud, amount_eur = data.fraud[rows], data.amount_eur[rows]
        actions = predictor.actions(data.each(rows, partial(_alone, classify) if alone else classify), scores)
        return {
            "test": ranking_metrics(scores, fraud, data.card[rows], data.day[rows])
            | action_metrics(actions, fraud, amount_eur, costs),
            "by_scenario": scenario_metrics(actions, data.scenario[rows]),
        }


def _scores(booster: xgboost.Booster, vectors: type_f64) -> type_f64:
    return np.asarray(booster.inplace_predict(vectors, validate_features=False), np.float64)


def _alone(function: Callable[[type_f64], Any], vectors: type_f64) -> Any:
    return function(without_others(vectors))


def train(data: Labelled, label_delay: int, costs: CostTable, progress: Callable[[str], None]) -> Trained:
    """Train, choose the table of classes and its thresholds on the validation days, test on the last days.

    Raises:
        ValueError: the history is too short, or a range holds no fraud.
    """
    split = split_for(int(data.day.max(initial=-1)) + 1, label_delay)
    examples = _examples(data, split)
    train_rows, test_rows = examples.train, examples.test
    progress(f"training on {int(train_rows.sum()):,} transactions, {int(data.fraud[train_rows].sum()):,} frauds")
    champion = data.fit(train_rows, with_gaps)
    boosters, table = _table(examples, champion, costs, progress)
    boosters[SMALL], small_route = _small(examples, costs)
    anomaly = fit_isolation_forest(data.some(train_rows), data.some(examples.validate))
    progress(f"testing on {int(test_rows.sum()):,} transactions")
    read = {name: Booster(bytes(booster.save_raw("json"))) for name, booster in boosters.items()}
    predictor = ClassTable(table.routes, read)
    metrics = examples.measure(predictor, test_rows, costs)
    scores = data.each(test_rows, predictor.predict)
    approved = predictor.actions(data.each(test_rows, classify), scores) == Action.APPROVE
    anomalous = (data.each(test_rows, anomaly.score) >= anomaly.review) & approved
    metrics["anomaly"] = {"reviewed": int(anomalous.sum()), "frauds": int(data.fraud[test_rows][anomalous].sum())}
    metrics["by_class"] = table.by_class
    small = ClassTable(dict.fromkeys(TransactionClass, small_route), read)
    metrics["small"] = examples.measure(small, test_rows, costs, alone=True)["test"]
    return Trained(
        boosters, anomaly, table, small_route,
        _describe(examples, split) | {"distribution": distribution_of(FEATURE_NAMES, data.some(train_rows), scores)}, metrics,
        data.take(np.flatnonzero(test_rows)[_spread(scores)]), scores, data.fraud[test_rows],
    )  # fmt: skip


def _examples(data: Labelled, split: Split) -> _Examples:
    """Split by time. Raises ValueError."""
    known, day = data.known, data.day
    examples = _Examples(
        data,
        train=known & (day >= split.train_from) & (day < split.train_until),
        validate=known & (day >= split.validate_from) & (day < split.test_from),
        test=known & (day >= split.test_from),
    )  # fmt: skip
    for name, chosen in examples.ranges.items():
        if not data.fraud[chosen].any():
            raise ValueError(
                f"the {name} days hold no fraud: give more cards or days, or a shorter gap with --label-delay-days"
            )
    return examples


def _table(
    examples: _Examples, champion: xgboost.Booster, costs: CostTable, progress: Callable[[str], None]
) -> tuple[dict[str, xgboost.Booster], Table]:
    """Choose the table of classes; return it with the boosters that it names."""
    data, v = examples.rows, examples.validate
    classes, tried = data.each(np.ones(len(data), bool), classify), {CHAMPION: champion}

    def own(one: TransactionClass) -> type_f64 | None:
        rows = examples.train & (classes == one)
        if data.fraud[rows].sum() < OWN_FRAUDS_MIN:
            return None
        progress(f"trying a booster of its own for {one.name}")
        tried[booster_name(one)] = data.fit(rows, with_gaps)
        return data.each(v & (classes == one), partial(_scores, tried[booster_name(one)]))

    judged = Judged(data.fraud[v], data.amount_eur[v], classes[v])
    table = choose_table(data.each(v, partial(_scores, champion)), own, judged, costs)
    named = {route.booster for route in table.routes.values()}
    return {name: booster for name, booster in tried.items() if name in named}, table


def _small(examples: _Examples, costs: CostTable) -> tuple[xgboost.Booster, Route]:
    """Train what decides when others are not heard in time: on the card's own past alone."""
    data, rows, v = examples.rows, examples.train, examples.validate
    booster = data.fit(rows, without_others, SMALL_ROUNDS, max_depth=SMALL_DEPTH)
    scores = data.each(v, partial(_alone, partial(_scores, booster)))
    return booster, Route(SMALL, choose_thresholds(scores, data.fraud[v], data.amount_eur[v], costs))


def evaluate(model: ReleasedModel, history: History, warm_up_days: int = 30) -> dict[str, Any]:
    """Return the metrics of a released model on other transactions, after the days that fill the windows.

    Raises:
        ValueError: there are no frauds after the warm-up.
    """
    data = Labelled.of(history)
    rows = data.known & (data.day >= warm_up_days)
    if not data.fraud[rows].any():
        raise ValueError(
            f"there is no fraud after the first {warm_up_days} days, which only fill the windows: give more, or say --warm-up-days"
        )
    return _Examples(data, ~rows, ~rows, rows).measure(model.champion, rows, CostTable())


def _spread(scores: type_f64, count: int = 64) -> type_i64:
    """Return rows that are spread over the whole range of scores."""
    order = np.argsort(scores, kind="stable")
    return order[np.linspace(0, len(order) - 1, min(count, len(order))).astype(np.int64)]


def _describe(examples: _Examples, split: Split) -> dict[str, Any]:
    data = examples.rows
    return data.source | {
        "days": int(data.day.max()) + 1,
        "label_delay_days": split.label_delay,
        "ranges_in_days": {
            "train": [split.train_from, split.train_until],
            "validate": [split.validate_from, split.test_from],
            "test": [split.test_from, split.test_until],
        },
        "rows": {name: int(chosen.sum()) for name, chosen in examples.ranges.items()},
        "frauds": {name: int(data.fraud[chosen].sum()) for name, chosen in examples.ranges.items()},
        "parameters": PARAMETERS | {"rounds": ROUNDS},
    }
