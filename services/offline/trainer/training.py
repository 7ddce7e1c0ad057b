"""From transactions with their truth to a booster and its test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import xgboost

from services.core.classes import TransactionClass, classify
from services.core.columns import TerminalEventColumns, TransactionColumns, type_bool, type_f64, type_i64
from services.core.features import FEATURE_NAMES
from services.core.kernels import group_text
from services.core.offline import compute_offline
from services.core.policy import Action
from services.core.profiles import DAY_MS
from services.core.reference.features import REFERENCE_COLUMNS, ReferenceRows
from services.core.terminal.features import TERMINAL_COLUMNS
from services.inference.artifact import CHAMPION, SMALL, ReleasedModel
from services.inference.base import Predictor
from services.inference.isolation import IsolationForest
from services.inference.trees import Booster, ClassTable, Route
from services.offline.trainer.anomaly import fit_isolation_forest
from services.offline.trainer.classes import OWN_FRAUDS_MIN, Judged, Table, booster_name, choose_table
from services.offline.trainer.costs import CostTable, choose_thresholds
from services.offline.trainer.evaluation import action_metrics, ranking_metrics, scenario_metrics
from services.offline.trainer.splitting import Split, split_for
from services.offline.watching.distribution import distribution_of

PARAMETERS: Final[dict[str, Any]] = {
    "objective": "binary:logistic",
    "eta": 0.1,
    "max_depth": 6,
    "min_child_weight": 2,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "tree_method": "hist",
    "max_bin": 1024,  # with 256 the tail of amounts, where fraud is, falls into too few bins
    "base_score": 0.5,  # the estimated one makes hessians tiny where positives are rare
    "seed": 7,
    "nthread": 2,
}
ROUNDS: Final = 100
SMALL_ROUNDS: Final = 50
SMALL_DEPTH: Final = 4
"""Of the small booster: it sees the card's own past alone, and more trees, or deeper ones, make it little better."""
OF_OTHERS: Final = np.concatenate([TERMINAL_COLUMNS, REFERENCE_COLUMNS])
"""What a vector holds of others than the card."""
GAP_SHARE: Final = 0.1
"""Of the training's rows: those without what is known of the terminal, and those without account and customer."""


@dataclass(frozen=True, slots=True)
class History:
    """Transactions in log order with their truth: what there is to learn from."""

    columns: TransactionColumns
    fraud: type_bool
    scenario: np.ndarray
    amount_eur: type_f64
    labels: TerminalEventColumns
    """What became known of them while they happened, and when: what the terminals' features see."""
    source: str
    """What the data are, for the manifest."""
    reference: ReferenceRows | None = None
    """What was known of accounts and customers."""
    labelled: type_bool | None = None
    """Which of them have a label; None where all have. The others fill the windows, and are neither learnt from nor tested on."""

    @property
    def has_label(self) -> type_bool:
        """Which of the transactions have a label."""
        return np.ones(len(self.columns), bool) if self.labelled is None else self.labelled


@dataclass(frozen=True, slots=True)
class Labelled:
    """Transactions as a model is trained and tested on, one row each: their vectors, and the truth as far as it is known."""

    vectors: type_f64
    fraud: type_bool
    known: type_bool
    """Of which the truth is known; the others are neither learnt from nor tested on."""
    weight: type_f64
    """(n,) for how many transactions each stands."""
    scenario: np.ndarray
    amount_eur: type_f64
    card: type_i64
    """A number for each card."""
    day: type_i64
    """Whole days since the first."""
    source: dict[str, Any]
    """What the data are, for the manifest."""

    @classmethod
    def of(cls, history: History) -> Labelled:
        """Compute the vectors of a history."""
        columns, known = history.columns, history.has_label
        card, _ = group_text(columns.card_id, np.zeros(len(columns), np.int64))
        return cls(
            vectors=compute_offline(columns, history.labels, history.reference).vectors,
            fraud=history.fraud,
            known=known,
            weight=np.ones(len(columns)),
            scenario=history.scenario,
            amount_eur=history.amount_eur,
            card=card,
            day=days_of(columns.event_time_ms),
            source={
                "source": history.source,
                "transactions": len(columns),
                "without_label": int(np.count_nonzero(~known)),
            },
        )

    def __len__(self) -> int:
        return len(self.day)


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

    def measure(self, predictor: Predictor, rows: type_bool, costs: CostTable) -> dict[str, Any]:
        """Return the metrics of a predictor on some rows."""
        data = self.rows
        vectors = data.vectors[rows]
        scores = predictor.predict(vectors)
        fraud, amount_eur = data.fraud[rows], data.amount_eur[rows]
        actions = predictor.actions(classify(vectors), scores)
        return {
            "test": ranking_metrics(scores, fraud, data.card[rows], data.day[rows])
            | action_metrics(actions, fraud, amount_eur, costs),
            "by_scenario": scenario_metrics(actions, data.scenario[rows]),
        }


def days_of(time_ms: type_i64) -> type_i64:
    """Return the day of each time in epoch milliseconds, counted from the midnight before the first."""
    return time_ms // DAY_MS - time_ms.min(initial=2**62) // DAY_MS


