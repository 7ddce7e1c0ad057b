"""One metric, and its labels, as they are declared: see :mod:`services.runtime.catalogue`."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import numpy as np

from services.core.columns import type_f64

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


@dataclass(frozen=True, slots=True)
class Label:
    """A label and the values that it takes; None where they are not fixed in the code."""

    name: str
    values: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric: its Prometheus name, kind, unit, meaning, and labels. It is what it is declared as, and equal to itself alone."""

    name: str
    kind: str
    unit: str
    meaning: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    edges: type_f64 = field(init=False)
    """The buckets as an array."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", np.array(self.buckets, np.float64))

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the labels, in order."""
        return tuple(label.name for label in self.labels)

    @property
    def series(self) -> list[tuple[str, ...]]:
        """The label values of every series, where they are known beforehand; else nothing."""
        values = [label.values for label in self.labels]
        return list(product(*(v for v in values if v is not None))) if None not in values else []

    def takes(self, values: tuple[str, ...]) -> bool:
        """Whether these label values fit."""
        return len(values) == len(self.labels) and all(
            label.values is None or value in label.values for label, value in zip(self.labels, values, strict=True)
        )
