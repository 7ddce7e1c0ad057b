"""Judging a run: every transaction is decided again and compared with its answers, every profile with the fold of the log."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.checker.alerts import check_severities
from services.checker.comparing import TransactionAgain, differences
from services.checker.evidence import (
    ALERTS,
    DEAD_LETTERS,
    DECISIONS,
    INPUTS,
    OUTPUTS,
    REQUESTS,
    TERMINAL_EVENTS,
    Evidence,
    Seen,
)
from services.checker.findings import Verdict
from services.checker.oracle import Oracle, acceptable, schemas_of
from services.checker.raising import left_out
from services.checker.reassessments import check_reassessments
from services.checker.reference_data import check_reference
from services.checker.samples import check_samples
from services.checker.scoring import Scoring, key_of
from services.checker.terminals import Event, check_terminals, event_of

RECORD_BYTES_MAX: Final = 8_192


def seen_hash(seen: Seen) -> int:
    """Return a hash of what a reader saw: the same for the same record."""
    digest = hashlib.blake2b((seen.key or b"") + b"|" + (seen.value or b""), digest_size=8).digest()
    return int.from_bytes(digest, "big")


_NOTHING_DECIDED: Final = "no transaction was decided on: features, scores and actions are not checked"


@dataclass(frozen=True, slots=True)
class _Answer:
    """One visible answer to a transaction."""

    decision: dict[str, Any] | None
    reason: str | None
    where: str


class Checker:
    """Checks one run."""

    def __init__(
        self,
        evidence: Evidence,
        scoring: Scoring,
        *,
        repeats: bool,
        forbidden: Sequence[bytes] = (),
        excused: Sequence[bytes] = (),
    ) -> None:
        """Prepare to judge.

        Args:
            evidence: of the run.
            scoring: the models, and the safe default, that decisions were made by.
            repeats: whether records may come again.
            forbidden: what must be nowhere.
            excused: what a good record holds that is meant to raise an exception; any other good one must not be refused for one.
        """
        self._evidence, self._repeats, self._forbidden, self._excused = evidence, repeats, forbidden, excused
        self._scoring = scoring
        self._verdict = Verdict()
        self._events: Counter[Event] = Counter()

    def judge(self, progress: Callable[[str], None]) -> Verdict:
        """Return the verdict."""
        evidence, verdict = self._evidence, self._verdict
        if not evidence.inputs:
            verdict.blame("vacuous", "there is no transaction")
        answers = self._answers()
        progress(f"folding {len(evidence.inputs):,} transactions again, one by one")
        decided = self._account(answers)
        decisions = [decision for decision, _ in decided]
        again = check_reassessments(evidence, decisions, verdict, repeats=self._repeats)
        progress(f"scoring {len(decided) + len(again):,} decisions again")
        if not decided:
            verdict.wait("vacuous", INPUTS, _NOTHING_DECIDED)
        self._scoring.check([(one, None) for one in again], verdict)
        check_severities(evidence, self._scoring.check(decided, verdict), verdict)
        labels = check_terminals(evidence, self._events, verdict, repeats=self._repeats)
        check_reference(evidence, verdict)
        self._check_offsets()
        check_samples(evidence, verdict)
        self._check_live()
        self._check_leaks()
        for where in evidence.late_applies:
            verdict.blame("zombie-apply", where)
        for where in evidence.hanging:
            verdict.blame("hung-txn", where)
        verdict.counts = self._counts(decided, decisions, len(again), labels)
        return verdict

    def _counts(
        self, decided: Sequence[Any], decisions: Sequence[dict[str, Any]], again: int, labels: int
    ) -> dict[str, int]:
        evidence = self._evidence
        return {
            "transactions": len(evidence.inputs),
            "decided": len(decided),
            "repeats": sum(one["repeat"] for one in decisions),
            "refused": len(evidence.outputs[DEAD_LETTERS]),
            "alerts": len(evidence.outputs[ALERTS]),
            "profiles": sum(map(len, evidence.profiles.values())),
            "below_champion": len(evidence.outputs[REQUESTS]),
            "reassessed": again,
            "terminal_events": len(evidence.outputs[TERMINAL_EVENTS]),
            "labels_routed": labels,
            "terminals": sum(map(len, evidence.terminal_profiles.values())),
            "accounts_and_customers": sum(len(p) for t in evidence.reference_profiles.values() for p in t.values()),
            "samples": len(evidence.samples),
            "seen_live": sum(map(len, evidence.live.values())),
        }

    def _answers(self) -> dict[tuple[int, int], list[_Answer]]:
        answers: dict[tuple[int, int], list[_Answer]] = defaultdict(list)
        last: dict[tuple[bytes | None, int], tuple[int, int]] = {}
        alerts = Counter(self._alert_keys())
        schemas = schemas_of(DECISIONS)
        for seen in self._evidence.outputs[DECISIONS]:
            where = f"{DECISIONS} {seen.partition}/{seen.offset}"
            decision = schemas.decode(seen.value)
            if decision is None:
                self._verdict.blame("wrong-decision", f"{where} is not a decision")
                continue
            position = decision["source_partition"], decision["source_offset"]
            card = seen.key, position[0]  # one in another partition is another one to whoever folds it
            if not self._repeats and position <= last.get(card, (-1, -1)):
                self._verdict.blame("nonmonotonic", f"{where} answers {position} after {last[card]}")
            last[card] = position
            answers[position].append(_Answer(decision, None, where))
            if decision["action"] != "APPROVE":
                alerts[key_of(decision)] -= 1
        self._check_alerts(alerts)
        letters = schemas_of(DEAD_LETTERS)
        for seen in self._evidence.outputs[DEAD_LETTERS]:
            letter = letters.decode(seen.value)
            assert letter is not None
            if letter["source_topic"] != INPUTS:
                continue  # another service's
            position = letter["source_partition"], letter["source_offset"]
            answers[position].append(_Answer(None, letter["reason"], f"{DEAD_LETTERS} {seen.partition}/{seen.offset}"))
        return answers

    def _alert_keys(self) -> Iterable[tuple[bytes, str, float | None]]:
        schemas = schemas_of(ALERTS)
        for seen in self._evidence.outputs[ALERTS]:
            alert = schemas.decode(seen.value)
            if alert is None:
                self._verdict.blame("torn-txn", f"{ALERTS} {seen.partition}/{seen.offset} is not an alert")
                continue
            yield key_of(alert)

    def _check_alerts(self, alerts: Counter[tuple[bytes, str, float | None]]) -> None:
        for (identifier, action, _), surplus in alerts.items():
            if surplus:
                what = "alerts without a decision" if surplus > 0 else "decisions without an alert"
                self._verdict.blame("torn-txn", f"{abs(surplus)} {what}: {action} {identifier.hex()}")

    # -- every transaction -------------------------------------------------------------------------------------------

    def _account(
        self, answers: dict[tuple[int, int], list[_Answer]]
    ) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
        """Compare every transaction with its answers, and the profiles with the fold; return the decisions with their transactions."""
        schemas, decided = schemas_of(INPUTS), []
        oracles = {p: Oracle() for p in self._evidence.log_end}
        packed: dict[int, dict[bytes, bytes]] = {}
        for seen in self._evidence.inputs:
            p = seen.partition
            if p not in packed and seen.offset >= (self._evidence.applied[p] or 0):
                packed[p] = {card: one.packed() for card, one in oracles[p].cards.items()}
            mine = answers.pop((p, seen.offset), [])
            self._count_answers(seen, mine)
            record = None if len(seen.value or b"") > RECORD_BYTES_MAX else schemas.decode(seen.value)
            record = None if left_out(seen, record, {a.reason for a in mine}, self._excused, self._verdict) else record
            good = record is not None and acceptable(record, seen.key, seen.timestamp_ms)
            expected = oracles[p].decide(record, seen.offset) if good and record is not None else None
            for answer in mine:
                self._compare(seen, answer, expected, record)
                if answer.decision is not None:
                    decided.append((answer.decision, record))
            answered = next((answer.decision for answer in mine if answer.decision is not None), None)
            if answered is not None and record is not None and not answered["repeat"]:
                self._events[_event(record)] += 1
        for (p, offset), invented in answers.items():
            for answer in invented:
                self._verdict.blame("G1a", f"{answer.where} answers {p}/{offset}, which is not on the log")
        for p, oracle in oracles.items():
            self._compare_profiles(p, packed.get(p, {card: one.packed() for card, one in oracle.cards.items()}))
        return decided

    def _count_answers(self, seen: Seen, mine: list[_Answer]) -> None:
        where, committed = f"{seen.partition}/{seen.offset}", self._evidence.committed.get(seen.partition, 0)
        if not mine:
            if seen.offset < committed:
                self._verdict.blame("lost-write", where)
            else:
                self._verdict.wait("unseen", INPUTS, where)
        elif seen.offset >= committed and not self._repeats:
            self._verdict.blame("G1a", f"{mine[0].where} answers {where}, but only {committed} is committed")
        if len(mine) > 1 and not self._repeats:
            self._verdict.blame("duplicate", f"{where}: " + ", ".join(answer.where for answer in mine[:4]))

    def _compare(self, seen: Seen, answer: _Answer, expected: Any, record: dict[str, Any] | None) -> None:
        where, decision = f"{seen.partition}/{seen.offset}", answer.decision
        if decision is None:
            if expected is not None:
                self._verdict.blame("wrong-decision", f"{where} was refused ({answer.reason}), and is good")
            return
        if expected is None or record is None:
            self._verdict.blame("wrong-decision", f"{where} was decided on, and is bad")
            return
        again = TransactionAgain(seen, record, expected, len(self._evidence.log_end))
        wrong = [str(one) for one in differences(decision, again, self._scoring.names_of(decision))]
        if wrong:
            self._verdict.blame("wrong-decision", f"{where}: {'; '.join(wrong[:4])}")

    def _compare_profiles(self, partition: int, folded: dict[bytes, bytes]) -> None:
        held = self._evidence.profiles[partition]
        self._verdict.compare(f"partition {partition}: the profile of a card", folded, held)

    # -- offsets, and what was seen meanwhile --------------------------------------------------------------------------

    def _check_offsets(self) -> None:
        # A log may end with marks of atomic commits, which are no records.
        ends = {seen.partition: seen.offset + 1 for seen in self._evidence.inputs}
        for p in self._evidence.log_end:
            end = ends.get(p, self._evidence.log_start[p])
            committed, applied = self._evidence.committed.get(p), self._evidence.applied[p]
            if (applied or 0) > (committed or 0):
                self._verdict.blame("state-ahead", f"partition {p}: applied {applied}, committed {committed}")
            if end > self._evidence.log_start[p] and min(committed or 0, applied or 0) < end:
                self._verdict.wait(
                    "stuck", INPUTS, f"partition {p}: applied {applied}, committed {committed}, end {end}"
                )

    def _check_live(self) -> None:
        for topic, live in self._evidence.live.items():
            final = {(seen.partition, seen.offset): seen_hash(seen) for seen in self._evidence.outputs[topic]}
            for position, value in live.items():
                if final.get(position) != value:
                    self._verdict.blame("G1a", f"{topic} {position} was seen, and is not there any more")

    def _check_leaks(self) -> None:
        for text in self._forbidden:
            for topic in OUTPUTS:
                for seen in self._evidence.outputs[topic]:
                    if text in (seen.key or b"") or text in (seen.value or b""):
                        self._verdict.blame("leak", f"{topic} {seen.partition}/{seen.offset}")
            for p, profiles in self._evidence.profiles.items():
                for card, profile in profiles.items():
                    if text in card or text in profile:
                        self._verdict.blame("leak", f"the grid, partition {p}")


def _event(transaction: dict[str, Any]) -> Event:
    """Return what a transaction puts on its terminal's log."""
    names = ("transaction_id", "terminal_id", "event_time_ms", "amount_minor")
    return event_of(
        {name: transaction[name] for name in names} | {"kind": "TRANSACTION", "is_fraud": False, "known_at_ms": 0}
    )
