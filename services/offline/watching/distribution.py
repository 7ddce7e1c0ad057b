"""What features and scores looked like in training, in bins; and how far those of other transactions are from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from services.core.columns import type_f64, type_i64
from services.core.stability import stability_index

BINS: Final = 10
SCORES: Final = "score"
"""What the model's own output is called among the features."""


@dataclass(frozen=True, slots=True)
class Binned:
    """The values of one feature, counted in bins."""

    edges: type_f64
    """(b - 1,) where one bin ends and the next begins, ascending: a value on an edge is of the bin above it."""
    counts: type_f64
    """(b,) how many values each bin has."""
    missing: float
    """How many are missing."""

    @property
    def rows(self) -> float:
        """How many transactions were counted."""
        return float(self.counts.sum() + self.missing)

    @property
    def missing_share(self) -> float:
        """Of all transactions, for how many the value is missing; NaN of none."""
        return self.missing / self.rows if self.rows else float("nan")

    def of(self, values: type_f64) -> Binned:
        """Return other values counted in the same bins."""
        there = values[~np.isnan(values)]
        counts = np.bincount(np.searchsorted(self.edges, there, "right"), minlength=len(self.edges) + 1)
        return Binned(self.edges, counts.astype(np.float64), float(len(values) - len(there)))

    def plus(self, other: Binned) -> Binned:
        """Return both together."""
        return Binned(self.edges, self.counts + other.counts, self.missing + other.missing)

    @classmethod
    def by_quantiles(cls, values: type_f64) -> Binned:
        """Return values counted in bins of about as many each; a value that fills a whole one, as the 0 of a flag does, has it for itself."""
        there = values[~np.isnan(values)]
        if not len(there):
            return cls(np.empty(0), np.empty(0), 0.0).of(values)
        tenths = np.quantile(there, np.arange(BINS + 1) / BINS)
        often = np.unique(tenths[1:][np.diff(tenths) == 0])
        edges = np.unique(np.concatenate([tenths[1:-1], often, np.nextafter(often, np.inf)]))
        return cls(edges, np.empty(0), 0.0).of(values)

    def as_json(self) -> dict[str, Any]:
        """Return it for a manifest: whole counts."""
        return {"edges": self.edges.tolist(), "counts": self.counts.astype(int).tolist(), "missing": int(self.missing)}


def distribution_of(names: Sequence[str], vectors: type_f64, scores: type_f64) -> dict[str, Any]:
    """Return the distribution of a training set, for the manifest.

    Args:
        names: of the features.
        vectors: (n, features).
        scores: (m,) of transactions that the model did not learn from.
    """
    columns = {name: vectors[:, j] for j, name in enumerate(names)} | {SCORES: scores}
    return {name: Binned.by_quantiles(values).as_json() for name, values in columns.items()}


def read_distribution(document: Mapping[str, Any] | None) -> dict[str, Binned]:
    """Return what a manifest says; nothing where it says nothing. Raises ValueError for what is no distribution."""
    found = {}
    for name, one in (document or {}).items():
        try:
            edges, counts = np.array(one["edges"], np.float64), np.array(one["counts"], np.float64)
            binned = Binned(edges, counts, float(one["missing"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the distribution of {name} is damaged: {type(error).__name__}") from None
        if len(counts) != len(edges) + 1 or (np.diff(edges) <= 0).any() or (counts < 0).any() or binned.rows <= 0:
            raise ValueError(f"the distribution of {name} is damaged: its edges or counts cannot be")
        found[name] = binned
    return found


@dataclass(frozen=True, slots=True)
class Drift:
    """How far one feature is from what it was in training."""

    name: str
    stability_index: float
    """Population stability index, of the bins and of what is missing: below 0.1 little, above 0.25 much."""
    distance: float
    """The largest difference of the two cumulative distributions over the bins' edges (Kolmogorov-Smirnov), 0 to 1; missing values left out."""
    missing_before: float
    """Of all transactions, for how many the value was missing in training."""
    missing: float
    """The same now."""

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {name: _rounded(getattr(self, name)) for name in self.__slots__}


def _rounded(value: Any) -> Any:
    if isinstance(value, str):
        return value
    return None if np.isnan(value) else round(float(value), 6)


def drift_of(name: str, before: Binned, now: Binned) -> Drift:
    """Return how far a feature is from what it was; a bin that neither has is passed over."""
    e, a = (np.append(one.counts, one.missing) for one in (before, now))
    used = (e > 0) | (a > 0)
    index = stability_index(e[used], a[used]) if now.rows else float("nan")
    return Drift(name, index, _distance(before.counts, now.counts), before.missing_share, now.missing_share)


def _distance(before: type_f64 | type_i64, now: type_f64 | type_i64) -> float:
    if not before.sum() or not now.sum():
        return float("nan")
    return float(np.abs(np.cumsum(before) / before.sum() - np.cumsum(now) / now.sum()).max())
