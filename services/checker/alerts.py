"""What alerts say of themselves: of fraud, as severe as what risk alone would have done; or of a decline that is nobody's fraud."""

from __future__ import annotations

from typing import Final

from services.checker.evidence import Evidence
from services.checker.findings import Verdict
from services.checker.oracle import schemas_of
from services.checker.scoring import ByRisk, key_of

_TOPIC: Final = "card-alerts"
_SAYS: Final = {
    "APPROVE": ("DECLINE", "LOW"),
    "CHALLENGE": ("FRAUD", "LOW"),
    "REVIEW": ("FRAUD", "MEDIUM"),
    "BLOCK": ("FRAUD", "HIGH"),
}
"""By what model, anomaly score and rules alone would have done, what an alert is about and how severe it is."""


def check_severities(evidence: Evidence, by_risk: ByRisk, verdict: Verdict) -> None:
    """Blame every alert whose kind or severity is not what its decision's risk makes it; those of before there were kinds aside."""
    schemas = schemas_of(_TOPIC)
    for seen in evidence.outputs[_TOPIC]:
        alert = schemas.decode(seen.value)
        wanted = None if alert is None else by_risk.get(key_of(alert))
        if alert is None or wanted is None or "kind" not in alert:
            continue  # what is no alert, or nobody's, is blamed elsewhere
        said = alert["kind"], alert["severity"]
        if said != _SAYS[wanted]:
            where = f"{_TOPIC} {seen.partition}/{seen.offset}"
            verdict.blame("wrong-decision", f"{where}: {said}; it should be {_SAYS[wanted]}: risk alone says {wanted}")
