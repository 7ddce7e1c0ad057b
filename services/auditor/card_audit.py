"""What the auditor remembers of one card, and what it makes of the card's transactions and decisions as they come. No IO.

A decision is compared when its transaction is there, whichever of the two came first. A transaction is known to have no decision when a later one of
the same card has one: scorers answer a card's transactions in order. What is remembered is the card's past as :mod:`services.checker` remembers it,
and what waits for its other half; both are bounded.

All of a card's past is known where its partition was copied from the first record on. Where it was not, transactions may be missing that came before
the first look; none of them is more than a day newer than a decision that is not marked LATE. Once that day is over, and the scorer counts as many
transactions within the horizon as are seen here, there are none; after the horizon they no longer matter. Until then what depends on the past
is not compared.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from services.checker.comparing import BLIND, TransactionAgain, differences
from services.checker.evidence import DECISIONS, INPUTS, Seen
from services.checker.oracle import DAY, FEATURES, KEEP, NEVER, Card, Expected, Oracle, schemas_of
from services.codec.audit_events import TRANSACTION, AuditEvent
from services.core.layouts import AUDIT_LAYOUT

WAITING_MAX: Final = 64
"""So many transactions, or decisions, of a card wait for their other half; of older ones nothing is compared."""
NOT_COPIED: Final = -1
"""Where copying began of what no transaction came of."""
NOT_YET: Final = 2**62
"""Later than any event."""
UNSURE: Final = frozenset({BLIND, "LATE", "PROFILE_TRUNCATED", "NOT_REMEMBERED"})
"""Marks of decisions that show nothing of what else the profile held."""
COUNT: Final = "card_count_with_current_30d"
_HEAD, _FIXED, _ENTRY, _WAITING = (
    struct.Struct(form) for form in ("<H", "<iqqqqqqqqq?HHH", "<qqQIffHB", "<qqi")
)  # fmt: skip

NamesOf = Callable[[dict[str, Any]], Sequence[str]]
"""Returns the names of a decision's features, none where no released model knows them."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Something that must not be: of which transaction, and in what; no value of it."""

    kind: str
    """One of :data:`services.runtime.catalogue.MISMATCH`."""
    partition: int
    offset: int
    transaction_id: bytes | None
    what: str


@dataclass(slots=True)
class AuditReport:
    """What a batch of events comes to."""

    mismatches: list[Mismatch] = field(default_factory=list)
    decided: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    """Decisions with their transactions: their scores are still to be made again, all at once."""
    depths: Counter[str] = field(default_factory=Counter)
    """How many decisions were compared, with the card's past or without."""
    left_out: Counter[str] = field(default_factory=Counter)
    """How many were not, by why."""

    def blame(self, kind: str, place: tuple[int, int], transaction_id: bytes | None, what: str) -> None:
        """Note a mismatch."""
        self.mismatches.append(Mismatch(kind, *place, transaction_id, what))


@dataclass(frozen=True, slots=True)
class HeldRecord:
    """A transaction or decision that waits for its other half."""

    offset: int
    """Of the transaction."""
    timestamp_ms: int
    value: bytes | None


