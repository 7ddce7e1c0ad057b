"""What the scorer decides: records and profiles in, decisions, alerts, dead letters and new profiles out. No IO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np

from services.codec.transactions import TOPIC, decode_transactions
from services.core.card.features import FoldedCards, fold
from services.core.card.layout import CARD
from services.core.card.windows import WRONG_PARTITION
from services.core.columns import TransactionColumns, type_bool, type_i64, unpack_code
from services.core.immutable import immutable
from services.core.kernels import group_text, misplaced
from services.core.money import EXPONENTS
from services.core.profiles import DAY_MS, KEEP_MS, open_profiles, refuse_ahead, seal_changed, seal_profiles
from services.core.validation import Reject, validate
from services.decision.batches import OTHERS, TransactionBatch, Wanted, decide
from services.decision.engine import DecisionBatch, DecisionEngine
from services.decision.outputs import Decided
from services.decision.releases import DecidedPart, FollowsReleases
from services.decision.shadows import Shadows, counted_by_action
from services.runtime import catalogue as m
from services.runtime.metrics import MetricsRegistry
from services.streams import Output, Records
from services.worker.dead_letters import count_refused, key_column, refuse, refuse_excluded, without_excluded
from services.worker.processor import LateOutputs, LookedUp, Prepared, RefusingOutcome

_NONE: Final = int(Reject.NONE)


@immutable
class PreparedTransactions(Prepared):
    """A batch of transactions: the valid ones in columns, the others with their reason."""

    columns: TransactionColumns
    rows: type_i64
    """(v,) the record that each row of ``columns`` came from."""
    slot: type_i64
    """(v,) the pair of ``cards`` that each row belongs to."""
    lookup_slots: Mapping[str, type_i64]
    """Of each topic that is looked up (v,) the key that each row has."""
    status: type_i64
    """(n,) the Reject of every record."""
    refused_ids: Mapping[int, bytes]
    """The transaction id of each refused record that has a readable one."""


@immutable
class ScoredOutcome(RefusingOutcome):
    """The outcome with what is measured of it."""

    parts: Sequence[DecidedPart]
    """What was decided, by the model that did."""


class ScorerProcessor(FollowsReleases):
    """See :class:`services.worker.processor.Processor` for the protocol."""

    topic = log = TOPIC
    layout = CARD.version
    history_ms = KEEP_MS + DAY_MS
    """What a profile keeps, and a day that event times may be ahead."""
    looks_up: Sequence[str] = OTHERS
    read_by_others = announces = False
    runs_beside = True

    def prepare(self, records: Records, excluded: type_i64) -> PreparedTransactions:
        """See :class:`services.worker.processor.Processor`."""
        columns, rows, status = decode_transactions(without_excluded(records.values, excluded))
        keys, has_key = key_column(records.keys)
        if len(rows) == len(records):  # the rule: then nothing has to be picked out
            status = found = validate(columns, keys, has_key, records.timestamp_ms)
        else:
            refuse_excluded(status, excluded)
            status[rows] = found = validate(columns, keys.take(rows), has_key[rows], records.timestamp_ms[rows])
        refused_ids: dict[int, bytes] = {}
        if np.count_nonzero(found):
            valid = found == _NONE
            ids = columns.transaction_id[~valid]
            refused_ids = {row: bytes(i) for row, i in zip(rows[~valid].tolist(), ids, strict=True)}
            columns, rows = columns.take(valid), rows[valid]
        slot, first = group_text(columns.card_id, records.partition[rows])
        wanted = Wanted.of(columns, self.looks_up)
        return PreparedTransactions(
            records=records,
            partitions=records.partition[rows[first]].tolist(),
            cards=[records.keys[row] or b"" for row in rows[first].tolist()],  # a valid record's key is its card
            lookups=wanted.keys,
            columns=columns,
            rows=rows,
            slot=slot,
            lookup_slots=wanted.slots,
            status=status,
            refused_ids=refused_ids,
        )

    def decide(
        self,
        prepared: PreparedTransactions,
        profiles: Sequence[bytes | None],
        found: Mapping[str, LookedUp],
        emit: type_bool,
        now_ms: int,
    ) -> ScoredOutcome:
        """See :class:`services.worker.processor.Processor`."""
        folded, sealed = self.fold_cards(prepared, profiles, emit)
        batch = TransactionBatch(prepared.columns, prepared.rows, folded, prepared.lookup_slots, profiles_seen=True)
        wanted = batch if np.count_nonzero(emit) == len(emit) else batch.take(emit[prepared.rows])
        parts = self.decide_by_release(wanted, found, self.decide_batch)
        return self._outcome(prepared, parts, sealed, emit, now_ms)

    def decide_batch(
        self, engine: DecisionEngine, batch: TransactionBatch, found: Mapping[str, LookedUp], shadows: Shadows
    ) -> Decided:
        """Return what one engine decides on transactions, from what was found of others; a step of :meth:`decide`."""
        return decide(engine, batch, found, shadows)

    def decide_without_profiles(
        self, prepared: PreparedTransactions, found: Mapping[str, LookedUp], now_ms: int
    ) -> ScoredOutcome:
        """Decide when the cards' own profiles cannot be read: nothing is folded, that is made good when they can be.

        Args:
            prepared: what :meth:`prepare` returned; all of it is to be emitted.
            found: as for :meth:`decide`.
            now_ms: as for :meth:`decide`.
        """
        emit, nothing = np.ones(len(prepared.records), bool), [None] * len(prepared.cards)
        folded, _ = self.fold_cards(prepared, nothing, emit)
        batch = TransactionBatch(prepared.columns, prepared.rows, folded, prepared.lookup_slots, profiles_seen=False)
        parts = self.decide_by_release(batch, found, self.decide_batch)
        return self._outcome(prepared, parts, nothing, emit, now_ms)

    def _outcome(
        self,
        prepared: PreparedTransactions,
        parts: Sequence[DecidedPart],
        profiles: Sequence[bytes | None],
        emit: type_bool,
        now_ms: int,
    ) -> ScoredOutcome:
        refused = refuse(prepared.records, prepared.status, emit, now_ms, prepared.refused_ids)
        decided = sum(len(part.decided) for part in parts)
        encode = partial(_encode, parts, prepared.records, now_ms)
        return ScoredOutcome(
            outputs=LateOutputs(decided > 0, encode, refused.outputs),
            profiles=profiles,
            decided=decided,
            folded_only=len(emit) - int(np.count_nonzero(emit)),
            refused=refused.partitions,
            notices=refused.notices,
            folded_until_ms={},
            rejected=refused.reasons,
            parts=parts,
        )

    def fold_cards(
        self, prepared: PreparedTransactions, profiles: Sequence[bytes | None], emit: type_bool
    ) -> tuple[FoldedCards, list[bytes | None]]:
        """Return what the cards' own profiles give a batch, and those profiles anew; a step of :meth:`decide`."""
        opened = open_profiles(profiles, CARD, prepared.slot)
        before = opened.last_offset.copy()
        offsets = prepared.records.offset[prepared.rows]
        refuse_ahead(opened, prepared.slot, offsets)
        folded = fold(prepared.columns, prepared.slot, offsets, emit[prepared.rows], opened)
        records = prepared.records
        wrong = misplaced(prepared.columns.card_id, records.partition[prepared.rows], records.partitions)
        folded.flags[wrong] |= WRONG_PARTITION
        return folded, seal_changed(opened, before)

    def seed(self, begins_ms: int) -> bytes | None:
        """See :class:`services.worker.processor.Processor`: decisions on the card say PROFILE_TRUNCATED until its windows begin later."""
        opened = open_profiles([None], CARD)
        opened.truncated_until_ms[0] = begins_ms
        return seal_profiles(opened)[0]

    def measure(
        self, metrics: MetricsRegistry, prepared: PreparedTransactions, outcome: ScoredOutcome, committed_ms: int
    ) -> None:
        """See :class:`services.worker.processor.Processor`."""
        count_refused(metrics, outcome.rejected)
        for part in outcome.parts:
            self._measure(metrics, prepared.records, part, committed_ms)

    def _measure(self, metrics: MetricsRegistry, records: Records, part: DecidedPart, committed_ms: int) -> None:
        decided, decisions = part.decided, part.decided.decisions
        _count_kinds(metrics, m.DECISIONS, decisions.actions)
        _count_kinds(metrics, m.FALLBACK_TIERS, decisions.tiers)
        _count_kinds(metrics, m.CLASSES, decisions.classes)
        _count_kinds(metrics, m.DECIDED_BY, decisions.sources)
        _count_bits(metrics, m.DEGRADED, decided.degraded)
        _count_bits(metrics, m.DECLINES, decisions.declines)
        _count_alerts(metrics, decisions, decided.alerted)
        metrics.add(m.REPEATS, int(np.count_nonzero(decided.repeat)))
        for labels, amount in _amounts(decided).items():
            metrics.add(m.AMOUNT, amount, *labels)
        if decisions.hits is not None:
            for effect, count in decisions.hits.effects().items():
                metrics.add(m.RULES_HELD, count, effect)
        metrics.observe(m.SCORES, decisions.scores[~np.isnan(decisions.scores)])
        metrics.observe(m.EVENT_AGE, np.maximum(0, committed_ms - decided.columns.event_time_ms) / 1000.0)
        stamps = records.timestamp_ms[decided.rows]
        metrics.observe(m.LATENCY, np.maximum(0, committed_ms - stamps) / 1000.0)
        if decisions.let_through is not None:
            _count_kinds(metrics, m.CONTROL_DECISIONS, decisions.let_through[decisions.let_through >= 0])
        if part.canary:
            _count_kinds(metrics, m.CANARY_DECISIONS, decisions.actions)
        if decided.shadows:
            names = m.ACTION.values or ()
            for name, count in zip(names, counted_by_action(decided.shadows, len(names)), strict=True):
                metrics.add(m.SHADOW_DECISIONS, count, name)


