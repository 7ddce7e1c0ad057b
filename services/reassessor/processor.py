"""What the reassessor does: decisions that were made on a lower rung in, what would have been decided with everything at hand out. No IO.

It keeps no profiles: it looks at the card's own as it looks at others'. A profile by then holds the transaction itself and what came after it;
windows end at the transaction, and it counts itself once, as a repeat does, so it is decided on what was known of the card before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from services.codec.reassessments import REQUESTS, Requests, decode_requests
from services.codec.transactions import TOPIC as TRANSACTIONS
from services.codec.transactions import decode_transactions
from services.core.card_features import Folded, fold
from services.core.card_layout import CARD
from services.core.columns import TransactionColumns, type_bool, type_i64
from services.core.immutable import immutable
from services.core.policy import Action
from services.core.profiles import CorruptProfileError, open_profiles
from services.core.validation import Reject, validate
from services.core.windows import REPEAT
from services.runtime import catalogue as m
from services.runtime.dead_letters import count_refused, refuse, without_killers
from services.runtime.metrics import MetricsRegistry
from services.runtime.processor import LookedUp, NotYetError, Prepared, RefusingOutcome
from services.scorer.adopting import Adopting
from services.scorer.deciding import OTHERS, Batch, Wanted, decide
from services.scorer.reference import group_keys
from services.streams import Records


@immutable
class PreparedRequests(Prepared):
    """A batch of requests: the good ones with their transactions in columns, the others with their reason."""

    requests: Requests
    columns: TransactionColumns
    rows: type_i64
    """(v,) the record that each row of ``requests`` and ``columns`` came from."""
    slots: Mapping[str, type_i64]
    """By topic (v,) the looked-up key that each row has."""
    status: type_i64
    """(n,) the Reject of every record."""


@immutable
class ReassessedOutcome(RefusingOutcome):
    """The outcome with what is measured of it."""

    decided_before: type_i64
    decided_now: type_i64


class ReassessorProcessor(Adopting):
    """See :class:`services.runtime.processor.Processor` for the protocol."""

    topic = REQUESTS
    layout = 0x401
    history_ms = 0
    looks_up: Sequence[str] = (TRANSACTIONS, *OTHERS)
    read_by_others = announces = False

    def prepare(self, records: Records, killers: type_bool) -> PreparedRequests:
        """See :class:`services.runtime.processor.Processor`."""
        requests, rows, status = decode_requests(without_killers(records.values, killers))
        status[killers] = Reject.KILLS_DECODER
        columns, decoded, why = decode_transactions(requests.transactions)
        requests, origins = requests.take(decoded), rows[decoded]
        # Whoever sends a request may be another than the scorer, which had checked what it sends.
        why[decoded] = found = validate(
            columns, requests.card_id, np.ones(len(decoded), bool), requests.source_timestamp_ms
        )
        status[rows], valid = why, found == Reject.NONE
        rows = origins
        if not valid.all():
            columns, requests, rows = columns.take(valid), requests.take(np.flatnonzero(valid)), rows[valid]
        wanted = Wanted.of(columns)
        cards, card_slots = group_keys(columns.card_id)
        return PreparedRequests(
            records=records,
            partitions=[],
            cards=[],
            lookups={TRANSACTIONS: cards, **wanted.keys},
            requests=requests,
            columns=columns,
            rows=rows,
            slots={TRANSACTIONS: card_slots, **wanted.slots},
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
        """See :class:`services.runtime.processor.Processor`. Raises NotYetError while anything is missing again."""
        emitted = emit[prepared.rows]
        columns, requests = prepared.columns.take(emitted), prepared.requests.take(np.flatnonzero(emitted))
        outputs, now = [], np.zeros(0, np.int64)
        if len(columns):
            slots = {topic: slots[emitted] for topic, slots in prepared.slots.items()}
            folded = self._seen(columns, requests, slots[TRANSACTIONS], found)
            decided = decide(
                self.judges, Batch(columns, prepared.rows[emitted], folded, slots, profiles_seen=True), found
            )
            outputs, now = [self._encoder.encode_reassessments(requests, decided, now_ms)], decided.verdict.actions
        refused = refuse(prepared.records, prepared.status, emit, now_ms)
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

    def _seen(
        self, columns: TransactionColumns, requests: Requests, slot: type_i64, found: Mapping[str, LookedUp]
    ) -> Folded:
        """Return what is seen of the cards. Raises NotYetError."""
        if self.judges.model is None or self.judges.model.champion is None:
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
        return Folded(folded.vectors, folded.flags & ~REPEAT)

    def measure(
        self,
        metrics: MetricsRegistry,
        prepared: PreparedRequests,  # noqa: ARG002
        outcome: ReassessedOutcome,
        committed_ms: int,  # noqa: ARG002
    ) -> None:
        """See :class:`services.runtime.processor.Processor`."""
        count_refused(metrics, outcome.rejected)
        pairs = outcome.decided_before * len(Action) + outcome.decided_now
        for pair, count in enumerate(np.bincount(pairs, minlength=len(Action) ** 2).tolist()):
            metrics.add(m.REASSESSED, count, Action(pair // len(Action)).name, Action(pair % len(Action)).name)
