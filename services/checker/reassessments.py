"""What follows a fallback: every decision on a lower fallback tier has its one request, and what was assessed again belongs to one."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from services.checker.evidence import REASSESSMENTS, REQUESTS, Evidence, Seen
from services.checker.findings import Verdict
from services.checker.letters import letters_of
from services.checker.oracle import schemas_of

Place = tuple[int, int]
"""Partition and offset of a transaction."""
NOT_FOUND: Final = "TRANSACTION_NOT_FOUND"
SAME: Final = ("transaction_id", "decided_at_ms", "action", "score", "fallback_tier")
"""What a request says of its decision."""


def check_reassessments(
    evidence: Evidence, decided: list[dict[str, Any]], verdict: Verdict, *, repeats: bool
) -> list[dict[str, Any]]:
    """Compare requests with decisions, and reassessments with requests; return the reassessments.

    Args:
        evidence: of the run.
        decided: all decisions.
        verdict: where blame goes.
        repeats: whether records may come again.
    """
    wanted: dict[Place, list[dict[str, Any]]] = {}
    for decision in decided:
        if decision["fallback_tier"] != "CHAMPION":
            wanted.setdefault(_place(decision), []).append(decision)
    transactions = {(seen.partition, seen.offset): seen.value for seen in evidence.inputs}
    asked, letters = Counter[Place](), letters_of(evidence)
    refused = {(p, o) for (topic, p, o), reason in letters.items() if (topic, reason) == (REQUESTS, NOT_FOUND)}
    for seen, request in _records(evidence.outputs[REQUESTS], REQUESTS, verdict):
        place, where = _place(request), f"{REQUESTS} {seen.partition}/{seen.offset}"
        if (seen.partition, seen.offset) in refused:
            if request["transaction"] == transactions.get(place):
                verdict.blame("wrong-decision", f"{where}: its transaction lies where it says, and is said not to")
            continue
        asked[place] += 1
        if not any(all(one[name] == request[name] for name in SAME) for one in wanted.get(place, [])):
            verdict.blame("torn-txn", f"{where}: a request without its decision")
        if request["transaction"] != transactions.get(place):
            verdict.blame("torn-txn", f"{where}: a request with another transaction")
    for place in wanted.keys() - asked.keys():
        verdict.blame(
            "torn-txn", f"{place[0]}/{place[1]}: decided on a lower fallback tier, and nobody is asked to look again"
        )
    _count("requests", asked, verdict, repeats=repeats)
    answered: Counter[Place] = Counter()
    found = []
    for seen, again in _records(evidence.outputs[REASSESSMENTS], REASSESSMENTS, verdict):
        where = f"{REASSESSMENTS} {seen.partition}/{seen.offset}"
        answered[_place(again)] += 1
        found.append(again)
        if _place(again) not in asked:
            verdict.blame("G1a", f"{where}: nobody asked for it")
        if again["fallback_tier"] != "CHAMPION":
            verdict.blame("wrong-decision", f"{where}: assessed again on a lower fallback tier, too")
    _count("reassessments", answered, verdict, repeats=repeats)
    if answered and (left := asked.keys() - answered.keys()):
        verdict.wait("unseen", REQUESTS, f"{len(left)} requests without a reassessment, the first of {min(left)}")
    return found


def _records(seen: list[Seen], topic: str, verdict: Verdict) -> list[tuple[Seen, dict[str, Any]]]:
    schemas, found = schemas_of(topic), []
    for one in seen:
        record = schemas.decode(one.value)
        if record is None:
            verdict.blame("torn-txn", f"{topic} {one.partition}/{one.offset} is none")
        else:
            found.append((one, record))
    return found


def _count(what: str, counted: Counter[Place], verdict: Verdict, *, repeats: bool) -> None:
    for place, times in counted.items():
        if times > 1 and not repeats:
            verdict.blame("duplicate", f"{times} {what} for {place[0]}/{place[1]}")


def _place(record: dict[str, Any]) -> Place:
    return record["source_partition"], record["source_offset"]
