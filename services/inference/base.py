"""What the scorer needs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.core.columns import type_f64, type_i64


class ModelError(Exception):
    """A model cannot be used: a file is missing, was changed, or belongs to another feature set."""


class Anomaly(Protocol):
    """How anomalous transactions are, whether such things were ever labelled or not; called as a :class:`Predictor` is."""

    @property
    def review(self) -> float:
        """The score from which people look at a transaction that would be approved."""
        ...

    def score(self, vectors: type_f64) -> type_f64:
        """Return how anomalous each row of (n, features) is, 0 to 1, shape (n,)."""
        ...


class Predictor(Protocol):
    """Scores each transaction by the booster that a table of the release gives to its class, and turns scores into actions.

    The worker's thread calls it; no method keeps or changes its arguments, or fails for data. A row's result depends on that row
    alone: scoring it again, in another batch, gives the same bits.
    """

    @property
    def boosters(self) -> Sequence[str]:
        """The names of the boosters that it may use."""
        ...

    def scored_by(self, classes: type_i64) -> type_i64:
        """Return, as an index of :attr:`boosters`, which one scores each transaction of these classes, shape (n,)."""
        ...

    def predict(self, vectors: type_f64) -> type_f64:
        """Return the score of each row of (n, features): a probability, shape (n,)."""
        ...

    def explain(self, vectors: type_f64) -> type_f64:
        """Return each feature's share of each score in log-odds, shape (n, features): slow, for alerted rows only."""
        ...

    def actions(self, classes: type_i64, scores: type_f64) -> type_i64:
        """Return the :class:`services.core.policy.Action` of each transaction at its score, by the thresholds of its class, shape (n,)."""
        ...

    def challenged_from(self, classes: type_i64) -> type_f64:
        """Return the score from which each transaction of these classes is not approved, shape (n,)."""
        ...


class Model(Protocol):
    """A verified release, or what of it can be used."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    @property
    def version(self) -> str:
        """Its version."""
        ...

    @property
    def champion(self) -> Predictor | None:
        """By the table of classes; None where what that needs cannot be used."""
        ...

    @property
    def anomaly(self) -> Anomaly | None:
        """Trained with the champion, and there where it is."""
        ...

    @property
    def small(self) -> Predictor:
        """One small booster that needs nothing but the card's own past, for decisions that must be made without the rest."""
        ...
