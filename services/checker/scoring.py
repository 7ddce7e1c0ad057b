"""The released models, scored and explained with XGBoost itself."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from services.checker.findings import Verdict
from services.core.money import EXPONENTS
from services.paths import data_folder

ACTIONS = ("APPROVE", "CHALLENGE", "REVIEW", "BLOCK")
"""From the mildest to the most severe."""
OF_ACCOUNT = {"ACCOUNT_NOT_ACTIVE", "INSUFFICIENT_FUNDS"}
"""The declines that are the account's; the others are the customer's. Both block, whatever the others say."""
ANOMALY_TOLERANCE = 1e-8
"""Anomaly scores are rounded to nine digits."""
WITHOUT_MODEL = ("RULES", "SAFE_DEFAULT")
"""The fallback tiers on which no model speaks."""
ATM, NOT_READ = 5, (3, 4)
"""How the card was read: at a machine; online, or keyed in."""
UNKNOWN = "TERMINAL_UNKNOWN"
OF_KNOWN_TERMINAL = ("terminal_known_count", "terminal_known_risk")
"""The features that every terminal has of which anything is known, and that nobody else has."""
SHARE_TOLERANCE = 1e-4
"""Of log-odds: XGBoost adds up in single precision."""


ByRisk = dict[tuple[bytes, str, float | None], str]
"""By :func:`key_of` a decision, what would have been done with it, had account and customer forbidden nothing."""


def key_of(recorded: dict[str, Any]) -> tuple[bytes, str, float | None]:
    """Return what a decision and its alert have in common, and no other has."""
    return recorded["decision_id"], recorded["action"], recorded["score"]


def released_folders(models: Path | None = None) -> list[Path]:
    """Return the folders of every released model: of those that travel with this code, and of those in another folder of models."""
    roots = [data_folder("models"), *([] if models is None else [models])]
    return [path.parent for root in roots for path in sorted(root.glob("*/*/manifest.json"))]


@dataclass(frozen=True)
class Released:
    """One released model, as the checker reads it."""

    boosters: dict[str, xgboost.Booster]
    routes: dict[str, tuple[str, list[float]]]
    """By class, the booster that scores it and from which scores on it is challenged, reviewed and blocked."""
    small: tuple[str, list[float]]
    names: list[str]
    anomalous: AnomalyScorer

    @classmethod
    def of(cls, folder: Path, manifest: dict[str, Any]) -> Released:
        """Read a folder."""
        boosters = {}
        for name in manifest["boosters"]:
            boosters[name] = xgboost.Booster()
            boosters[name].load_model(str(folder / f"{name}.json"))
        routes = {name: _route(recorded) for name, recorded in manifest["classes"].items()}
        anomalous = AnomalyScorer(json.loads((folder / "anomaly.json").read_text()))
        return cls(boosters, routes, _route(manifest["small"]), manifest["feature_names"], anomalous)

    def route(self, decision: dict[str, Any]) -> tuple[str, list[float]]:
        """Return what scores a decision's transaction on its fallback tier, and what its score means there."""
        return self.routes[self.class_of(decision)] if decision["fallback_tier"] == "CHAMPION" else self.small

    def score(self, decision: dict[str, Any]) -> tuple[float, float]:
        """Return the score and the anomaly score of a decision's recorded vector."""
        row = np.array([decision["features"]])
        booster = self.boosters[self.route(decision)[0]]
        [score] = booster.predict(xgboost.DMatrix(row), validate_features=False).astype(np.float64).tolist()
        [anomalous] = self.anomalous.of(row).tolist()
        return score, anomalous

    def class_of(self, decision: dict[str, Any]) -> str:
        """Return the class of a decision's transaction, off its recorded vector."""
        at = dict(zip(self.names, decision["features"], strict=True))
        if at["card_count_with_current_30d"] == 1:
            return "FIRST_USE"
        if at["transaction_entry_mode"] == ATM:
            return "CASH"
        if at["customer_abroad_unannounced"] == 1:
            return "CROSS_BORDER"
        return "ECOMMERCE" if at["transaction_entry_mode"] in NOT_READ else "CARD_PRESENT"


def _route(recorded: dict[str, Any]) -> tuple[str, list[float]]:
    return recorded["booster"], [recorded["thresholds"][name] for name in ("challenge", "review", "block")]


