"""What the reassessor does: decisions that were made on a lower fallback tier in, what would have been decided with everything at hand out. No IO.

It keeps no profiles: it looks at the card's own as it looks at others'. A profile by then holds the transaction itself and what came after it;
windows end at the transaction, and it counts itself once, as a repeat does, so it is decided on what was known of the card before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from services.codec.reassessments import REQUESTS, Requests, decode_requests
from services.codec.transactions import TOPIC as TRANSACTIONS
from services.codec.transactions import decode_transactions
from services.core.card.features import FoldedCards, fold
from services.core.card.layout import CARD
from services.core.card.windows import REPEAT, WRONG_PARTITION
from services.core.columns import TransactionColumns, type_bool, type_i64
from services.core.immutable import immutable
from services.core.kernels import group_text, misplaced
from services.core.layouts import REASSESSMENT_LAYOUT
from services.core.policy import Action
from services.core.profiles import CorruptProfileError, open_profiles
from services.core.validation import Reject, equal_text, validate
from services.decision.batches import OTHERS, TransactionBatch, Wanted, decide
from services.decision.releases import FollowsReleases
from services.runtime import catalogue as m
from services.runtime.metrics import MetricsRegistry
from services.streams import Records
from services.worker.dead_letters import count_refused, key_column, refuse, refuse_excluded, without_excluded
from services.worker.processor import LookedUp, NotYetError, Places, Prepared, RefusingOutcome


@immutable
class PreparedRequests(Prepared):
    """A batch of requests: the good ones with their transactions in columns, the others with their reason."""

    requests: Requests
    columns: TransactionColumns
    rows: type_i64
    """(v,) the record that each row of ``requests`` and ``columns`` came from."""
    slots: Mapping[str, type_i64]
    """By topic (v,) the looked-up key that each row has."""
    card_partitions: type_i64
    """(k,) the partition that each looked-up card's transactions lie in, by the requests: a card is another one in each."""
    since_ms: type_i64
    """(v,) the Kafka timestamp of each request."""
    status: type_i64
    """(n,) the Reject of every record."""

    @property
    def lookup_partitions(self) -> Mapping[str, type_i64]:
        """See :class:`services.worker.processor.Prepared`: a profile is where its transactions are, wherever the key belongs."""
        return {TRANSACTIONS: self.card_partitions}

    @property
    def places(self) -> Mapping[str, Places]:
        """See :class:`services.worker.processor.Prepared`."""
        asked = self.requests
        return {TRANSACTIONS: Places(asked.source_partition, asked.source_offset, self.since_ms)} if len(asked) else {}


@immutable
class ReassessedOutcome(RefusingOutcome):
    """The outcome with what is measured of it."""

    decided_before: type_i64
    decided_now: type_i64


