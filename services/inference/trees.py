"""One booster, and a table that gives boosters and thresholds to classes of transactions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import njit

from services.core.classes import TransactionClass, classify
from services.core.columns import type_f64, type_i64
from services.core.policy import Thresholds
from services.inference.base import ModelError
from services.inference.forest import Forest, ForestError, Scores, Shares
from services.inference.lean_xgboost import xgboost

PROBE_ROWS: Final = 512
"""What the kernel must score exactly as XGBoost does before it is used."""


class Booster:
    """XGBoost's booster, with kernels that score and explain as it does, and sooner."""

    def __init__(self, raw: bytes) -> None:
        """Read XGBoost's JSON. Raises ModelError."""
        self._booster = xgboost.Booster()
        try:
            self._booster.load_model(bytearray(raw))
        except xgboost.core.XGBoostError as error:
            raise ModelError(f"XGBoost cannot read a booster: {error}") from None
        # One thread: a worker is one process a core, and a small batch is not worth waking others.
        self._booster.set_param({"nthread": 1})
        self._scores: Scores | None = None
        self._shares: Shares | None = None
        try:
            forest = Forest.of(raw)
            self._shares = Shares.of(forest)
            scores, probe = Scores(forest), _probe(forest)
            # Where the machine's exponential function is another one, XGBoost itself scores, at its pace.
            self._scores = scores if (scores.predict(probe) == self._by_xgboost(probe)).all() else None
        except ForestError:
            pass  # XGBoost itself explains, or scores

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process as what it was read from."""
        return Booster, (bytes(self._booster.save_raw("json")),)

    def _by_xgboost(self, vectors: type_f64) -> type_f64:
        return np.asarray(self._booster.inplace_predict(vectors, validate_features=False), np.float64)

    def predict(self, vectors: type_f64) -> type_f64:
        """See :class:`services.inference.Predictor`."""
        if not len(vectors):
            return np.empty(0)
        return self._by_xgboost(vectors) if self._scores is None else self._scores.predict(vectors)

    def explain(self, vectors: type_f64) -> type_f64:
        """See :class:`services.inference.Predictor`. Source: Lundberg et al., TreeSHAP, 2018, as XGBoost computes it."""
        if not len(vectors):
            return np.empty((0, vectors.shape[1]))
        if self._shares is not None:
            return self._shares.explain(vectors)
        matrix = xgboost.DMatrix(vectors, nthread=1)
        shares = self._booster.predict(matrix, pred_contribs=True, validate_features=False)
        return np.asarray(shares[:, :-1], np.float64)  # the last column is the bias


def _probe(forest: Forest) -> type_f64:
    """Return rows of numbers on the very cuts of the trees, just beside them, and missing: where a wrong comparison would show."""
    rng, inner = np.random.default_rng(1), np.flatnonzero(forest.left >= 0)
    rows = np.full((PROBE_ROWS, forest.features), np.nan)
    for j in range(forest.features if len(inner) else 0):
        cuts = forest.threshold[inner][forest.feature[inner] == j]
        if len(cuts):
            rows[:, j] = rng.choice(cuts, PROBE_ROWS)
    rows = np.where(rng.random(rows.shape) < 0.3, np.nextafter(rows.astype(np.float32), np.float32(-np.inf)), rows)
    return np.where(rng.random(rows.shape) < 0.1, np.nan, rows)


@dataclass(frozen=True, slots=True)
class Route:
    """What a table of a release says of one class: which booster scores it, and what a score means there."""

    booster: str
    thresholds: Thresholds

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Route:
        """Read an entry of a manifest. Raises TypeError, ValueError, KeyError."""
        return cls(str(document["booster"]), Thresholds(**document["thresholds"]))


@njit(cache=True, nogil=True)
def _actions(limits: type_f64, classes: type_i64, scores: type_f64) -> type_i64:
    out = np.zeros(len(scores), np.int64)
    for i in range(len(scores)):
        for limit in limits[classes[i]]:
            out[i] += scores[i] >= limit
    return out


class ClassTable:
    """See :class:`services.inference.Predictor`: one :class:`Route` for every class."""

    def __init__(self, routes: Mapping[TransactionClass, Route], boosters: Mapping[str, Booster]) -> None:
        if routes.keys() != set(TransactionClass):
            raise ModelError("the table of classes must have each class once")
        self.boosters: Sequence[str] = sorted({route.booster for route in routes.values()})
        if missing := set(self.boosters) - boosters.keys():
            raise ModelError(f"the table of classes names a booster that is not there: {min(missing)}")
        self.by_name: Mapping[str, Booster] = {name: boosters[name] for name in self.boosters}
        """The boosters that score, in the order of their names."""
        self._boosters = list(self.by_name.values())
        in_order = [routes[one] for one in TransactionClass]
        self._booster_of = np.array([self.boosters.index(route.booster) for route in in_order], np.int64)
        limits = [(t.challenge, t.review, t.block) for t in (route.thresholds for route in in_order)]
        self._limits = np.array(limits, np.float64)

    def scored_by(self, classes: type_i64) -> type_i64:
        """See :class:`services.inference.Predictor`."""
        return self._booster_of[classes]

    def predict(self, vectors: type_f64) -> type_f64:
        """See :class:`services.inference.Predictor`."""
        return self._by_booster(vectors, Booster.predict, np.empty(len(vectors)))

    def explain(self, vectors: type_f64) -> type_f64:
        """See :class:`services.inference.Predictor`."""
        return self._by_booster(vectors, Booster.explain, np.empty(vectors.shape))

    def actions(self, classes: type_i64, scores: type_f64) -> type_i64:
        """See :class:`services.inference.Predictor`."""
        return _actions(self._limits, classes, scores)

    def challenged_from(self, classes: type_i64) -> type_f64:
        """See :class:`services.inference.Predictor`."""
        return self._limits[classes, 0]

    def _by_booster(self, vectors: type_f64, work: Callable[[Booster, type_f64], type_f64], out: type_f64) -> type_f64:
        """Fill ``out`` with what each row's booster says of it: at once where it is the same one for all."""
        if len(self._boosters) == 1:
            return work(self._boosters[0], vectors)
        which = self.scored_by(classify(vectors))
        for at, booster in enumerate(self._boosters):
            rows = np.flatnonzero(which == at)
            if len(rows):
                out[rows] = work(booster, vectors[rows])
        return out