class AnomalyScorer:
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

    def __init__(self, folders: Iterable[Path], safe: tuple[float, float] = (30.0, 300.0)) -> None:
        """Read models.

        Args:
            folders: of the released models.
            safe: from which amounts on a transaction is challenged and reviewed if nobody can speak, in major units.
        """
        self._safe, self._models = safe, dict[tuple[str, str], Released]()
        self._names: dict[str, list[str]] = {}
        for folder in folders:
            manifest = json.loads((folder / "manifest.json").read_text())
            self._models[manifest["name"], manifest["version"]] = Released.of(folder, manifest)
            self._names[manifest["feature_set_hash"]] = manifest["feature_names"]

    def check(self, decisions: Sequence[tuple[dict[str, Any], dict[str, Any] | None]], verdict: Verdict) -> ByRisk:
        """Blame every decision whose scores, action or reasons are not its model's on its recorded vector.

        Args:
            decisions: each with its transaction.
            verdict: where blame goes.

        Returns:
            what would have been done with each, had account and customer forbidden nothing.
        """
        by_risk: ByRisk = {}
        by_booster: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
        for decision, transaction in decisions:
            if wrong := self._wrong_features(decision):
                verdict.blame("wrong-decision", f"{_position(decision)}: {wrong}")
                continue
            if decision["fallback_tier"] in WITHOUT_MODEL:
                self._check_default(decision, transaction, verdict, by_risk)
                continue
            model = decision["model"], decision["model_version"]
            if model not in self._models:
                verdict.blame(
                    "wrong-decision", f"by a model that is not released: {model}; name its folder with --model"
                )
                continue
            by_booster[*model, self._models[model].route(decision)[0]].append(decision)
        for (name, version, booster), mine in by_booster.items():
            by_risk |= self._check_scored(self._models[name, version], booster, mine, verdict)
        return by_risk

    def released(self, decision: dict[str, Any]) -> Released | None:
        """Return the model that a decision names; None where it names none, or one that was not read."""
        return self._models.get((decision["model"], decision["model_version"]))

    def names_of(self, decision: dict[str, Any]) -> Sequence[str]:
        """Return what the features of a decision are called; nothing where no released model knows them."""
        return self._names.get(decision["feature_set_hash"], ())

    def _wrong_features(self, decision: dict[str, Any]) -> str | None:
        """Return what is wrong with a vector whatever is in it: its length, or that something is missing in it and no mark says so."""
        names = self.names_of(decision)
        if not names:
            return None if decision["fallback_tier"] in WITHOUT_MODEL else "features that no released model knows"
        if len(decision["features"]) != len(names):
            return f"{len(decision['features'])} features, not {len(names)}"
        missing = [
            name
            for name, value in zip(names, decision["features"], strict=True)
            if name.startswith(OF_KNOWN_TERMINAL) and math.isnan(value)
        ]
        if bool(missing) != (UNKNOWN in decision["degraded"]):
            return f"{missing[0]} is missing without a mark" if missing else f"{UNKNOWN}, and nothing of it is missing"
        return None

    def _check_scored(self, released: Released, name: str, mine: list[dict[str, Any]], verdict: Verdict) -> ByRisk:
        by_risk: ByRisk = {}
        booster, rows = released.boosters[name], np.array([d["features"] for d in mine])
        scores = booster.predict(xgboost.DMatrix(rows), validate_features=False)
        for decision, score, anomalous in zip(
            mine, scores.astype(np.float64).tolist(), released.anomalous.of(rows).tolist(), strict=True
        ):
            by_risk[key_of(decision)] = _check_action(released, decision, score, anomalous, verdict)
            if (decision["scored_by"], decision["transaction_class"]) != (name, released.class_of(decision)):
                said = f"{decision['scored_by']} {decision['transaction_class']}"
                verdict.blame("wrong-decision", f"{_position(decision)}: another booster or class: {said}")
        _check_reasons(booster, released.names, [d for d in mine if d["action"] != "APPROVE"], verdict)
        return by_risk

    def _check_default(
        self, decision: dict[str, Any], transaction: dict[str, Any] | None, verdict: Verdict, by_risk: ByRisk
    ) -> None:
        """Check a decision without any model: a rule's, or the amount's."""
        if transaction is None:
            return
        major = transaction["billing_amount_minor"] / 10.0 ** EXPONENTS[transaction["billing_currency"]]
        by_amount = ACTIONS[sum(major >= least for least in self._safe)]
        by_rule = any(rule["effect"] == "DECIDED" for rule in decision["rules"])
        by_risk[key_of(decision)] = _with_rules(by_amount, decision)
        action, source = _refused(decision, by_risk[key_of(decision)], "RULE" if by_rule else "DEFAULT")
        tier = "RULES" if by_rule else "SAFE_DEFAULT"
        said = (
            decision["action"],
            decision["decided_by"],
            decision["fallback_tier"],
            decision["score"],
            decision["scored_by"],
        )
        if said != (action, source, tier, None, None) or decision["reasons"]:
            verdict.blame("wrong-decision", f"{_position(decision)}: {said}; it should be {action} by {source}, {tier}")


