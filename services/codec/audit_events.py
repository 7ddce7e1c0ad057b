"""Events of audited cards, one by one: there are few of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.codec.records import UndecodableError, decode_record, encode_written
from services.core.validation import Reject

AUDIT_EVENTS: Final = "audit-events"
TRANSACTION, DECISION = "TRANSACTION", "DECISION"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """A transaction of an audited card, or a decision on one."""

    card_id: str
    kind: str
    source_partition: int
    """Of the topic of transactions: where the transaction lies."""
    source_offset: int
    source_timestamp_ms: int
    since_offset: int
    """From which offset on the auditor has copied everything of its cards from the record's own partition."""
    record: bytes | None
    """As it came; None for a transaction that is not to be decided on."""

    def encode(self) -> tuple[bytes, bytes]:
        """Return key and value of its record."""
        value = {name: getattr(self, name) for name in self.__slots__}
        return self.card_id.encode(), encode_written(AUDIT_EVENTS, value)


def decode_audit_event(key: bytes, value: bytes | None) -> tuple[AuditEvent | None, Reject]:
    """Return what a record says, and NONE; or nothing, and why it is refused."""
    try:
        schema, record = decode_record(value or b"")
    except UndecodableError:
        return None, Reject.MALFORMED
    if schema.topic != AUDIT_EVENTS:
        return None, Reject.WRONG_SCHEMA
    event = AuditEvent(**record)
    if event.card_id.encode() != key:
        return None, Reject.KEY_MISMATCH
    if event.kind not in (TRANSACTION, DECISION):
        return None, Reject.MALFORMED
    return event, Reject.NONE
