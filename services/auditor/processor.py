"""What the auditor does with each topic. No IO.

Transactions and decisions of audited cards go, each from its own topic, into one log a card; there the two are joined, and what does not fit is
counted and logged. Whether a card is audited depends on its token and the share alone. Nothing that a scorer refuses is copied: of a transaction that
is not to be decided on only its place goes on, and nothing at all under a key that is no token, or in a partition where nobody looks for it.
"""

from __future__ import annotations

import logging
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields as dataclass_fields
from functools import partial
from typing import Any, Final

import numpy as np

from services.auditor.card_audit import NOT_COPIED, AuditReport, CardAudit, Mismatch
from services.auditor.choosing import DEFAULT_SHARE, audited
from services.auditor.released import ReleasedModels
from services.auditor.scoring_again import score_again
from services.checker.card_numbers import token_ok
from services.checker.evidence import DECISIONS, INPUTS
from services.checker.letters import ASTRAY
from services.checker.oracle import acceptable, schemas_of
from services.checker.scoring import Scoring
from services.checker.verdict import RECORD_BYTES_MAX
from services.codec.audit_events import AUDIT_EVENTS, DECISION, TRANSACTION, AuditEvent, decode_audit_event
from services.core.columns import type_bool, type_i64
from services.core.immutable import immutable
from services.core.kernels import misplaced
from services.core.layouts import AUDIT_LAYOUT
from services.core.profiles import CorruptProfileError
from services.core.validation import Reject
from services.registry import AUDITOR_PREFIX
from services.runtime import catalogue as m
from services.runtime.logs import fields, transaction_token
from services.runtime.metrics import MetricsRegistry
from services.streams import Output, Records
from services.worker.dead_letters import key_column, notices, refuse_excluded
from services.worker.processor import LookedUp
from services.worker.topic_processor import (
    Folded,
    ItemProcessor,
    PreparedItems,
    PreparedTopic,
    TopicOutcome,
    TopicProcessor,
)

log = logging.getLogger("proact.auditor")

_SINCE: Final = struct.Struct("<Hdq")
"""What is remembered of a partition: the layout, the share, and from which offset on it was copied with that share."""
_KEY: Final = b"since"
WITNESSES_MAX: Final = 20
"""So many mismatches of one batch have a line of their own in the log; all are counted."""
PreparedAudit = PreparedItems[AuditEvent | None]


@immutable
class PreparedShare(PreparedTopic):
    """A batch, and which of its records are those of audited cards."""

    rows: type_i64
    """(m,) where they are."""


class ForwardingProcessor(TopicProcessor[PreparedShare]):
    """Of one topic of the two. It refuses nothing: the scorer does, and its dead letters would be another answer.

    Its one profile a partition says from where on it was copied without a gap: with another share the cards that come in have no past.
    """

    layout = AUDIT_LAYOUT

    def __init__(self, topic: str, share: float = DEFAULT_SHARE) -> None:
        self.topic, self._share = topic, share

    @property
    def log(self) -> str:
        """See :class:`services.worker.processor.Processor`."""
        return AUDITOR_PREFIX + self.topic

    def prepare(self, records: Records, excluded: type_i64) -> PreparedShare:
        """See :class:`services.worker.processor.Processor`."""
        keys, has_key = key_column(records.keys)
        chosen = audited(keys, self._share) & has_key & (excluded == Reject.NONE)
        if self.topic == INPUTS:
            chosen &= ~misplaced(keys, records.partition, records.partitions)
        status = np.full(len(records), Reject.NONE, np.int64)
        refuse_excluded(status, excluded)
        partitions = sorted(records.counts())
        return PreparedShare(
            records, partitions, [_KEY] * len(partitions), {}, status=status, rows=np.flatnonzero(chosen)
        )

    def outcome_of(self, prepared: PreparedShare, folded: Folded, emit: type_bool, now_ms: int) -> TopicOutcome:  # noqa: ARG002
        """Return what a batch comes to, without dead letters."""
        records, bad = prepared.records, (prepared.status != Reject.NONE) & emit
        return TopicOutcome(
            outputs=folded.outputs,
            profiles=folded.profiles,
            decided=int((emit & ~bad).sum()),
            folded_only=int((~emit).sum()),
            refused=records.partition[bad],
            notices=notices(records, prepared.status, bad, {}),
            folded_until_ms={},
            rejected=prepared.status[:0],
            counts={},
        )

    def fold(self, prepared: PreparedShare, profiles: Sequence[bytes | None], emit: type_bool) -> Folded:
        """Send them on."""
        records, since, changed = prepared.records, dict[int, int](), list[bytes | None]()
        for row, (partition, profile) in enumerate(zip(prepared.partitions, profiles, strict=True)):
            since[partition] = self._since(profile, row)
            if since[partition] < 0:
                since[partition] = int(records.offset[records.partition == partition][0])
            now = _SINCE.pack(AUDIT_LAYOUT, self._share, since[partition])
            changed.append(None if now == profile else now)
        event_of = self._transaction if self.topic == INPUTS else self._decision
        rows = prepared.rows[emit[prepared.rows]].tolist()
        events = [one for row in rows if (one := event_of(records, row, since)) is not None]
        if not events:
            return Folded.to(changed)
        keys, values = zip(*(event.encode() for event in events), strict=True)
        return Folded.to(changed, [Output(AUDIT_EVENTS, keys, values)])

    def _since(self, profile: bytes | None, row: int) -> int:
        """Return from where on a partition was copied with this share; -1: it was not. Raises CorruptProfileError."""
        if profile is None:
            return -1
        if len(profile) != _SINCE.size or _SINCE.unpack(profile)[0] != AUDIT_LAYOUT:
            raise CorruptProfileError("what is remembered of a copied partition is damaged", [row])
        _, share, since = _SINCE.unpack(profile)
        return int(since) if share == self._share else -1

    def _transaction(self, records: Records, row: int, since: Mapping[int, int]) -> AuditEvent | None:
        key, value, timestamp_ms = records.keys[row], records.values[row], int(records.timestamp_ms[row])
        card = _token(key)
        if card is None:
            return None
        record = schemas_of(INPUTS).decode(value) if len(value or b"") <= RECORD_BYTES_MAX else None
        good = record is not None and acceptable(record, key, timestamp_ms)
        partition, offset = int(records.partition[row]), int(records.offset[row])
        return AuditEvent(card, TRANSACTION, partition, offset, timestamp_ms, since[partition], value if good else None)

    def _decision(self, records: Records, row: int, since: Mapping[int, int]) -> AuditEvent | None:
        card, decision = _token(records.keys[row]), schemas_of(DECISIONS).decode(records.values[row])
        if card is None or decision is None or ASTRAY in decision["degraded"]:
            return None
        partition, offset, timestamp_ms = (
            decision[f"source_{name}"] for name in ("partition", "offset", "timestamp_ms")
        )
        copied_since = since[int(records.partition[row])]
        return AuditEvent(card, DECISION, partition, offset, timestamp_ms, copied_since, records.values[row])


def _token(key: bytes | None) -> str | None:
    """Return a key as text, if it is a token that a card may have."""
    try:
        card = (key or b"").decode()
    except UnicodeDecodeError:
        return None
    return card if token_ok(card) else None


of_transactions = partial(ForwardingProcessor, INPUTS)
of_decisions = partial(ForwardingProcessor, DECISIONS)


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
