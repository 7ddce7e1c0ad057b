"""The auditor's join: transactions of audited cards and the decisions on them in, and what does not fit counted and logged. No IO."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields as dataclass_fields
from typing import Any, Final

from services.auditor.card_audit import NOT_COPIED, AuditReport, CardAudit, Mismatch
from services.auditor.released import ReleasedModels
from services.checker.evidence import DECISIONS
from services.checker.findings import Verdict
from services.checker.oracle import schemas_of
from services.checker.scoring import Scoring
from services.codec.audit_events import AUDIT_EVENTS, DECISION, TRANSACTION, AuditEvent, decode_audit_event
from services.core.columns import type_bool
from services.core.immutable import immutable
from services.core.layouts import AUDIT_LAYOUT
from services.core.profiles import CorruptProfileError
from services.core.validation import Reject
from services.registry import AUDITOR_PREFIX
from services.runtime import catalogue as m
from services.runtime.logs import fields, transaction_token
from services.runtime.metrics import MetricsRegistry
from services.worker.processor import LookedUp
from services.worker.topic_processor import Folded, ItemProcessor, PreparedItems, TopicOutcome

log = logging.getLogger("proact.auditor")

WITNESSES_MAX: Final = 20
"""So many mismatches of one batch have a line of their own in the log; all are counted."""
PreparedAudit = PreparedItems[AuditEvent | None]


@immutable
class AuditOutcome(TopicOutcome):
    """The outcome with what was found."""

    report: AuditReport


class AuditProcessor(ItemProcessor[AuditEvent | None]):
    """Of audited cards' events; a profile is a :class:`services.auditor.card_audit.CardAudit`."""

    topic, layout = AUDIT_EVENTS, AUDIT_LAYOUT

    def __init__(self, models: ReleasedModels | None = None, *, repeats: bool = False) -> None:
        """Audit.

        Args:
            models: of the decisions; None: scores are not made again, as where records are only folded.
            repeats: whether decisions may come again.
        """
        self._models, self._repeats = models, repeats

    @property
    def log(self) -> str:
        """See :class:`services.worker.processor.Processor`."""
        return AUDITOR_PREFIX + self.topic

    def decode(self, key: bytes, value: bytes | None) -> tuple[AuditEvent | None, Reject]:
        """See :class:`services.worker.topic_processor.ItemProcessor`."""
        return decode_audit_event(key, value)

    def fold(self, prepared: PreparedAudit, profiles: Sequence[bytes | None], emit: type_bool) -> Folded:
        """Take each event into its card's profile."""
        return self._audit(prepared, profiles, emit)[0]

    def decide(
        self,
        prepared: PreparedAudit,
        profiles: Sequence[bytes | None],
        found: Mapping[str, LookedUp],  # noqa: ARG002 - it looks nothing up
        emit: type_bool,
        now_ms: int,
    ) -> AuditOutcome:
        """See :class:`services.worker.processor.Processor`. Raises NotYetError while a model has not been looked for."""
        if self._models is not None and emit.any():
            self._models.ask(_decisions(prepared.items))
        folded, report = self._audit(prepared, profiles, emit)
        if self._models is not None:
            score_again(self._models.scoring, report)
        done = self.outcome_of(prepared, folded, emit, now_ms)
        return AuditOutcome(**{one.name: getattr(done, one.name) for one in dataclass_fields(done)}, report=report)

    def _audit(
        self, prepared: PreparedAudit, profiles: Sequence[bytes | None], emit: type_bool
    ) -> tuple[Folded, AuditReport]:
        report, unheard = AuditReport(), AuditReport()
        audits: dict[int, CardAudit] = {}
        good = (prepared.status == Reject.NONE).nonzero()[0].tolist()
        names_of = Scoring([]).names_of if self._models is None else self._models.scoring.names_of
        for row, slot, event in zip(good, prepared.slot.tolist(), prepared.items, strict=True):
            assert event is not None, "it was accepted"
            mine = report if emit[row] else unheard
            if slot not in audits:
                audits[slot] = _opened(profiles[slot], slot, event)
            copied_anew = event.kind == TRANSACTION and event.since_offset != audits[slot].since
            if copied_anew and audits[slot].partition == event.source_partition:
                audits[slot] = audits[slot].begun_anew(event.since_offset)
            if audits[slot].partition != event.source_partition:
                mine.left_out["elsewhere"] += 1
                continue
            audits[slot].take(event, names_of, mine, repeats=self._repeats)
        changed = [audits[slot].packed() if slot in audits else None for slot in range(len(profiles))]
        return Folded.to(changed), report

    def measure(
        self, metrics: MetricsRegistry, prepared: PreparedAudit, outcome: TopicOutcome, committed_ms: int
    ) -> None:
        """See :class:`services.worker.processor.Processor`."""
        super().measure(metrics, prepared, outcome, committed_ms)
        assert isinstance(outcome, AuditOutcome), "this processor's"
        report = outcome.report
        for kind, count in Counter(one.kind for one in report.mismatches).items():
            metrics.add(m.PARITY_MISMATCHES, count, kind)
        for depth, count in report.depths.items():
            metrics.add(m.AUDITED, count, depth)
        for why, count in report.left_out.items():
            metrics.add(m.AUDIT_LEFT_OUT, count, why)
        for one in report.mismatches[:WITNESSES_MAX]:
            log.error("a decision is not the one that its own log makes", extra=fields(**witness(one)))


def witness(one: Mismatch) -> dict[str, Any]:
    """Return what the log tells of a mismatch: where the transaction lies, its token, and what differs; no value of it."""
    token = {} if one.transaction_id is None else {"transaction": transaction_token(one.transaction_id)}
    place = f"{one.partition}/{one.offset}"
    return {"mismatch": one.kind, **token, "differs": one.what, "remedy": f"proact explain {place}"}


def _opened(profile: bytes | None, slot: int, event: AuditEvent) -> CardAudit:
    if profile is None:
        return CardAudit(event.source_partition, NOT_COPIED)
    try:
        return CardAudit.of(profile)
    except ValueError as error:
        raise CorruptProfileError(f"an audited card's profile is damaged: {error}", [slot]) from error


def _decisions(events: Sequence[AuditEvent | None]) -> list[dict[str, Any]]:
    schemas = schemas_of(DECISIONS)
    read = [schemas.decode(one.record) for one in events if one is not None and one.kind == DECISION]
    return [one for one in read if one is not None]


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
