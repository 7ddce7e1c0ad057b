"""One decision made again, step by step, from its log: what people and machines are shown of it. No IO."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.checker.comparing import TransactionAgain, differences, same_number
from services.checker.evidence import Seen
from services.checker.findings import Verdict
from services.checker.oracle import FEATURES as OF_CARDS_LOG
from services.checker.oracle import ROUNDED, Card, Expected, Oracle, acceptable
from services.checker.scoring import ANOMALY_TOLERANCE, WITHOUT_MODEL, Again, Released, Scoring
from services.core.features import FEATURES

EQUAL, DIFFERENT = "EQUAL", "DIFFERENT"
FROM_LOG, RECORDED = "made again", "recorded"
"""Whether a feature follows from the card's own log, or was read of what another service knew at that moment."""
DEFINITIONS: Final[Mapping[str, str]] = {one.name: f"{one.meaning} [{one.unit}]" for one in FEATURES}
Transactions = Iterable[tuple[Seen, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class DecisionCase:
    """A decision with its transaction, and the card's past from before."""

    decision: dict[str, Any]
    seen: Seen
    record: dict[str, Any]
    card: Card
    """As it was before."""
    expected: Expected
    past_known: bool
    conditions: Mapping[str, str]
    """By id, when the rules hold that did, as far as it is known."""

    @classmethod
    def of(
        cls, decision: dict[str, Any], transactions: Transactions, *, past_known: bool, conditions: Mapping[str, str]
    ) -> DecisionCase | None:
        """Fold a card's transactions up to the one that was decided on.

        Args:
            decision: as its schema has it.
            transactions: of its card and partition, in order; those behind it are left out.
            past_known: whether they are all that count.
            conditions: by id of rules, when they hold.

        Returns:
            None where the transaction is not among them.
        """
        oracle, place = Oracle(), decision["source_offset"]
        key = decision["card_id"].encode()
        for seen, record in transactions:
            if seen.offset < place and acceptable(record, key, seen.timestamp_ms):
                oracle.decide(record, seen.offset)
            elif seen.offset == place:
                before = oracle.cards.setdefault(key, Card())
                kept = Card(list(before.entries), list(before.times), before.last_offset, before.truncated)
                return cls(decision, seen, record, kept, oracle.decide(record, seen.offset), past_known, conditions)
        return None


def explain(case: DecisionCase, scoring: Scoring) -> dict[str, Any]:
    """Return every step of a decision, and whether it is the same when it is made again.

    Args:
        case: the decision.
        scoring: the released models.
    """
    decision = case.decision
    names = scoring.names_of(decision)
    again = TransactionAgain(case.seen, case.record, case.expected, 0, past_known=case.past_known)
    differs = [f"{one.what}: {one.said!r}, not {one.wanted!r}" for one in differences(decision, again, names)]
    verdict = Verdict()
    scoring.check([(decision, case.record)], verdict)
    place = f"{decision['source_partition']}/{decision['source_offset']}"
    differs += [one.removeprefix(f"{place}: ") for one in verdict.anomalies["wrong-decision"]]
    return {
        "verdict": DIFFERENT if differs else EQUAL,
        "differs": differs,
        "past_known": case.past_known,
        "transaction": _transaction(case, place),
        "profile": _profile(case),
        "features": _features(case, names),
        "release": {name: decision[name] for name in _OF_RELEASE},
        "score": _score(case, scoring),
        "rules": _rules(case),
        "eligibility": [{"code": one["code"], "text": one["text"]} for one in decision["declines"]],
        "reasons": [{"code": one["code"], "weight": one["weight"], "text": one["text"]} for one in decision["reasons"]],
        "action": {name: decision[name] for name in _OF_ACTION},
    }


_OF_ACTION: Final = ("action", "decided_by", "degraded", "control_action", "control_propensity")
_OF_RELEASE: Final = ("model", "model_version", "fallback_tier", "transaction_class", "scored_by", "feature_set_hash")


def _transaction(case: DecisionCase, place: str) -> dict[str, Any]:
    record = case.record
    named = (
        "card_id",
        "event_time_ms",
        "billing_amount_minor",
        "billing_currency",
        "entry_mode",
        "country",
        "terminal_id",
    )
    return {
        "transaction_id": str(uuid.UUID(bytes=case.decision["transaction_id"])),
        "place": place,
        **{name: record[name] for name in named},
        "repeat": case.decision["repeat"],
    }


def _profile(case: DecisionCase) -> dict[str, Any]:
    card = case.card
    return {
        "remembered": len(card.times),
        "oldest_ms": card.times[0] if card.times else None,
        "newest_ms": card.times[-1] if card.times else None,
        "last_offset": card.last_offset if card.times else None,
    }


def _features(case: DecisionCase, names: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for name, value in zip(names or OF_CARDS_LOG, case.decision["features"], strict=False):
        from_log = name in case.expected.vector
        again = case.expected.vector.get(name)
        equal = None if again is None else same_number(value, again, rounded=name in ROUNDED)
        rows.append(
            {
                "name": name,
                "definition": DEFINITIONS.get(name, "of another version of the features"),
                "value": _number(value),
                "source": FROM_LOG if from_log else RECORDED,
                "again": _number(again),
                "equal": equal,
            }
        )
    return rows


def _number(value: float | None) -> float | None:
    """Return a number as JSON can have it: none for one that is missing."""
    return None if value is None or math.isnan(value) else float(value)


def _score(case: DecisionCase, scoring: Scoring) -> dict[str, Any]:
    decision, released = case.decision, scoring.released(case.decision)
    said = {"score": decision["score"], "anomaly_score": decision["anomaly_score"]}
    if released is None or decision["fallback_tier"] in WITHOUT_MODEL:
        return said | {"again": None, "why": "no model spoke" if decision["model"] is None else "its model is not here"}
    if len(decision["features"]) != len(released.names):
        return said | {"again": None, "why": "the vector is not of its model"}
    return said | _scored(decision, released)


def _scored(decision: dict[str, Any], released: Released) -> dict[str, Any]:
    score, anomalous = released.score(decision)
    steps, silent = Again.of(released, decision, score), decision["anomaly_score"] is None
    thresholds = dict(zip(("challenge", "review", "block"), released.route(decision)[1], strict=True))
    return {
        "again": score,
        "equal": score == decision["score"],
        "anomaly_again": anomalous,
        "anomaly_equal": silent or abs(anomalous - decision["anomaly_score"]) <= ANOMALY_TOLERANCE,
        "anomaly_review_from": released.anomalous.review,
        "thresholds": thresholds,
        "by_model": steps.by_model,
        "with_anomaly": steps.with_anomaly,
        "with_rules": steps.by_risk,
        "action": steps.action,
        "source": steps.source,
    }


def _rules(case: DecisionCase) -> dict[str, Any]:
    hits = [
        {
            **{name: hit[name] for name in ("rule_id", "effect", "action", "reason")},
            "when": case.conditions.get(hit["rule_id"]),
        }
        for hit in case.decision["rules"]
    ]
    return {"version": case.decision["rule_set_version"], "held": hits}