def _fit(vectors: type_f64, data: Labelled, rows: type_bool, **others: Any) -> xgboost.Booster:
    # Names stay out of the booster: the manifest holds them, and arrays are scored without them.
    rounds, weight = others.pop("rounds", ROUNDS), data.weight[rows]
    # Equal weights say nothing, and XGBoost would choose its bins otherwise.
    matrix = xgboost.DMatrix(vectors, label=data.fraud[rows], weight=weight if (weight != 1).any() else None)
    return xgboost.train(PARAMETERS | others, matrix, num_boost_round=rounds)


def _with_gaps(vectors: type_f64) -> type_f64:
    """Return vectors in some of which what others know is missing, so that the model learns what to make of that."""
    rng, gappy = np.random.default_rng(int(PARAMETERS["seed"])), vectors.copy()
    for columns in (TERMINAL_COLUMNS, REFERENCE_COLUMNS):
        gappy[np.ix_(rng.random(len(vectors)) < GAP_SHARE, columns)] = np.nan
    return gappy


def without_others(vectors: type_f64) -> type_f64:
    """Return vectors as they are when what others know does not come in time."""
    alone = vectors.copy()
    alone[:, OF_OTHERS] = np.nan
    return alone


def _scores(booster: xgboost.Booster, vectors: type_f64) -> type_f64:
    return np.asarray(booster.inplace_predict(vectors, validate_features=False), np.float64)


def train(data: Labelled, label_delay: int, costs: CostTable, progress: Callable[[str], None]) -> Trained:
    """Train, choose the table of classes and its thresholds on the validation days, test on the last days.

    Raises:
        ValueError: the history is too short, or a range holds no fraud.
    """
    split = split_for(int(data.day.max(initial=-1)) + 1, label_delay)
    examples = _examples(data, split)
    train_rows, test_rows, vectors = examples.train, examples.test, data.vectors
    progress(f"training on {int(train_rows.sum()):,} transactions, {int(data.fraud[train_rows].sum()):,} frauds")
    champion = _fit(_with_gaps(vectors[train_rows]), data, train_rows)
    boosters, table = _table(examples, champion, costs, progress)
    boosters[SMALL], small_route = _small(examples, costs)
    anomaly = fit_isolation_forest(vectors[train_rows], vectors[examples.validate])
    progress(f"testing on {int(test_rows.sum()):,} transactions")
    read = {name: Booster(bytes(booster.save_raw("json"))) for name, booster in boosters.items()}
    predictor = ClassTable(table.routes, read)
    metrics = examples.measure(predictor, test_rows, costs)
    scores = predictor.predict(vectors[test_rows])
    approved = predictor.actions(classify(vectors[test_rows]), scores) == Action.APPROVE
    anomalous = (anomaly.score(vectors[test_rows]) >= anomaly.review) & approved
    metrics["anomaly"] = {"reviewed": int(anomalous.sum()), "frauds": int(data.fraud[test_rows][anomalous].sum())}
    metrics["by_class"] = table.by_class
    small = ClassTable(dict.fromkeys(TransactionClass, small_route), read)
    alone = replace(examples, rows=replace(data, vectors=without_others(vectors)))
    metrics["small"] = alone.measure(small, test_rows, costs)["test"]
    return Trained(
        boosters, anomaly, table, small_route,
        _describe(examples, split) | {"distribution": distribution_of(FEATURE_NAMES, vectors[train_rows], scores)},
        metrics, _golden(vectors[test_rows], scores),
        scores, data.fraud[test_rows],
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
    classes, tried = classify(data.vectors), {CHAMPION: champion}

    def own(one: TransactionClass) -> type_f64 | None:
        rows = examples.train & (classes == one)
        if data.fraud[rows].sum() < OWN_FRAUDS_MIN:
            return None
        progress(f"trying a booster of its own for {one.name}")
        tried[booster_name(one)] = _fit(_with_gaps(data.vectors[rows]), data, rows)
        return _scores(tried[booster_name(one)], data.vectors[v & (classes == one)])

    judged = Judged(data.fraud[v], data.amount_eur[v], classes[v])
    table = choose_table(_scores(champion, data.vectors[v]), own, judged, costs)
    named = {route.booster for route in table.routes.values()}
    return {name: booster for name, booster in tried.items() if name in named}, table


def _small(examples: _Examples, costs: CostTable) -> tuple[xgboost.Booster, Route]:
    """Train what decides when others are not heard in time: on the card's own past alone."""
    data, rows, v = examples.rows, examples.train, examples.validate
    booster = _fit(without_others(data.vectors[rows]), data, rows, max_depth=SMALL_DEPTH, rounds=SMALL_ROUNDS)
    scores = _scores(booster, without_others(data.vectors[v]))
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


def _golden(vectors: type_f64, scores: type_f64, count: int = 64) -> type_f64:
    """Return vectors spread over the whole range of scores."""
    order = np.argsort(scores, kind="stable")
    return vectors[order[np.linspace(0, len(order) - 1, min(count, len(order))).astype(np.int64)]]


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