@dataclass(frozen=True)
class Again:
    """What a score comes to, step by step: each is an action."""

    by_model: str
    with_anomaly: str
    by_risk: str
    """With the rule that decided: what would be done, had account and customer forbidden nothing."""
    action: str
    source: str
    """Whose word the action is."""

    @classmethod
    def of(cls, released: Released, decision: dict[str, Any], score: float) -> Again:
        """Return it of a decision's score, by its release's thresholds, and what was recorded of rules, account, customer and control group."""
        by_model = ACTIONS[sum(cut <= score for cut in released.route(decision)[1])]
        recorded_anomaly, with_anomaly = decision["anomaly_score"], by_model
        if recorded_anomaly is not None and by_model == "APPROVE" and recorded_anomaly >= released.anomalous.review:
            with_anomaly = "REVIEW"
        by_risk = _with_rules(with_anomaly, decision)
        source = "RULE" if by_risk != with_anomaly else "ANOMALY" if with_anomaly != by_model else "MODEL"
        return cls(by_model, with_anomaly, by_risk, *_let_through(decision, *_refused(decision, by_risk, source)))


def _check_action(
    released: Released, decision: dict[str, Any], score: float, anomalous: float, verdict: Verdict
) -> str:
    """Check what was done; return what would have been done, had account and customer forbidden nothing."""
    again, recorded_anomaly = Again.of(released, decision, score), decision["anomaly_score"]
    by_risk, action, source = again.by_risk, again.action, again.source
    right = (score, action, source) == (decision["score"], decision["action"], decision["decided_by"])
    # Where the small booster is all that can be used, there is nobody to say how anomalous a transaction is.
    silent = recorded_anomaly is None and decision["fallback_tier"] == "SMALL_MODEL"
    if not right or not (silent or abs(anomalous - recorded_anomaly) <= ANOMALY_TOLERANCE):
        said = f"{decision['action']} {decision['score']} {recorded_anomaly} by {decision['decided_by']}"
        verdict.blame(
            "wrong-decision", f"{_position(decision)}: {said}; it should be {action} {score} {anomalous} by {source}"
        )
    return by_risk


def _refused(decision: dict[str, Any], action: str, source: str) -> tuple[str, str]:
    """Return action and decision source after what account and customer forbid."""
    refused = [one["code"] for one in decision.get("declines", [])]
    if not refused:
        return action, source
    return "BLOCK", "ACCOUNT" if OF_ACCOUNT.intersection(refused) else "CUSTOMER"


def _let_through(decision: dict[str, Any], action: str, source: str) -> tuple[str, str]:
    """Return action and source after the control group: it lets through what model or anomaly score would stop, and nothing else."""
    would_be = decision.get("control_action")
    if would_be is None:
        return action, source
    mine = (
        source in ("MODEL", "ANOMALY") and would_be == action != "APPROVE" and (decision["control_propensity"] or 0) > 0
    )
    return ("APPROVE" if mine else f"{action}, not let through", source)


def _check_reasons(booster: xgboost.Booster, names: list[str], alerted: list[dict[str, Any]], verdict: Verdict) -> None:
    if not alerted:
        return
    matrix = xgboost.DMatrix(np.array([d["features"] for d in alerted]))
    shares = booster.predict(matrix, pred_contribs=True, validate_features=False)[:, :-1].astype(np.float64)
    for decision, row in zip(alerted, shares, strict=True):
        missing = np.isnan(np.array(decision["features"], float))
        heaviest = sorted(((bool(none), -float(s)) for s, none in zip(row, missing, strict=True) if s > 0))[:3]
        recorded = [(names.index(reason["code"]), reason["weight"]) for reason in decision["reasons"]]
        # The worker adds up in another order and precision, so two shares that are as good as equal may change places.
        right = len(recorded) == len(heaviest) and all(
            missing[j] == none and abs(row[j] - weight) < SHARE_TOLERANCE and abs(weight + share) < SHARE_TOLERANCE
            for (j, weight), (none, share) in zip(recorded, heaviest, strict=True)
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
