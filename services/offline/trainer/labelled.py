"""What a model learns from: transactions with their vectors and the truth, and how a booster is trained on some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xgboost

from services.core.columns import TerminalEventColumns, TransactionColumns, type_bool, type_f64, type_i64
from services.core.kernels import group_text
from services.core.offline import compute_offline
from services.core.profiles import DAY_MS
from services.core.reference.features import REFERENCE_COLUMNS, ReferenceRows
from services.core.terminal.features import TERMINAL_COLUMNS

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

    def each(self, rows: type_bool, function: Callable[[type_f64], Any]) -> Any:
        """Return what a function makes of the vectors of some rows: one value for each row, whatever rows stand beside it.

        Args:
            rows: (n,) which.
            function: of (k, features), returns (k,). Where the vectors are elsewhere it is sent there, and called for some rows at a time.
        """
        return function(self.vectors[rows])

    def some(self, rows: type_bool) -> type_f64:
        """Return the vectors of rows; of many thousands of them where not all fit into memory."""
        return self.vectors[rows]

    def take(self, rows: type_i64) -> type_f64:
        """Return the vectors of a few rows, by their numbers."""
        return self.vectors[rows]

    def weights_of(self, rows: type_bool) -> type_f64 | None:
        """Return the weights of rows; None where all are equal: they say nothing, and XGBoost would choose its bins otherwise."""
        weight = self.weight[rows]
        return weight if (weight != 1).any() else None

    def fit(
        self, rows: type_bool, view: Callable[[type_f64, int], type_f64], rounds: int = ROUNDS, **others: Any
    ) -> xgboost.Booster:
        """Train a booster.

        Args:
            rows: (n,) on which.
            view: what is made of their vectors first; its second argument is the number of the part that they are of, 0 where there is one.
            rounds: how many trees.
            others: parameters that are not as in :data:`PARAMETERS`.
        """
        # Names stay out of the booster: the manifest holds them, and arrays are scored without them.
        matrix = xgboost.DMatrix(view(self.vectors[rows], 0), label=self.fraud[rows], weight=self.weights_of(rows))
        return xgboost.train(PARAMETERS | others, matrix, num_boost_round=rounds)


def days_of(time_ms: type_i64) -> type_i64:
    """Return the day of each time in epoch milliseconds, counted from the midnight before the first."""
    return time_ms // DAY_MS - time_ms.min(initial=2**62) // DAY_MS


def with_gaps(vectors: type_f64, part: int = 0) -> type_f64:
    """Return vectors in some of which what others know is missing, so that the model learns what to make of that; in other ones for each part."""
    rng, gappy = np.random.default_rng(int(PARAMETERS["seed"]) + part), vectors.copy()
    for columns in (TERMINAL_COLUMNS, REFERENCE_COLUMNS):
        gappy[np.ix_(rng.random(len(vectors)) < GAP_SHARE, columns)] = np.nan
    return gappy


def without_others(vectors: type_f64, part: int = 0) -> type_f64:  # noqa: ARG001 - the signature of a view
    """Return vectors as they are when what others know does not come in time."""
    alone = vectors.copy()
    alone[:, OF_OTHERS] = np.nan
    return alone
