"""The table of a release: for every class of transactions the booster and the thresholds that cost least on the validation days."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from services.core.classes import TransactionClass
from services.core.columns import type_bool, type_f64, type_i64
from services.core.policy import Action, Thresholds
from services.inference.artifact import CHAMPION
from services.inference.trees import Route
from services.offline.trainer.costs import CostTable, choose_thresholds

FRAUDS_MIN: Final = 50
"""A class with fewer on the validation days takes the thresholds of all transactions: of so few none can be chosen."""
OWN_FRAUDS_MIN: Final = 100
"""A class with fewer on the training days gets no booster of its own."""
BETTER: Final = 0.95
"""A booster of its own must cost a class at most this share of what the champion costs it: two are more to keep than one."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The validation days."""

    fraud: type_bool
    amount_eur: type_f64
    classes: type_i64

    def of(self, one: TransactionClass) -> type_bool:
        """Which rows are of a class."""
        return self.classes == one


@dataclass(frozen=True, slots=True)
class Table:
    """What was chosen, and what it rests on."""

    routes: dict[TransactionClass, Route]
    by_class: dict[str, Any]
    """Of every class the frauds that it was chosen on, and what each candidate cost, in EUR."""


def choose_table(
    champion: type_f64, own: Callable[[TransactionClass], type_f64 | None], judged: Judged, costs: CostTable
) -> Table:
    """Choose a route for every class.

    Args:
        champion: (n,) the champion's score of each row of the validation days.
        own: returns the scores, of the rows of a class, by a booster that was trained on that class alone; None where there is none.
        judged: the validation days.
        costs: what actions cost.
    """
    overall = choose_thresholds(champion, judged.fraud, judged.amount_eur, costs)
    routes, by_class = {}, {}
    for one in TransactionClass:
        rows = judged.of(one)
        fraud, amount_eur = judged.fraud[rows], judged.amount_eur[rows]
        enough = int(fraud.sum()) >= FRAUDS_MIN
        thresholds = choose_thresholds(champion[rows], fraud, amount_eur, costs) if enough else overall
        route, cost = Route(CHAMPION, thresholds), _cost(thresholds, champion[rows], fraud, amount_eur, costs)
        by_class[one.name] = {"frauds": int(fraud.sum()), "own_thresholds": enough, "cost_eur": round(cost, 2)}
        scores = own(one) if enough else None
        if scores is not None:
            mine = choose_thresholds(scores, fraud, amount_eur, costs)
            by_class[one.name]["own_booster_cost_eur"] = round(_cost(mine, scores, fraud, amount_eur, costs), 2)
            if by_class[one.name]["own_booster_cost_eur"] <= BETTER * cost:
                route = Route(booster_name(one), mine)
        routes[one] = route
    return Table(routes, by_class)


def booster_name(one: TransactionClass) -> str:
    """Return what a class's own booster is called."""
    return one.name.lower().replace("_", "-")


def _cost(thresholds: Thresholds, scores: type_f64, fraud: type_bool, amount_eur: type_f64, costs: CostTable) -> float:
    actions = thresholds.actions(scores)
    return float(np.choose(actions, [costs.of(action, fraud, amount_eur) for action in Action]).sum())
