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


def released_folders() -> list[Path]:
    """Return the folders of every released model."""
    return [path.parent for path in sorted(data_folder("models").glob("*/*/manifest.json"))]


class Scoring:
    """The released models that decisions name, scored and explained with XGBoost itself."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._models: dict[tuple[str, str], tuple[xgboost.Booster, list[float]]] = {}
        for folder in folders:
            manifest = json.loads((folder / "manifest.json").read_text())
            booster = xgboost.Booster()
            booster.load_model(str(folder / "model.json"))
            cuts = [manifest["thresholds"][name] for name in ("challenge", "review", "block")]
            self._models[manifest["name"], manifest["version"]] = booster, cuts

    def check(self, decisions: Sequence[dict[str, Any]], verdict: Verdict) -> None:
        """Blame every decision whose score, action or reasons are not its model's on its recorded vector."""
        by_model: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for decision in decisions:
            by_model[decision["model"], decision["model_version"]].append(decision)
        for name, mine in by_model.items():
            if name not in self._models:
                verdict.blame("wrong-decision", f"by a model that is not released: {name}")
                continue
            booster, cuts = self._models[name]
            scores = booster.predict(xgboost.DMatrix(np.array([d["features"] for d in mine])), validate_features=False)
            for decision, score in zip(mine, scores.astype(np.float64).tolist(), strict=True):
                action = ("APPROVE", "CHALLENGE", "REVIEW", "BLOCK")[sum(cut <= score for cut in cuts)]
                if (decision["score"], decision["action"]) != (score, action):
                    said = f"{decision['action']} {decision['score']}"
                    verdict.blame("wrong-decision", f"{_position(decision)}: {said}, the model says {action} {score}")
            self._check_reasons(booster, [d for d in mine if d["action"] != "APPROVE"], verdict)

    @staticmethod
    def _check_reasons(booster: xgboost.Booster, alerted: list[dict[str, Any]], verdict: Verdict) -> None:
        if not alerted:
            return
        matrix = xgboost.DMatrix(np.array([d["features"] for d in alerted]))
        shares = booster.predict(matrix, pred_contribs=True, validate_features=False)[:, :-1].astype(np.float64)
        for decision, row in zip(alerted, shares, strict=True):
            order = np.argsort(-row, kind="stable")[:3]
            wanted = [float(row[j]) for j in order if row[j] > 0]
            if [reason["weight"] for reason in decision["reasons"]] != wanted:
                verdict.blame("wrong-decision", f"{_position(decision)}: other reasons than the model's")


def _position(decision: dict[str, Any]) -> str:
    return f"{decision['source_partition']}/{decision['source_offset']}"
