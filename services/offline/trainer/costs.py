"""What each action costs, and the thresholds at which the next one becomes cheaper."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import combinations_with_replacement
from typing import Any, Final

import numpy as np

from services.core.columns import type_bool, type_f64
from services.core.policy import Action, Thresholds
from services.core.vacuous import require_finite

CANDIDATES: Final = 80
"""Scores that are tried as thresholds."""


@dataclass(frozen=True, slots=True)
class ActionCost:
    """What an action costs in EUR: on a genuine transaction, and the share of a fraud's loss that still comes about."""

    handling_eur: float
    genuine_eur: float
    loss_share: float


@dataclass(frozen=True, slots=True)
class CostTable:
    """The costs that the thresholds are chosen from; round figures, to be replaced by the bank's own."""

    chargeback_fee_eur: float = 15.0
    actions: dict[str, ActionCost] = field(
        default_factory=lambda: {
            "APPROVE": ActionCost(0.0, 0.0, 1.0),
            "CHALLENGE": ActionCost(0.10, 3.90, 0.30),  # one customer in some gives up; a fraudster sometimes passes
            "REVIEW": ActionCost(4.0, 4.0, 0.08),  # an analyst's minutes, and a customer who waits
            "BLOCK": ActionCost(0.0, 30.0, 0.0),  # a sale lost, a customer who calls
        }
    )

    def of(self, action: Action, fraud: type_bool, amount_eur: type_f64) -> type_f64:
        """Return what the action costs on each transaction."""
        cost = self.actions[action.name]
        loss = (amount_eur + self.chargeback_fee_eur) * cost.loss_share
        return cost.handling_eur + np.where(fraud, loss, cost.genuine_eur)

    def as_dict(self) -> dict[str, Any]:
        """Return the table for a manifest."""
        return asdict(self)


def choose_thresholds(scores: type_f64, fraud: type_bool, amount_eur: type_f64, costs: CostTable) -> Thresholds:
    """Return the three thresholds that cost least on these transactions, of ``CANDIDATES`` tried for each. Raises VacuousError."""
    require_finite("scores", scores)
    require_finite("amounts", amount_eur)
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    # below[a][i]: what action a costs on the i lowest scores.
    below = np.stack([np.concatenate([[0.0], np.cumsum(costs.of(a, fraud[order], amount_eur[order]))]) for a in Action])
    levels = np.unique(np.clip(np.quantile(ranked, 1.0 - np.geomspace(0.2, 1.0 / len(ranked), CANDIDATES)), 1e-4, 1.0))
    cut = np.searchsorted(ranked, levels, side="left")
    triples = np.array(list(combinations_with_replacement(range(len(levels)), 3)))
    c, r, b = (cut[triples[:, k]] for k in range(3))
    total = (
        below[Action.APPROVE][c]
        + (below[Action.CHALLENGE][r] - below[Action.CHALLENGE][c])
        + (below[Action.REVIEW][b] - below[Action.REVIEW][r])
        + (below[Action.BLOCK][-1] - below[Action.BLOCK][b])
    )
    best = levels[triples[int(np.argmin(total))]]
    return Thresholds(*(float(round(level, 6)) for level in best))
