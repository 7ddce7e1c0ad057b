"""Train an isolation forest with scikit-learn, and take its trees out of it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from sklearn.ensemble import IsolationForest as Sklearn

from services.core.columns import type_f64
from services.inference.isolation import IsolationForest

TREES: Final = 64
SAMPLES: Final = 256
REVIEWED_SHARE: Final = 0.0005
"""Of all transactions: how many anomalous ones people have the time to look at."""
_EULER: Final = 0.5772156649015329


def usual_depth(samples: Any) -> type_f64:
    """Return the mean number of cuts that isolate one of so many points (Liu, Ting, Zhou, 2008, equation 1)."""
    n = np.maximum(np.asarray(samples, np.float64), 1.0)
    several = 2.0 * (np.log(np.maximum(n - 1.0, 1.0)) + _EULER) - 2.0 * (n - 1.0) / n
    return np.where(n > 2, several, np.where(n > 1, 1.0, 0.0))


def fit_isolation_forest(vectors: type_f64, judged: type_f64) -> IsolationForest:
    """Train on vectors, and choose the score for review by others, which the trees have not seen."""
    known = ~np.isnan(vectors)
    typical = np.array(
        [np.median(column[there]) if there.any() else 0.0 for column, there in zip(vectors.T, known.T, strict=True)]
    )
    model = Sklearn(n_estimators=TREES, max_samples=min(SAMPLES, len(vectors)), random_state=7)
    model.fit(np.where(known, vectors, typical))
    parts = [
        _tree(one.tree_, columns) for one, columns in zip(model.estimators_, model.estimators_features_, strict=True)
    ]
    sizes = np.array([len(part["left"]) for part in parts])
    root = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    shift = np.repeat(root, sizes)
    for name in ("left", "right"):
        joined[name] = np.where(joined[name] < 0, -1, joined[name] + shift).astype(np.int32)
    usual = float(usual_depth(model.max_samples_))
    undecided = IsolationForest(root, **joined, usual_depth=usual, typical=typical, review=1.0)
    review = float(np.quantile(undecided.score(judged), 1.0 - REVIEWED_SHARE))
    return IsolationForest(root, **joined, usual_depth=usual, typical=typical, review=review)


def _tree(tree: Any, columns: Any) -> dict[str, Any]:
    leaf = tree.children_left < 0
    depth = np.zeros(tree.node_count)
    for node in np.flatnonzero(~leaf):  # a node comes behind the one above it
        depth[[tree.children_left[node], tree.children_right[node]]] = depth[node] + 1.0
    return {
        "left": tree.children_left,
        "right": tree.children_right,
        "feature": np.where(leaf, 0, columns[np.where(leaf, 0, tree.feature)]).astype(np.int32),
        # A float32 is at most a cut if and only if it is at most the largest float32 up to it.
        "cut": _float32_below(np.where(leaf, 0.0, tree.threshold)),
        "depth": np.where(leaf, depth + usual_depth(tree.n_node_samples), 0.0),
    }


def _float32_below(values: type_f64) -> np.ndarray:
    rounded = values.astype(np.float32)
    return np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded)