@dataclass(slots=True)
class CardAudit:
    """One card."""

    partition: int
    """Where its transactions lie."""
    since: int
    """From which offset on that partition was copied; -1 before a transaction came."""
    card: Card = field(default_factory=Card)
    unseen_until_ms: int = NOT_YET
    """Up to which event time there may be transactions that came before the first look."""
    proved_from_ms: int = NOT_YET
    """From which event time on all of its past is known."""
    first: int = -1
    """The first transaction's offset, -1 before it came."""
    last: int = -1
    """The last one's."""
    answered: int = -1
    """Up to which offset decisions came."""
    skipped: int = -1
    """Up to which offset nothing is compared, for want of room."""
    decisions_whole: bool = False
    """Whether decisions were copied from the first record on."""
    transactions: list[HeldRecord] = field(default_factory=list)
    decisions: list[HeldRecord] = field(default_factory=list)

    def take(self, event: AuditEvent, names_of: NamesOf, report: AuditReport, *, repeats: bool) -> None:
        """Take the next event of the card.

        Args:
            event: in the order of its log.
            names_of: see :data:`NamesOf`.
            report: what is found is added to it.
            repeats: whether decisions may come again.
        """
        one = HeldRecord(event.source_offset, event.source_timestamp_ms, event.record)
        if event.kind == TRANSACTION:
            if one.offset <= self.last:
                return  # it came again
            if self.first < 0:
                self.first = one.offset
                self.proved_from_ms = NEVER if event.since_offset == 0 else NOT_YET
            self.last = one.offset
            self.transactions.append(one)
        else:
            self.decisions.append(one)
            self.decisions_whole = event.since_offset == 0
        self._settle(names_of, report, repeats=repeats)
        self._make_room(report)

    def begun_anew(self, since: int) -> CardAudit:
        """Return what is left where the partition is copied anew: decisions that wait, if no transaction came before."""
        waiting = self.decisions if self.since == NOT_COPIED else []
        return CardAudit(self.partition, since, decisions_whole=self.decisions_whole, decisions=waiting)

    def _settle(self, names_of: NamesOf, report: AuditReport, *, repeats: bool) -> None:
        """Compare every decision whose transaction is there."""
        while self.decisions and self.decisions[0].offset <= max(self.last, self.answered):
            decision = self.decisions.pop(0)
            if decision.offset <= self.answered:
                if not repeats:
                    what = "it was decided on twice, or out of order"
                    report.blame("twice", (self.partition, decision.offset), _id_of(DECISIONS, decision), what)
                continue
            while self.transactions and self.transactions[0].offset < decision.offset:
                self._unanswered(self.transactions.pop(0), report)
            if self.transactions and self.transactions[0].offset == decision.offset:
                self._compare(self.transactions.pop(0), decision, names_of, report)
            elif decision.offset < self.first or decision.offset <= self.skipped:
                report.left_out["before" if decision.offset < self.first else "room"] += 1
            else:
                where = self.partition, decision.offset
                report.blame("unfounded", where, _id_of(DECISIONS, decision), "no transaction of the card lies there")
            self.answered = decision.offset

    def _unanswered(self, held: HeldRecord, report: AuditReport) -> None:
        """A later transaction was decided on, and this one was not: right if it is bad, or came before the auditor looked at decisions."""
        if held.value is None:
            return
        record = self._fold(held)[0]
        if self.answered >= 0 or (self.since == 0 and self.decisions_whole):
            # Whether the scorer's profile holds it is not known: what comes is compared without the past until their counts agree.
            self.unseen_until_ms, self.proved_from_ms = record["event_time_ms"], NOT_YET
            where = self.partition, held.offset
            report.blame("missing", where, record["transaction_id"], "a good transaction without a decision")

    def _compare(self, held: HeldRecord, said: HeldRecord, names_of: NamesOf, report: AuditReport) -> None:
        where, decision = (self.partition, held.offset), schemas_of(DECISIONS).decode(said.value)
        assert decision is not None, "only what is a decision is forwarded"
        if held.value is None:
            report.blame("unfounded", where, decision["transaction_id"], "it was decided on, and is bad")
            return
        record, expected = self._fold(held)
        names = names_of(decision)
        self._prove(record["event_time_ms"], expected, decision, names)
        whole = record["event_time_ms"] >= self.proved_from_ms
        seen = Seen(self.partition, held.offset, held.timestamp_ms, record["card_id"].encode(), held.value)
        found = differences(decision, TransactionAgain(seen, record, expected, 0, past_known=whole), names)
        vector = [one.what for one in found if one.what.startswith("feature ")]
        others = [one.what for one in found if not one.what.startswith("feature ")]
        for kind, what in (("vector", vector), ("record", others)):
            if what:
                report.blame(kind, where, record["transaction_id"], ", ".join(what))
        report.depths["whole" if whole else "without_past"] += 1
        report.decided.append((decision, record))

    def _fold(self, held: HeldRecord) -> tuple[dict[str, Any], Expected]:
        """Return a good transaction and what must be said of it, and remember it."""
        record = schemas_of(INPUTS).decode(held.value)
        assert record is not None, "only what can be decoded is forwarded"
        oracle = Oracle()
        oracle.cards[record["card_id"].encode()] = self.card
        return record, oracle.decide(record, held.offset)

    def _prove(self, at_ms: int, expected: Expected, decision: dict[str, Any], names: Sequence[str]) -> None:
        """Take into account what a decision shows of the past that is not known."""
        if at_ms >= self.proved_from_ms:
            return
        if not UNSURE.intersection(decision["degraded"]):
            self.unseen_until_ms = min(self.unseen_until_ms, at_ms + DAY)
            given = dict(zip(names or FEATURES, decision["features"], strict=False))
            if at_ms >= self.unseen_until_ms and given.get(COUNT) == expected.vector[COUNT]:
                # A day more, since a profile keeps a transaction for a day longer than it counts.
                self.proved_from_ms = min(self.proved_from_ms, at_ms + DAY)
        if self.unseen_until_ms < NOT_YET:
            self.proved_from_ms = min(self.proved_from_ms, self.unseen_until_ms + KEEP)

    def _make_room(self, report: AuditReport) -> None:
        """Give up the oldest of what waits where too much does."""
        while len(self.transactions) > WAITING_MAX:
            held = self.transactions.pop(0)
            self.skipped = held.offset
            if held.value is not None:
                self._fold(held)
        while len(self.decisions) > WAITING_MAX:
            self.skipped = self.decisions.pop(0).offset
            report.left_out["room"] += 1

    def packed(self) -> bytes:
        """Return it as bytes."""
        card = self.card
        fixed = _FIXED.pack(
            self.partition, self.since, card.truncated, card.last_offset, self.unseen_until_ms, self.proved_from_ms,
            self.first, self.last, self.answered, self.skipped, self.decisions_whole, len(card.entries), len(self.transactions), len(self.decisions),
        )  # fmt: skip
        waiting = [
            _WAITING.pack(one.offset, one.timestamp_ms, -1 if one.value is None else len(one.value))
            + (one.value or b"")
            for one in (*self.transactions, *self.decisions)
        ]
        body = b"".join([fixed, *(_ENTRY.pack(*entry) for entry in card.entries), *waiting])
        return _HEAD.pack(AUDIT_LAYOUT) + zlib.compress(body, 1)

    @classmethod
    def of(cls, profile: bytes) -> CardAudit:
        """Return what bytes hold. Raises ValueError: they are not of this layout."""
        try:
            if _HEAD.unpack_from(profile) != (AUDIT_LAYOUT,):
                raise ValueError("another layout")
            return cls._unpacked(zlib.decompress(profile[_HEAD.size :]))
        except (struct.error, zlib.error) as error:
            raise ValueError(type(error).__name__) from error

    @classmethod
    def _unpacked(cls, body: bytes) -> CardAudit:
        partition, since, truncated, card_last, unseen, proved, *rest = _FIXED.unpack_from(body)
        first, last, answered, skipped, decisions_whole, entries, transactions, decisions = rest
        at = _FIXED.size + entries * _ENTRY.size
        rows = list(_ENTRY.iter_unpack(body[_FIXED.size : at]))
        if len(rows) != entries:
            raise ValueError("cut off")
        held = []
        for _ in range(transactions + decisions):
            offset, timestamp_ms, size = _WAITING.unpack_from(body, at)
            at += _WAITING.size
            held.append(HeldRecord(offset, timestamp_ms, None if size < 0 else body[at : at + size]))
            at += max(size, 0)
        if at != len(body):
            raise ValueError("another length")
        card = Card(rows, [row[0] for row in rows], card_last, truncated)
        waiting = held[:transactions], held[transactions:]
        return cls(partition, since, card, unseen, proved, first, last, answered, skipped, decisions_whole, *waiting)


def _id_of(topic: str, held: HeldRecord) -> bytes | None:
    record = schemas_of(topic).decode(held.value)
    return None if record is None else record["transaction_id"]
