"""What the scorer needs of a model."""

from __future__ import annotations

from typing import Final, Protocol

from services.core.columns import type_f64
from services.core.policy import Thresholds

FEW_PRECISION: Final = 1e-6
"""By what share of itself a score of :meth:`Model.predict_few` may differ from that of :meth:`Model.predict`."""


class ModelError(Exception):
    """A model cannot be used: a file is missing, was changed, or belongs to another feature set."""


class Anomaly(Protocol):
    """How strange transactions are, whether such things were ever labelled or not; called as a :class:`Model` is."""

    @property
    def review(self) -> float:
        """The score from which people look at a transaction that would be approved."""
        ...

    def score(self, vectors: type_f64) -> type_f64:
        """Return how strange each row of (n, features) is, 0 to 1, shape (n,)."""
        ...


class Model(Protocol):
    """A verified model. The worker's thread calls it; neither method keeps or changes its argument, or fails for data.

    A row's result depends on that row alone: scoring it again, in another batch, gives the same bits.
    """

    name: str
    version: str
    thresholds: Thresholds
    anomaly: Anomaly
    """Released and trained with it."""

    def predict(self, vectors: type_f64) -> type_f64:
        """Return the score of each row of ``vectors`` (n, features): a probability, shape (n,)."""
        ...

    def explain(self, vectors: type_f64) -> type_f64:
        """Return each feature's share of each score in log-odds, shape (n, features): slow, for alerted rows only."""
        ...

    def predict_few(self, vectors: type_f64) -> type_f64:
        """Return the score of each row, right to ``FEW_PRECISION``, shape (n,): quicker for a few rows, for asking what would be."""
        ...
