"""From transactions with their truth to a booster and its test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xgboost

from services.core.columns import TerminalEventColumns, TransactionColumns, type_bool, type_f64, type_i64
from services.core.features import FEATURE_NAMES
from services.core.kernels import group_text
from services.core.offline import compute_offline
from services.core.policy import Thresholds
from services.core.profiles import DAY_MS
from services.core.reference_features import REFERENCE_COLUMNS, ReferenceRows
from services.core.terminal_features import TERMINAL_COLUMNS
from services.inference.artifact import XgboostModel
from services.inference.isolation import IsolationForest
from services.trainer.anomaly import fit_isolation_forest
from services.trainer.costs import CostTable, choose_thresholds
from services.trainer.evaluation import action_metrics, ranking_metrics, scenario_metrics

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
    fifth = max(1, rest // 5)
    return Split(warm_up, warm_up + rest - 2 * fifth, label_delay, fifth, days)


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model with what is to be said about it."""

    booster: xgboost.Booster
    anomaly: IsolationForest
    thresholds: Thresholds
    training: dict[str, Any]
    metrics: dict[str, Any]
    golden_vectors: type_f64
    test_scores: type_f64
    test_fraud: type_bool


def _days(history: History) -> type_i64:
    """Return the day of each transaction, counted from the midnight before the first."""
    time_ms = history.columns.event_time_ms
    return time_ms // DAY_MS - time_ms.min() // DAY_MS


def _fit(vectors: type_f64, fraud: type_bool) -> xgboost.Booster:
    # Names stay out of the booster: the manifest holds them, and arrays are scored without them.
    return xgboost.train(PARAMETERS, xgboost.DMatrix(vectors, label=fraud), num_boost_round=ROUNDS)


def _with_gaps(vectors: type_f64) -> type_f64:
    """Return vectors in some of which what others know is missing, so that the model learns what to make of that."""
    rng, gappy = np.random.default_rng(int(PARAMETERS["seed"])), vectors.copy()
    for columns in (TERMINAL_COLUMNS, REFERENCE_COLUMNS):
        gappy[np.ix_(rng.random(len(vectors)) < GAP_SHARE, columns)] = np.nan
    return gappy


def train(history: History, label_delay: int, costs: CostTable, progress: Callable[[str], None]) -> Trained:
    """Train, choose thresholds on the validation days, test on the last days.

    Raises:
        ValueError: the history is too short, or a range holds no fraud.
    """
    progress(f"computing {len(FEATURE_NAMES)} features of {len(history.columns):,} transactions")
    vectors = compute_offline(history.columns, history.labels, history.reference).vectors
    day = _days(history)
    split = split_for(int(day.max()) + 1, label_delay)
    rows = {
        "train": (day >= split.train_from) & (day < split.train_until),
        "validate": (day >= split.validate_from) & (day < split.test_from),
        "test": day >= split.test_from,
    }
    for name, chosen in rows.items():
        if not history.fraud[chosen].any():
            raise ValueError(f"the {name} days hold no fraud: give more cards or days")
    progress(
        f"training on {int(rows['train'].sum()):,} transactions, {int(history.fraud[rows['train']].sum()):,} frauds"
    )
    booster = _fit(_with_gaps(vectors[rows["train"]]), history.fraud[rows["train"]])
    scores = np.asarray(booster.inplace_predict(vectors, validate_features=False), np.float64)
    v, t = rows["validate"], rows["test"]
    anomaly = fit_isolation_forest(vectors[rows["train"]], vectors[v])
    thresholds = choose_thresholds(scores[v], history.fraud[v], history.amount_eur[v], costs)
    progress(f"testing on {int(t.sum()):,} transactions")
    card, _ = group_text(history.columns.card_id, np.zeros(len(day), np.int64))
    metrics = _measure(scores[t], history, t, card, day, thresholds, costs)
    strange = (anomaly.score(vectors[t]) >= anomaly.review) & (scores[t] < thresholds.challenge)
    metrics["anomaly"] = {"reviewed": int(strange.sum()), "frauds": int(history.fraud[t][strange].sum())}
    return Trained(
        booster, anomaly, thresholds, _describe(history, split, rows, day), metrics, _golden(vectors[t], scores[t]),
        scores[t], history.fraud[t],
    )  # fmt: skip


def evaluate(model: XgboostModel, history: History, warm_up_days: int = 30) -> dict[str, Any]:
    """Return the metrics of a released model on other transactions, after the days that fill the windows.

    Raises:
        ValueError: there are no frauds after the warm-up.
    """
    vectors = compute_offline(history.columns, history.labels, history.reference).vectors
    day = _days(history)
    rows = day >= warm_up_days
    if not history.fraud[rows].any():
        raise ValueError("there is no fraud after the first 30 days: give more cards or days")
    card, _ = group_text(history.columns.card_id, np.zeros(len(day), np.int64))
    return _measure(model.predict(vectors[rows]), history, rows, card, day, model.thresholds, CostTable())


def _measure(
    scores: type_f64, history: History, rows: type_bool, card: type_i64, day: type_i64,
    thresholds: Thresholds, costs: CostTable,
) -> dict[str, Any]:  # fmt: skip
    fraud, amount_eur = history.fraud[rows], history.amount_eur[rows]
    return {
        "test": ranking_metrics(scores, fraud, card[rows], day[rows])
        | action_metrics(scores, fraud, amount_eur, thresholds, costs),
        "by_scenario": scenario_metrics(scores, history.scenario[rows], thresholds),
    }


def _golden(vectors: type_f64, scores: type_f64, count: int = 64) -> type_f64:
    """Return vectors spread over the whole range of scores."""
    order = np.argsort(scores, kind="stable")
    return vectors[order[np.linspace(0, len(order) - 1, min(count, len(order))).astype(np.int64)]]


def _describe(history: History, split: Split, rows: dict[str, type_bool], day: type_i64) -> dict[str, Any]:
    return {
        "source": history.source,
        "transactions": len(history.columns),
        "days": int(day.max()) + 1,
        "label_delay_days": split.label_delay,
        "ranges_in_days": {
            "train": [split.train_from, split.train_until],
            "validate": [split.validate_from, split.test_from],
            "test": [split.test_from, split.test_until],
        },
        "rows": {name: int(chosen.sum()) for name, chosen in rows.items()},
        "frauds": {name: int(history.fraud[chosen].sum()) for name, chosen in rows.items()},
        "parameters": PARAMETERS | {"rounds": ROUNDS},
    }
