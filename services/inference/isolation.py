"""An isolation forest: how unlike all that was seen a transaction is, whether anybody ever labelled such a thing or not.

Released as JSON and checked when it is loaded, as every model; scored by a numba kernel.

Source: Liu, Ting, Zhou, *Isolation Forest*, ICDM 2008: the fewer cuts at random isolate a point, the stranger it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from services.core.columns import type_f64
from services.inference.base import ModelError
from services.inference.json_files import parse_object
from services.inference.walk import Walk

NODES_MAX: Final = 1_000_000
_ARRAYS: Final = {"left": np.int32, "right": np.int32, "feature": np.int32, "cut": np.float32, "depth": np.float64}


@dataclass(frozen=True, slots=True)
class IsolationForest:
    """The trees, node by node, one tree after the other; see :class:`services.inference.base.Anomaly`."""

    root: np.ndarray
    """(trees,) the first node of each tree."""
    left: np.ndarray
    """(nodes,) where a value up to the cut goes; -1 at a leaf."""
    right: np.ndarray
    feature: np.ndarray
    cut: np.ndarray
    """(nodes,) float32, as the values that are compared with it."""
    depth: np.ndarray
    """(nodes,) of a leaf: the cuts that isolate a point there, those that the training did not make estimated."""
    usual_depth: float
    """The mean depth over random data: a point of this depth scores 0.5."""
    typical: np.ndarray
    """(features,) what a missing value is taken for: to have no history is not anomalous."""
    review: float
    """The score from which people look at a transaction."""
    walk: Walk = field(init=False, repr=False)

    def __post_init__(self) -> None:
        nodes = np.arange(len(self.left))
        inner = self.left >= 0
        sound = (
            len(self.root) > 0
            and len({len(getattr(self, name)) for name in _ARRAYS}) == 1
            and 0 < len(self.left) <= NODES_MAX
            and bool(((self.right >= 0) == inner).all())
            # Ways lead onwards only, so every walk ends.
            and bool((self.left[inner] > nodes[inner]).all() and (self.right[inner] > nodes[inner]).all())
            and bool((np.maximum(self.left, self.right) < len(self.left)).all())
            and bool(((self.root >= 0) & (self.root < len(self.left))).all())
            and bool(((self.feature >= 0) & (self.feature < len(self.typical))).all())
            and bool(np.isfinite(self.typical).all())
            and bool(np.isfinite(self.cut[inner]).all() and (self.depth[~inner] >= 0).all())
            and self.usual_depth > 0
            and 0 < self.review <= 1
        )
        if not sound:
            raise ModelError("the anomaly model is not a forest")
        trees = self.left, self.right, self.feature, self.cut, np.zeros(len(self.left), bool)
        object.__setattr__(self, "walk", Walk.of(self.root, trees, self.depth, len(self.typical), up_to=True))

    def score(self, vectors: type_f64) -> type_f64:
        """See :class:`services.inference.base.Anomaly`."""
        depths = np.zeros(len(vectors))
        self.walk.add(np.where(np.isnan(vectors), self.typical, vectors), depths)
        # Rounded, since processors do not agree on the last bit of a power.
        return np.round(2.0 ** (-depths / (len(self.root) * self.usual_depth)), 9)

    def as_json(self) -> dict[str, Any]:
        """Return what :meth:`of` reads."""
        arrays = {name: getattr(self, name).tolist() for name in ("root", "left", "right", "feature", "typical")}
        numbers = {
            name: [float(np.format_float_positional(x)) for x in getattr(self, name)] for name in ("cut", "depth")
        }
        return arrays | numbers | {
            "usual_depth": self.usual_depth, "review": self.review,
        }  # fmt: skip

    @classmethod
    def of(cls, raw: bytes, features: int) -> IsolationForest:
        """Read and check what :meth:`as_json` wrote. Raises ModelError."""
        try:
            read = parse_object(raw, "the anomaly model")
            arrays: dict[str, Any] = {name: np.array(read[name], dtype) for name, dtype in _ARRAYS.items()}
            arrays |= {"root": np.array(read["root"], np.int32), "typical": np.array(read["typical"], np.float64)}
            found = cls(**arrays, usual_depth=float(read["usual_depth"]), review=float(read["review"]))
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise ModelError(f"the anomaly model cannot be read: {type(error).__name__}: {error}") from None
        if len(found.typical) != features:
            raise ModelError(f"the anomaly model knows {len(found.typical)} features, not {features}")
        return found
