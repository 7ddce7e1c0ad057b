"""How good scores are: ranking metrics, and what the thresholds make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from services.core.columns import type_bool, type_f64, type_i64
from services.core.policy import Action
from services.core.vacuous import require_both, require_finite, require_varied
from services.offline.trainer.costs import CostTable


def card_precision_at(scores: type_f64, fraud: type_bool, card: type_i64, day: type_i64, top: int = 100) -> float:
    """Return CP@top of the handbook: the precision among each day's ``top`` cards, the mean over the days.

    A card's score of a day is its highest; a card found to be defrauded is left out on later days.
    Source: Fraud Detection Handbook, chapter 4, "Card Precision top-k".
    """
    found: set[int] = set()
    precisions = []
    for today in np.unique(day):
        rows = np.flatnonzero(day == today)
        rows = rows[~np.isin(card[rows], list(found))]
        cards, at = np.unique(card[rows], return_inverse=True)
        highest, bad = np.full(len(cards), -1.0), np.zeros(len(cards), bool)
        np.maximum.at(highest, at, scores[rows])
        np.logical_or.at(bad, at, fraud[rows])
        best = np.argsort(-highest, kind="stable")[:top]
        precisions.append(bad[best].sum() / top)
        found |= set(cards[best][bad[best]].tolist())
    return float(np.mean(precisions))


def ranking_metrics(scores: type_f64, fraud: type_bool, card: type_i64, day: type_i64) -> dict[str, float]:
    """Return AUC ROC, average precision and CP@100.

    Raises:
        VacuousError: there are no rows, scores are not numbers or all alike, or there is one class only.
    """
    require_varied("scores", scores)
    require_both("the rows to rank", fraud)
    return {
        "auc_roc": round(float(roc_auc_score(fraud, scores)), 4),
        "average_precision": round(float(average_precision_score(fraud, scores)), 4),
        "card_precision_at_100": round(card_precision_at(scores, fraud, card, day), 4),
    }


def action_metrics(actions: type_i64, fraud: type_bool, amount_eur: type_f64, costs: CostTable) -> dict[str, Any]:
    """Return what actions come to: counts by action, precision, recall, money. Raises VacuousError without rows of both kinds."""
    require_both("the rows that actions are taken on", fraud)
    require_finite("amounts", amount_eur)
    flagged = actions != Action.APPROVE
    paid = np.choose(actions, [costs.of(a, fraud, amount_eur) for a in Action]).sum()
    unprotected = costs.of(Action.APPROVE, fraud, amount_eur).sum()
    return {
        "actions": {a.name: int((actions == a).sum()) for a in Action},
        "frauds_by_action": {a.name: int(((actions == a) & fraud).sum()) for a in Action},
        "precision": round(float(fraud[flagged].mean()), 4) if flagged.any() else 0.0,
        "recall": round(float(flagged[fraud].mean()), 4) if fraud.any() else 0.0,
        "cost_eur": round(float(paid), 2),
        "cost_without_model_eur": round(float(unprotected), 2),
    }


def scenario_metrics(actions: type_i64, scenario: np.ndarray) -> dict[str, dict[str, float]]:
    """Return, for each fraud scenario, how many there are and the share that is not approved."""
    flagged = actions != Action.APPROVE
    names = sorted(set(scenario[scenario != "genuine"]))
    return {
        name: {"frauds": int((scenario == name).sum()), "recall": round(float(flagged[scenario == name].mean()), 4)}
        for name in names
    }


def curve(scores: type_f64, fraud: type_bool) -> tuple[type_f64, type_f64, type_f64]:
    """Return precision, recall and threshold arrays of the precision-recall curve."""
    precision, recall, thresholds = precision_recall_curve(fraud, scores)
    return precision, recall, thresholds
