"""What the scorer decides: records and profiles in, decisions, alerts, dead letters and new profiles out. No IO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from services.codec.transactions import TOPIC, decode_transactions
from services.core.columns import Text, TransactionColumns, type_bool, type_f64, type_i64, unpack_code
from services.core.features import Folded, fold
from services.core.kernels import group_text
from services.core.money import exponents_of
from services.core.policy import Action
from services.core.profiles import LAYOUT, CorruptProfileError, OpenProfiles, open_profiles, seal_profiles
from services.core.validation import Reject, validate
from services.core.windows import DEGRADATIONS, REPEAT
from services.inference import Model
from services.runtime import catalogue as m
from services.runtime.logs import transaction_token
from services.runtime.metrics import MetricsRegistry
from services.runtime.processor import Outcome, Prepared
from services.scorer.outputs import Decided, OutputEncoder
from services.streams import Records


@dataclass(frozen=True, slots=True)
class PreparedTransactions(Prepared):
    """A batch of transactions: the valid ones in columns, the others with their reason."""

    columns: TransactionColumns
    rows: type_i64
    """(v,) the record that each row of ``columns`` came from."""
    slot: type_i64
    """(v,) the pair of ``cards`` that each row belongs to."""
    status: type_i64
    """(n,) the Reject of every record."""
    refused_ids: Mapping[int, bytes]
    """The transaction id of each refused record that has a readable one."""


@dataclass(frozen=True, slots=True)
class ScoredOutcome(Outcome):
    """The outcome with what is measured of it."""

    decided_rows: Decided
    rejected: type_i64
    """The Reject of every dead letter."""


class ScorerProcessor:
    """See :class:`services.runtime.processor.Processor` for the protocol."""

    topic = TOPIC
    layout = LAYOUT

    def __init__(self, model: Model) -> None:
        self.model = model
        self._encoder = OutputEncoder(model)

    def prepare(self, records: Records, killers: type_bool) -> PreparedTransactions:
        """See :class:`services.runtime.processor.Processor`."""
        values = records.values
        if killers.any():
            values = [None if kills else value for kills, value in zip(killers.tolist(), values, strict=True)]
        columns, rows, status = decode_transactions(values)
        status[killers] = Reject.KILLS_DECODER
        keys, has_key = _key_column(records.keys)
        status[rows] = validate(columns, keys.take(rows), has_key[rows], records.timestamp_ms[rows])
        valid = status[rows] == Reject.NONE
        refused_ids: dict[int, bytes] = {}
        if not valid.all():
            ids = columns.transaction_id[~valid]
            refused_ids = {row: bytes(i) for row, i in zip(rows[~valid].tolist(), ids, strict=True)}
            columns, rows = columns.take(valid), rows[valid]
        slot, first = group_text(columns.card_id, records.partition[rows])
        return PreparedTransactions(
            records=records,
            partitions=records.partition[rows[first]].tolist(),
            cards=columns.card_id.take(first).tolist(),
            columns=columns,
            rows=rows,
            slot=slot,
            status=status,
            refused_ids=refused_ids,
        )

    def decide(
        self, prepared: PreparedTransactions, profiles: Sequence[bytes | None], emit: type_bool, now_ms: int
    ) -> ScoredOutcome:
        """See :class:`services.runtime.processor.Processor`."""
        folded, sealed = self._fold(prepared, profiles, emit)
        emitted = emit[prepared.rows]
        decided = self._score(prepared, folded, emitted)
        bad = (prepared.status != Reject.NONE) & emit
        outputs = self._encoder.encode(prepared.records, decided, np.flatnonzero(bad), prepared.status, now_ms)
        return ScoredOutcome(
            outputs=outputs,
            profiles=sealed,
            decided=len(decided),
            folded_only=int((~emit).sum()),
            refused=prepared.records.partition[bad],
            notices=_notices(prepared, bad),
            decided_rows=decided,
            rejected=prepared.status[bad],
        )

    def _fold(
        self, prepared: PreparedTransactions, profiles: Sequence[bytes | None], emit: type_bool
    ) -> tuple[Folded, list[bytes | None]]:
        additions = np.bincount(prepared.slot, minlength=len(prepared.cards)).astype(np.int64)
        opened = open_profiles(list(profiles), additions)
        before = opened.last_offset.copy()
        offsets = prepared.records.offset[prepared.rows]
        # Read and written in one place: a profile must never hold a record that is still to be folded.
        first_offset = np.full(len(prepared.cards), 2**62, np.int64)
        np.minimum.at(first_offset, prepared.slot, offsets)
        ahead = np.flatnonzero(opened.last_offset >= first_offset)
        if len(ahead):
            raise CorruptProfileError(
                "a profile is ahead of its log: the grid was written past its owner", ahead.tolist()
            )
        folded = fold(prepared.columns, prepared.slot, offsets, emit[prepared.rows], opened)
        return folded, _changed(opened, before)

    def _score(self, prepared: PreparedTransactions, folded: Folded, emitted: type_bool) -> Decided:
        vectors, flags = folded.vectors[emitted], folded.flags[emitted]
        scores = self.model.predict(vectors)
        actions = self.model.thresholds.actions(scores)
        columns = prepared.columns if emitted.all() else prepared.columns.take(emitted)
        return Decided(
            columns=columns,
            rows=prepared.rows[emitted],
            vectors=vectors,
            scores=scores,
            actions=actions,
            contributions=self._explain(vectors, actions),
            degraded=_degraded(flags),
            repeat=(flags & REPEAT) != 0,
        )

    def _explain(self, vectors: type_f64, actions: type_i64) -> type_f64:
        return self.model.explain(vectors[actions != Action.APPROVE])

    def measure(
        self, metrics: MetricsRegistry, prepared: PreparedTransactions, outcome: ScoredOutcome, committed_ms: int
    ) -> None:
        """See :class:`services.runtime.processor.Processor`."""
        decided = outcome.decided_rows
        for action, count in zip(Action, np.bincount(decided.actions, minlength=len(Action)), strict=True):
            metrics.add(m.DECISIONS, count, action.name)
        for reason in np.unique(outcome.rejected):
            metrics.add(m.DEAD_LETTERS, int((outcome.rejected == reason).sum()), Reject(reason).name)
        metrics.add(m.ALERTS, int((decided.actions != Action.APPROVE).sum()))
        metrics.add(m.REPEATS, int(decided.repeat.sum()))
        for bit, what in enumerate(DEGRADATIONS):
            metrics.add(m.DEGRADED, int((decided.degraded >> bit & 1).sum()), what)
        for labels, amount in _amounts(decided).items():
            metrics.add(m.AMOUNT, amount, *labels)
        metrics.observe(m.SCORES, decided.scores)
        metrics.observe(m.EVENT_AGE, np.maximum(0, committed_ms - decided.columns.event_time_ms) / 1000.0)
        stamps = prepared.records.timestamp_ms[decided.rows]
        metrics.observe(m.LATENCY, np.maximum(0, committed_ms - stamps) / 1000.0)


def _notices(prepared: PreparedTransactions, bad: type_bool) -> list[dict[str, Any]]:
    """Return what is logged of each refused record: where it is, why, and the token of its transaction if it has one."""
    records, told = prepared.records, []
    for i in np.flatnonzero(bad).tolist():
        where = {"partition": int(records.partition[i]), "offset": int(records.offset[i])}
        token = {"transaction": transaction_token(prepared.refused_ids[i])} if i in prepared.refused_ids else {}
        told.append({"reason": Reject(prepared.status[i]).name, **where, **token})
    return told


def _amounts(decided: Decided) -> dict[tuple[str, str], float]:
    """Return the sum of the billing amounts, in major units, by action and currency."""
    columns = decided.columns
    # The sums are of integer minor units, exact below 2**53.
    pairs, pair_of = np.unique(columns.billing_currency * len(Action) + decided.actions, return_inverse=True)
    minor = np.bincount(pair_of, columns.billing_amount_minor, len(pairs))
    major = minor / 10.0 ** exponents_of(pairs // len(Action))
    named = ((Action(pair % len(Action)).name, unpack_code(pair // len(Action))) for pair in pairs.tolist())
    return dict(zip(named, major.tolist(), strict=True))


def _key_column(keys: Sequence[bytes | None]) -> tuple[Text, type_bool]:
    """Return the record keys as a column, and which of them there are."""
    if None not in keys:
        return Text.of(cast("Sequence[bytes]", keys)), np.ones(len(keys), bool)
    return Text.of([key or b"" for key in keys]), np.array([key is not None for key in keys])


def _changed(opened: OpenProfiles, before: type_i64) -> list[bytes | None]:
    """Seal the profiles; None for those into which nothing was folded."""
    unchanged = opened.last_offset == before
    sealed: list[bytes | None] = list(seal_profiles(opened))
    for k in np.flatnonzero(unchanged):  # only repeats and too late ones: exceptional
        sealed[k] = None
    return sealed


def _degraded(flags: type_i64) -> type_i64:
    """Return, a row, one bit for each of ``DEGRADATIONS``."""
    seen = [(flags & flag) != 0 for flag in DEGRADATIONS.values()]
    return sum((bits.astype(np.int64) << at for at, bits in enumerate(seen)), np.zeros(len(flags), np.int64))