def _encode(parts: Sequence[DecidedPart], records: Records, now_ms: int) -> Sequence[Output]:
    return [output for part in parts for output in part.encoder.encode(records, part.decided, now_ms)]


def _count_kinds(metrics: MetricsRegistry, metric: m.Metric, kinds: type_i64) -> None:
    """Count rows by their kind: an index of the values of the metric's only label."""
    names = metric.labels[0].values
    assert names is not None
    for name, count in zip(names, np.bincount(kinds, minlength=len(names)).tolist(), strict=True):
        if count:
            metrics.add(metric, count, name)


def _count_alerts(metrics: MetricsRegistry, decisions: DecisionBatch, rows: type_i64) -> None:
    """Count alerts by kind and severity."""
    severities = m.SEVERITY.values or ()
    if not len(rows):
        return
    pairs = decisions.alert_kinds[rows] * len(severities) + decisions.alert_severities[rows]
    for pair, count in enumerate(np.bincount(pairs).tolist()):
        if count:
            metrics.add(
                m.ALERTS, count, (m.KIND.values or ())[pair // len(severities)], severities[pair % len(severities)]
            )


def _count_bits(metrics: MetricsRegistry, metric: m.Metric, masks: type_i64) -> None:
    """Count rows by each bit of their mask: the n-th stands for the n-th value of the metric's only label."""
    if not np.count_nonzero(masks):
        return
    for bit, name in enumerate(metric.labels[0].values or ()):
        metrics.add(metric, int((masks >> bit & 1).sum()), name)


def _amounts(decided: Decided) -> dict[tuple[str, str], float]:
    """Return the sum of the billing amounts, in major units, by action and currency."""
    actions, amounts = decided.decisions.actions, decided.columns.billing_amount_minor
    names = m.ACTION.values or ()
    sums: dict[tuple[str, str], float] = {}
    currencies = set(decided.columns.billing_currency.tolist())
    for currency in currencies:
        rows = slice(None) if len(currencies) == 1 else decided.columns.billing_currency == currency
        code = unpack_code(currency)
        # Of integer minor units, exact below 2**53.
        minor = np.bincount(actions[rows], amounts[rows], len(names)).tolist()
        sums |= {
            (name, code): amount / 10 ** EXPONENTS[code] for name, amount in zip(names, minor, strict=True) if amount
        }
    return sums
