"""Many rows through many trees: the one kernel that scores, for boosters and isolation forests.

A step of a walk is a comparison that goes either way, which a processor guesses wrong half of the time, and pays for each time. So here a step has
no branch: a number's bits are turned into an integer of the same order, a missing value into the smallest or largest one, whichever leads
where the tree sends it; and which child comes next is computed. Some dozen rows step through a tree side by side, so that one waits for the memory while others work; of few rows each steps through some trees side by side.
A leaf leads to itself, so that all take as many steps as the tree is deep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import njit

from services.core.columns import type_f64

ROWS_TOGETHER: Final = 64
TREES_TOGETHER: Final = 16
FEW: Final = 8
"""Below so many rows it is trees that are walked side by side: one row would wait for the memory at each step."""
_LOWEST, _HIGHEST = np.int32(-(2**31)), np.int32(2**31 - 1)
FEATURE, CUT, RIGHT, LEFT = range(4)
"""Columns of a node: the column of the row's numbers, what they are compared with, and where a larger or a smaller number goes."""


@dataclass(frozen=True, slots=True)
class Walk:
    """Trees, packed."""

    root: np.ndarray
    """(trees,) the first node of each tree."""
    depth: np.ndarray
    """(trees,) the most steps from it to a leaf."""
    nodes: np.ndarray
    """(nodes, 4) int32: see above."""
    value: np.ndarray
    """(nodes,) of a leaf, what it adds to a row's total."""
    features: int

    @classmethod
    def of(cls, root: np.ndarray, trees: Any, value: np.ndarray, features: int, *, up_to: bool = False) -> Walk:
        """Pack trees whose every node comes behind the one above it.

        Args:
            root: (trees,) the first node of each tree.
            trees: left (nodes,), -1 at a leaf; right; feature; cut, float32; whether a missing value goes to the left.
            value: (nodes,) of each leaf, float32 or float64: what the totals are added up in.
            features: how many numbers a row has.
            up_to: whether a number that equals the cut goes to the left, too.
        """
        left, right, feature, cut, missing_left = trees
        leaf, itself = left < 0, np.arange(len(left), dtype=np.int32)
        nodes = np.zeros((len(left), 4), np.int32)
        nodes[:, FEATURE] = np.where(leaf, 0, np.where(missing_left, feature, feature + features))
        nodes[:, CUT] = np.where(leaf, 0, _ordered(cut) + np.int32(up_to))
        nodes[:, RIGHT], nodes[:, LEFT] = np.where(leaf, itself, right), np.where(leaf, itself, left)
        level = np.zeros(len(left), np.int64)
        for node in np.flatnonzero(~leaf).tolist():
            level[left[node]] = level[right[node]] = level[node] + 1
        return cls(root.astype(np.int64), np.maximum.reduceat(level, root), nodes, value, features)

    def add(self, vectors: type_f64, totals: np.ndarray) -> None:
        """Add to each total (n,), tree by tree, what the leaves give that a row of (n, features) comes to."""
        add_leaves(self.packed, vectors, totals)

    @property
    def packed(self) -> Any:
        """What :func:`add_leaves` takes."""
        return self.root, self.depth, self.nodes, self.value


def _ordered(numbers: np.ndarray) -> np.ndarray:
    """Return integers that are ordered as the numbers are, float32; both zeros are one."""
    bits = (numbers.astype(np.float32) + np.float32(0.0)).view(np.int32)
    return np.where(bits < 0, _LOWEST - bits, bits).astype(np.int32)


@njit(cache=True, nogil=True)
def take_row(vector: type_f64, single: np.ndarray, bits: np.ndarray, row: np.ndarray) -> None:
    """Fill a row's numbers in the order of :func:`_ordered`, twice: with missing ones as the smallest, and as the largest."""
    features = len(vector)
    for j in range(features):
        single[j] = np.float32(vector[j]) + np.float32(0.0)
    for j in range(features):
        ordered = np.int32(_LOWEST - bits[j]) if bits[j] < 0 else bits[j]
        missing = np.isnan(single[j])
        row[j] = _LOWEST if missing else ordered
        row[features + j] = _HIGHEST if missing else ordered


@njit(cache=True, nogil=True)
def _add_to_few(trees: Any, vectors: type_f64, totals: np.ndarray) -> None:
    root, depth, nodes, value = trees
    features = vectors.shape[1]
    numbers, single = np.empty(2 * features, np.int32), np.empty(features, np.float32)
    bits, at = single.view(np.int32), np.empty(TREES_TOGETHER, np.int32)
    for i in range(len(vectors)):
        take_row(vectors[i], single, bits, numbers)
        for first in range(0, len(root), TREES_TOGETHER):
            count, steps = min(TREES_TOGETHER, len(root) - first), 0
            for t in range(count):
                at[t] = root[first + t]
                steps = max(steps, depth[first + t])
            for _ in range(steps):
                for t in range(count):
                    smaller = numbers[nodes[at[t], FEATURE]] < nodes[at[t], CUT]
                    at[t] = nodes[at[t], RIGHT + np.int32(smaller)]
            for t in range(count):
                totals[i] += value[at[t]]


@njit(cache=True, nogil=True)
def _add_to_many(trees: Any, vectors: type_f64, totals: np.ndarray) -> None:
    root, depth, nodes, value = trees
    features = vectors.shape[1]
    numbers, single = np.empty((ROWS_TOGETHER, 2 * features), np.int32), np.empty(features, np.float32)
    bits, at = single.view(np.int32), np.empty(ROWS_TOGETHER, np.int32)
    for first in range(0, len(vectors), ROWS_TOGETHER):
        count = min(ROWS_TOGETHER, len(vectors) - first)
        for i in range(count):
            take_row(vectors[first + i], single, bits, numbers[i])
        for tree in range(len(root)):
            for i in range(count):
                at[i] = root[tree]
            for _ in range(depth[tree]):
                for i in range(count):
                    node = at[i]
                    smaller = numbers[i, nodes[node, FEATURE]] < nodes[node, CUT]
                    at[i] = nodes[node, RIGHT + np.int32(smaller)]
            for i in range(count):
                totals[first + i] += value[at[i]]


@njit(cache=True, nogil=True)
def add_leaves(trees: Any, vectors: type_f64, totals: np.ndarray) -> None:
    """See :meth:`Walk.add`."""
    if len(vectors) < FEW:
        _add_to_few(trees, vectors, totals)
    else:
        _add_to_many(trees, vectors, totals)
