"""The released models, scored and explained with XGBoost itself."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from services.checker.findings import Verdict
from services.paths import data_folder

ACTIONS = ("APPROVE", "CHALLENGE", "REVIEW", "BLOCK")
"""From the mildest to the most severe."""
SHARE_TOLERANCE = 1e-4
"""Of log-odds: XGBoost adds up in single precision."""


def released_folders() -> list[Path]:
    """Return the folders of every released model."""
    return [path.parent for path in sorted(data_folder("models").glob("*/*/manifest.json"))]


class Scoring:
    """The released models that decisions name, scored and explained with XGBoost itself."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._models: dict[tuple[str, str], tuple[xgboost.Booster, list[float], list[str]]] = {}
        for folder in folders:
            manifest = json.loads((folder / "manifest.json").read_text())
            booster = xgboost.Booster()
            booster.load_model(str(folder / "model.json"))
            cuts = [manifest["thresholds"][name] for name in ("challenge", "review", "block")]
            self._models[manifest["name"], manifest["version"]] = booster, cuts, manifest["feature_names"]

    def check(self, decisions: Sequence[dict[str, Any]], verdict: Verdict) -> None:
        """Blame every decision whose score, action or reasons are not its model's on its recorded vector."""
        by_model: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for decision in decisions:
            by_model[decision["model"], decision["model_version"]].append(decision)
        for name, mine in by_model.items():
            if name not in self._models:
                verdict.blame("wrong-decision", f"by a model that is not released: {name}")
                continue
            booster, cuts, features = self._models[name]
            scores = booster.predict(xgboost.DMatrix(np.array([d["features"] for d in mine])), validate_features=False)
            for decision, score in zip(mine, scores.astype(np.float64).tolist(), strict=True):
                action = _with_rules(ACTIONS[sum(cut <= score for cut in cuts)], decision)
                if (decision["score"], decision["action"]) != (score, action):
                    said = f"{decision['action']} {decision['score']}"
                    verdict.blame("wrong-decision", f"{_position(decision)}: {said}, the model says {action} {score}")
            _check_reasons(booster, features, [d for d in mine if d["action"] != "APPROVE"], verdict)


def _check_reasons(booster: xgboost.Booster, names: list[str], alerted: list[dict[str, Any]], verdict: Verdict) -> None:
    if not alerted:
        return
    matrix = xgboost.DMatrix(np.array([d["features"] for d in alerted]))
    shares = booster.predict(matrix, pred_contribs=True, validate_features=False)[:, :-1].astype(np.float64)
    for decision, row in zip(alerted, shares, strict=True):
        heaviest = sorted((float(share) for share in row if share > 0), reverse=True)[:3]
        told = [(names.index(reason["code"]), reason["weight"]) for reason in decision["reasons"]]
        # The worker adds up in another order and precision, so two shares that are as good as equal may change places.
        right = len(told) == len(heaviest) and all(
            abs(row[j] - weight) < SHARE_TOLERANCE and abs(weight - wanted) < SHARE_TOLERANCE
            for (j, weight), wanted in zip(told, heaviest, strict=True)
        )
        if not right:
            verdict.blame("wrong-decision", f"{_position(decision)}: other reasons than the model's")


def _with_rules(action: str, decision: dict[str, Any]) -> str:
    """Return what a rule that decided makes of the model's word: it approves, or is at least as severe."""
    said = [rule["action"] for rule in decision.get("rules", []) if rule["effect"] == "DECIDED"]
    if not said:
        return action
    return said[0] if said[0] == ACTIONS[0] else max(action, said[0], key=ACTIONS.index)


def _position(decision: dict[str, Any]) -> str:
    return f"{decision['source_partition']}/{decision['source_offset']}"