class ReassessorProcessor(FollowsReleases):
    """See :class:`services.worker.processor.Processor` for the protocol."""

    topic = log = REQUESTS
    layout = REASSESSMENT_LAYOUT
    history_ms = 0
    looks_up: Sequence[str] = (TRANSACTIONS, *OTHERS)
    read_by_others = announces = False

    def prepare(self, records: Records, excluded: type_i64) -> PreparedRequests:
        """See :class:`services.worker.processor.Processor`."""
        requests, rows, status = decode_requests(without_excluded(records.values, excluded))
        refuse_excluded(status, excluded)
        columns, decoded, why = decode_transactions(requests.transactions)
        requests, decoded_rows = requests.take(decoded), rows[decoded]
        status[rows], rows = why, decoded_rows
        # Whoever sends a request may be another than the scorer, which had checked what it sends.
        checked = validate(columns, requests.card_id, np.ones(len(rows), bool), requests.source_timestamp_ms)
        of_key = _key_status(records.keys, rows, requests, columns)
        status[rows] = np.where(of_key == Reject.NONE, checked, of_key)
        valid = np.flatnonzero(status[rows] == Reject.NONE)
        if len(valid) < len(rows):
            requests, columns, rows = requests.take(valid), columns.take(valid), rows[valid]
        wanted = Wanted.of(columns)
        card_slots, first = group_text(columns.card_id, requests.source_partition)
        return PreparedRequests(
            records=records,
            partitions=[],
            cards=[],
            lookups={TRANSACTIONS: columns.card_id.take(first), **wanted.keys},
            requests=requests,
            columns=columns,
            rows=rows,
            slots={TRANSACTIONS: card_slots, **wanted.slots},
            card_partitions=requests.source_partition[first],
            since_ms=records.timestamp_ms[rows],
            status=status,
        )

    def decide(
        self,
        prepared: PreparedRequests,
        profiles: Sequence[bytes | None],
        found: Mapping[str, LookedUp],
        emit: type_bool,
        now_ms: int,
    ) -> ReassessedOutcome:
        """See :class:`services.worker.processor.Processor`. Raises NotYetError while anything is missing again."""
        status, emitted = prepared.status, emit[prepared.rows]
        refused_ids: dict[int, bytes] = {}
        if emitted.any():
            there = self._there(prepared, found)
            status, lost = status.copy(), np.flatnonzero(~there)
            status[prepared.rows[lost]] = Reject.TRANSACTION_NOT_FOUND
            refused_ids = {int(prepared.rows[i]): bytes(prepared.requests.transaction_id[i]) for i in lost.tolist()}
            emitted &= there
        columns, requests = prepared.columns.take(emitted), prepared.requests.take(np.flatnonzero(emitted))
        outputs, now = [], np.zeros(0, np.int64)
        if len(columns):
            slots = {topic: slots[emitted] for topic, slots in prepared.slots.items()}
            folded = self._seen(columns, requests, slots[TRANSACTIONS], found)
            decided = decide(
                self.engine, TransactionBatch(columns, prepared.rows[emitted], folded, slots, profiles_seen=True), found
            )
            outputs, now = [self._encoder.encode_reassessments(requests, decided, now_ms)], decided.decisions.actions
        refused = refuse(prepared.records, status, emit, now_ms, refused_ids)
        return ReassessedOutcome(
            outputs=[*outputs, *refused.outputs],
            profiles=profiles,
            decided=len(columns),
            folded_only=int((~emit).sum()),
            refused=refused.partitions,
            notices=refused.notices,
            folded_until_ms={},
            rejected=refused.reasons,
            decided_before=requests.actions,
            decided_now=now,
        )

    def _there(self, prepared: PreparedRequests, found: Mapping[str, LookedUp]) -> type_bool:
        """Return (v,) whether the very transaction of each request lies where the request says. Raises NotYetError."""
        at = found[TRANSACTIONS].places if TRANSACTIONS in found else None
        if at is None:
            raise NotYetError(f"what is known of {TRANSACTIONS} does not come in time")
        requests, columns = prepared.requests, prepared.columns
        same = [
            value == transaction and key == card
            for value, transaction, key, card in zip(
                at.values, requests.transactions, at.keys, columns.card_id.tolist(), strict=True
            )
        ]
        return at.there & np.array(same, bool) & (requests.transaction_id == columns.transaction_id).all(axis=1)

    def _seen(
        self, columns: TransactionColumns, requests: Requests, slot: type_i64, found: Mapping[str, LookedUp]
    ) -> FoldedCards:
        """Return what is seen of the cards. Raises NotYetError."""
        if self.engine.model is None or self.engine.model.champion is None:
            raise NotYetError("the released model cannot be used")
        if missing := [topic for topic in self.looks_up if topic not in found]:
            raise NotYetError(f"what is known of {missing[0]} does not come in time")
        cards = found[TRANSACTIONS]
        if (cards.applied[slot] <= requests.source_offset).any():
            raise NotYetError("a transaction is not folded into its card's profile yet")
        try:
            opened = open_profiles(cards.profiles, CARD, slot)
        except CorruptProfileError as error:
            # Whoever owns the partition halts it, and mends it.
            raise NotYetError(str(error)) from error
        folded = fold(columns, slot, requests.source_offset, np.ones(len(columns), bool), opened)
        # That the profile holds it says nothing: whether its sender repeated it is in the decision.
        flags = folded.flags & ~REPEAT
        flags[misplaced(columns.card_id, requests.source_partition, cards.partitions)] |= WRONG_PARTITION
        return FoldedCards(folded.vectors, flags)

    def seed(self, begins_ms: int) -> bytes | None:  # noqa: ARG002 - it keeps no profiles
        """See :class:`services.worker.processor.Processor`."""
        return None

    def measure(
        self,
        metrics: MetricsRegistry,
        prepared: PreparedRequests,  # noqa: ARG002
        outcome: ReassessedOutcome,
        committed_ms: int,  # noqa: ARG002
    ) -> None:
        """See :class:`services.worker.processor.Processor`."""
        count_refused(metrics, outcome.rejected)
        pairs = outcome.decided_before * len(Action) + outcome.decided_now
        for pair, count in enumerate(np.bincount(pairs, minlength=len(Action) ** 2).tolist()):
            metrics.add(m.REASSESSED, count, Action(pair // len(Action)).name, Action(pair % len(Action)).name)


def _key_status(
    keys: Sequence[bytes | None], rows: type_i64, requests: Requests, columns: TransactionColumns
) -> type_i64:
    """Return NONE for each request whose key is the card of its transaction, and which says so itself; else why it is refused."""
    column, has_key = key_column(keys)
    same = equal_text(columns.card_id, column.take(rows)) & equal_text(requests.card_id, column.take(rows))
    return np.where(has_key[rows], np.where(same, Reject.NONE, Reject.KEY_MISMATCH), Reject.NULL_KEY)
