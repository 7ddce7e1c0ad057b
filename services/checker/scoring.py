"""The released models, scored and explained with XGBoost itself."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from services.checker.findings import Verdict
from services.paths import data_folder

ACTIONS = ("APPROVE", "CHALLENGE", "REVIEW", "BLOCK")
"""From the mildest to the most severe."""
OF_ACCOUNT = {"ACCOUNT_NOT_ACTIVE", "INSUFFICIENT_FUNDS"}
"""The refusals that are the account's; the others are the customer's. Both block, whatever the others say."""
ANOMALY_TOLERANCE = 1e-8
"""Anomaly scores are rounded to nine digits."""
SHARE_TOLERANCE = 1e-4
"""Of log-odds: XGBoost adds up in single precision."""


def released_folders() -> list[Path]:
    """Return the folders of every released model."""
    return [path.parent for path in sorted(data_folder("models").glob("*/*/manifest.json"))]


@dataclass(frozen=True)
class Released:
    """One released model, as the checker reads it."""

    booster: xgboost.Booster
    cuts: list[float]
    names: list[str]
    strange: Strangeness

    @classmethod
    def of(cls, folder: Path, manifest: dict[str, Any]) -> Released:
        """Read a folder."""
        booster = xgboost.Booster()
        booster.load_model(str(folder / "model.json"))
        cuts = [manifest["thresholds"][name] for name in ("challenge", "review", "block")]
        strange = Strangeness(json.loads((folder / "anomaly.json").read_text()))
        return cls(booster, cuts, manifest["feature_names"], strange)


class Strangeness:
    """The anomaly model, walked tree by tree for all rows at once."""

    def __init__(self, read: dict[str, Any]) -> None:
        self._read = {name: np.array(value) for name, value in read.items()}
        self.review = float(read["review"])

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return the anomaly score of each row."""
        r = self._read
        known = np.where(np.isnan(rows), r["typical"], rows).astype(np.float32)
        depth = np.zeros(len(rows))
        for root in r["root"].tolist():
            node = np.full(len(rows), root)
            while (inner := np.flatnonzero(r["left"][node] >= 0)).size:
                at = node[inner]
                smaller = known[inner, r["feature"][at]] <= r["cut"][at].astype(np.float32)
                node[inner] = np.where(smaller, r["left"][at], r["right"][at])
            depth += r["depth"][node]
        return 2.0 ** (-depth / (len(r["root"]) * float(r["usual_depth"])))


class Scoring:
    """The released models that decisions name, scored and explained with XGBoost itself."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._models: dict[tuple[str, str], Released] = {}
        for folder in folders:
            manifest = json.loads((folder / "manifest.json").read_text())
            self._models[manifest["name"], manifest["version"]] = Released.of(folder, manifest)

    def check(self, decisions: Sequence[dict[str, Any]], verdict: Verdict) -> None:
        """Blame every decision whose scores, action or reasons are not its model's on its recorded vector."""
        by_model: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for decision in decisions:
            by_model[decision["model"], decision["model_version"]].append(decision)
        for name, mine in by_model.items():
            if name not in self._models:
                verdict.blame("wrong-decision", f"by a model that is not released: {name}")
                continue
            released = self._models[name]
            rows = np.array([d["features"] for d in mine])
            scores = released.booster.predict(xgboost.DMatrix(rows), validate_features=False)
            for decision, score, strange in zip(
                mine, scores.astype(np.float64).tolist(), released.strange.of(rows).tolist(), strict=True
            ):
                _check_action(released, decision, score, strange, verdict)
            _check_reasons(released.booster, released.names, [d for d in mine if d["action"] != "APPROVE"], verdict)


def _check_action(released: Released, decision: dict[str, Any], score: float, strange: float, verdict: Verdict) -> None:
    by_model = ACTIONS[sum(cut <= score for cut in released.cuts)]
    looked_at = "REVIEW" if by_model == "APPROVE" and decision["anomaly_score"] >= released.strange.review else by_model
    action = _with_rules(looked_at, decision)
    voice = "RULE" if action != looked_at else "ANOMALY" if looked_at != by_model else "MODEL"
    refused = [one["code"] for one in decision.get("refusals", [])]
    if refused:
        action, voice = "BLOCK", "ACCOUNT" if OF_ACCOUNT.intersection(refused) else "CUSTOMER"
    right = (score, action, voice) == (decision["score"], decision["action"], decision["decided_by"])
    if not right or abs(strange - decision["anomaly_score"]) > ANOMALY_TOLERANCE:
        said = f"{decision['action']} {decision['score']} {decision['anomaly_score']} by {decision['decided_by']}"
        verdict.blame(
            "wrong-decision", f"{_position(decision)}: {said}; it should be {action} {score} {strange} by {voice}"
        )


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
