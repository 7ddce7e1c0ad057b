"""Scores, actions and reasons of audited decisions, made again by XGBoost itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.auditor.card_audit import AuditReport
from services.checker.findings import Verdict
from services.checker.scoring import Scoring


def score_again(scoring: Scoring, report: AuditReport) -> None:
    """Add to a report the decisions whose score, action or reasons are not their model's on the recorded vector."""
    if report.decided and _wrong(scoring, report.decided):
        for decision, record in report.decided:
            place = decision["source_partition"], decision["source_offset"]
            if what := "; ".join(_wrong(scoring, [(decision, record)])).replace(f"{place[0]}/{place[1]}: ", ""):
                report.blame("decision", place, decision["transaction_id"], what)


def _wrong(scoring: Scoring, decided: Sequence[tuple[dict[str, Any], dict[str, Any] | None]]) -> list[str]:
    """Return what is wrong with decisions."""
    verdict = Verdict()
    try:
        scoring.check(decided, verdict)
    except Exception as error:  # noqa: BLE001 - a decision that no scorer makes may hold anything
        return [f"it cannot be made again: {type(error).__name__}"]
    return verdict.anomalies["wrong-decision"]
