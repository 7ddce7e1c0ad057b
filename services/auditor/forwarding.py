"""Transactions and decisions of audited cards go, each from its own topic, into one log a card. No IO.

Whether a card is audited depends on its token and the share alone. Nothing that a scorer refuses is copied: of a transaction that is not to be
decided on only its place goes on, and nothing at all under a key that is no token, or in a partition where nobody looks for it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np

from services.checker.card_numbers import token_ok
from services.checker.evidence import DECISIONS, INPUTS
from services.checker.letters import ASTRAY
from services.checker.oracle import acceptable, schemas_of
from services.checker.verdict import RECORD_BYTES_MAX
from services.codec.audit_events import AUDIT_EVENTS, DECISION, TRANSACTION, AuditEvent
from services.core.columns import Text, type_bool, type_i64
from services.core.immutable import immutable
from services.core.kernels import hash_text, misplaced
from services.core.layouts import AUDIT_LAYOUT
from services.core.profiles import CorruptProfileError
from services.core.validation import Reject
from services.registry import AUDITOR_PREFIX
from services.streams import Output, Records
from services.worker.dead_letters import key_column
from services.worker.topic_processor import Folded, PreparedTopic, TopicProcessor

_SALT: Final = np.uint64(0x9E3779B97F4A7C15)
"""So that the audited cards are others than those that a percentage elsewhere chooses."""
_MIXED: Final = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
DEFAULT_SHARE: Final = 0.01
"""That of the setting, for who only folds."""


def audited(keys: Text, share: float) -> type_bool:
    """Return which cards are audited: whoever is with one share is with any larger one.

    Args:
        keys: n tokens of cards.
        share: of all cards, 0 to 1.

    Source of the mixer: Appleby, MurmurHash3 ``fmix64``.
    """
    mixed = hash_text(keys) ^ _SALT
    for factor in _MIXED:
        mixed = (mixed ^ (mixed >> np.uint64(33))) * factor
    mixed ^= mixed >> np.uint64(33)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53 < share


_SINCE: Final = struct.Struct("<Hdq")
"""What is remembered of a partition: the layout, the share, and from which offset on it was copied with that share."""
_KEY: Final = b"since"


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
        nothing_refused = np.full(len(records), Reject.NONE, np.int64)
        partitions = sorted(records.counts())
        return PreparedShare(
            records, partitions, [_KEY] * len(partitions), {}, status=nothing_refused, rows=np.flatnonzero(chosen)
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
