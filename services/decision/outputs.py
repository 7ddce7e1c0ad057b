"""The scorer's records: decisions, alerts, terminal events and requests to assess again, encoded from columns."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from copy import copy
from functools import cache
from typing import Any, Final

import fastavro
import numpy as np

from services.codec.reassessments import Requests
from services.codec.rule_sets import NO_RULES
from services.codec.schemas import topics
from services.codec.transactions import TOPIC as TRANSACTIONS
from services.codec.transactions import code_text
from services.codec.writing import Column, ColumnarWriter, Nullable
from services.core.card.windows import DEGRADATIONS
from services.core.columns import Text, TransactionColumns, filled, type_bool, type_f64, type_i64
from services.core.control import NOT_LET_THROUGH
from services.core.fallback import FallbackTier
from services.core.features import FEATURE_SET_HASH
from services.core.immutable import immutable
from services.core.policy import decision_ids
from services.core.rules.engine import RuleEngine
from services.decision.engine import DecisionBatch
from services.decision.explanations import REPORTED, Explanation
from services.decision.onward import requests_of, terminal_events_of
from services.decision.shadows import ShadowDecided, ShadowEncoder
from services.inference import Model
from services.streams import Output, Records

DECISIONS, ALERTS, REASSESSMENTS = "card-decisions", "card-alerts", "card-reassessments"

_EMPTY_ARRAY: Final = b"\x00"
_CHAMPION: Final = int(FallbackTier.CHAMPION)
_IDS: Final = ("card_id", "customer_id", "account_id", "terminal_id", "merchant_id")


@immutable
class Decided:
    """What was decided on d transactions, in columns."""

    columns: TransactionColumns
    rows: type_i64
    """(d,) the record that each came from."""
    vectors: type_f64
    decisions: DecisionBatch
    explain: Callable[[], Sequence[Explanation]]
    """Explains those that are not APPROVE, in order: nothing else waits for it."""
    degraded: type_i64
    """(d,) one bit for each of ``DEGRADATIONS``."""
    behind_ms: Nullable
    """(d,) how far the terminals' profiles were behind."""
    repeat: type_bool
    shadows: Sequence[ShadowDecided] = ()
    """What releases in the shadow would have done."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def alerted(self) -> type_i64:
        """Which decisions people hear of."""
        return self.decisions.flagged

    @property
    def folded_by_others(self) -> type_bool:
        """(d,) which transactions their terminals hear of: a repeat was, the first time."""
        return ~self.repeat

    @property
    def below_champion(self) -> type_i64:
        """Which decisions were made on a lower fallback tier than the highest: they are assessed again."""
        return (self.decisions.tiers != _CHAMPION).nonzero()[0]


class OutputEncoder:
    """Encodes what a batch decided; holds only what is constant for a model and a rule set."""

    def __init__(self) -> None:
        self._model: Model | None = None
        self._decisions = ColumnarWriter(topics()[DECISIONS].written)
        self._alerts = ColumnarWriter(topics()[ALERTS].written)
        self._reassessments = ColumnarWriter(topics()[REASSESSMENTS].written)
        self._explained_types = {name: _array_type(DECISIONS, name) for name in REPORTED}
        self._rules_type = _array_type(DECISIONS, "rules")
        self._rules: RuleEngine | None = None
        self._rule_set_version = NO_RULES
        self._degraded = _encoded_degraded()
        self._shadows = ShadowEncoder()

    def with_model(self, model: Model | None) -> OutputEncoder:
        """Return an encoder that names this model; this one goes on naming its own, since it may be at work on another thread."""
        other = copy(self)
        other._model = model  # noqa: SLF001 - of its own kind
        return other

    def with_rules(self, version: int, engine: RuleEngine | None) -> OutputEncoder:
        """Return an encoder that names these rules; see :meth:`with_model`."""
        other = copy(self)
        other._rule_set_version, other._rules = version, engine  # noqa: SLF001 - of its own kind
        return other

    def encode(self, records: Records, decided: Decided, now_ms: int) -> Sequence[Output]:
        """Return what was decided in a batch; topics without a record are left out."""
        outputs = []
        if len(decided):
            alerted = decided.alerted
            explained = self._encode_explanations(decided.explain())
            columns = self._decision_columns(decided, now_ms) | _source_columns(records, decided.rows)
            columns |= {
                "control_propensity": decided.decisions.propensities,
                "control_action": _let_through(decided.decisions),
            }
            columns |= _scattered(explained, alerted, len(decided))
            # A row for each record is the rule; only with refused or folded records in between are keys picked out.
            whole = len(decided) == len(records)
            keys = records.keys if whole else [records.keys[i] for i in decided.rows.tolist()]
            outputs.append(Output(DECISIONS, keys, self._decisions.write(columns, len(decided))))
            if len(alerted):
                alert_keys = [keys[i] for i in alerted.tolist()]
                alerts = self._alert_columns(columns, decided, alerted, explained)
                outputs.append(Output(ALERTS, alert_keys, self._alerts.write(alerts, len(alerted))))
            outputs.extend(terminal_events_of(decided))
            outputs.extend(requests_of(records, decided, keys, now_ms))
            outputs.extend(self._shadows.encode(records, decided, keys, now_ms))
        return outputs

    def encode_reassessments(self, before: Requests, decided: Decided, now_ms: int) -> Output:
        """Return what would have been decided on transactions that were decided on before.

        Args:
            before: n requests, one for each of ``decided``.
            decided: what would be decided now.
            now_ms: when that is.
        """
        explained = self._encode_explanations(decided.explain())
        columns = self._decision_columns(decided, now_ms) | _scattered(
            explained, decided.decisions.flagged, len(decided)
        )
        columns |= {
            "source_topic": TRANSACTIONS.encode(),
            "source_partition": before.source_partition,
            "source_offset": before.source_offset,
            "source_timestamp_ms": before.source_timestamp_ms,
            "reassessed_at_ms": now_ms,
            "decided_at_ms": before.decided_at_ms,
            "decided_action": before.actions,
            "decided_score": before.scores,
            "decided_fallback_tier": before.tiers,
        }
        values = self._reassessments.write(columns, len(decided))
        return Output(REASSESSMENTS, decided.columns.card_id.tolist(), values)

    def _decision_columns(self, decided: Decided, now_ms: int) -> dict[str, Column]:
        columns, decisions = decided.columns, decided.decisions
        name, version = ("", "") if self._model is None else (self._model.name, self._model.version)
        values: dict[str, Column] = {name: getattr(columns, name) for name in _IDS}
        return values | {
            "decision_id": decision_ids(columns.transaction_id),
            "transaction_id": columns.transaction_id,
            "event_time_ms": columns.event_time_ms,
            "decided_at_ms": now_ms,
            "action": decisions.actions,
            "score": decisions.scores,
            "anomaly_score": decisions.anomaly_scores,
            "decided_by": decisions.sources,
            "fallback_tier": decisions.tiers,
            "transaction_class": Nullable(decisions.classes, filled(len(decided), True, bool)),
            "scored_by": _booster_names(tuple(decisions.boosters)).take(decisions.scored_by + 1),
            "model": name.encode(),
            "model_version": version.encode(),
            "feature_set_hash": FEATURE_SET_HASH.encode(),
            "features": decided.vectors,
            "degraded": self._degraded.take(decided.degraded),
            "terminal_behind_ms": decided.behind_ms,
            "rules": self._encode_rules(decided),
            "rule_set_version": None if self._rule_set_version == NO_RULES else self._rule_set_version,
            "repeat": decided.repeat,
        }

    def _alert_columns(
        self, decisions: dict[str, Column], decided: Decided, alerted: type_i64, explained: dict[str, list[bytes]]
    ) -> dict[str, Column]:
        shared = (
            *_IDS,
            "rules",
            "decision_id",
            "transaction_id",
            "event_time_ms",
            "decided_at_ms",
            "action",
            "score",
            "anomaly_score",
            "decided_by",
            "fallback_tier",
            "transaction_class",
        )
        taken: dict[str, Column] = {}
        for name in shared:
            column = decisions[name]
            if isinstance(column, Text | Nullable):
                taken[name] = column.take(alerted)
            else:
                taken[name] = column[alerted] if isinstance(column, np.ndarray) else column
        columns = decided.columns
        return (
            taken
            | {
                "severity": decided.decisions.alert_severities[alerted],
                "kind": decided.decisions.alert_kinds[alerted],
                "billing_amount_minor": columns.billing_amount_minor[alerted],
                "billing_currency": code_text(columns.billing_currency[alerted], 3),
            }
            | {name: Text.of(encoded) for name, encoded in explained.items()}
        )

    def _encode_rules(self, decided: Decided) -> Text | bytes:
        """Encode which rules held for each row: rows of one kind once, since there are few kinds."""
        hits = decided.decisions.hits
        if hits is None or self._rules is None or not hits.held.any():
            return _EMPTY_ARRAY
        examples, kind = hits.patterns()
        encoded = [_EMPTY_ARRAY]
        for row in examples.tolist():
            rules = [(self._rules.rule_set.rules[i], effect) for i, effect in hits.of_row(row)]
            held = [
                {"rule_id": rule.rule_id, "action": rule.action.name, "effect": effect, "reason": rule.reason}
                for rule, effect in rules
            ]
            encoded.append(_encode_array(self._rules_type, held))
        return Text.of(encoded).take(kind + 1)

    def _encode_explanations(self, explanations: Sequence[Explanation]) -> dict[str, list[bytes]]:
        """Encode the explanation of each alerted row, by the name of its field: one by one, since they are few."""
        explained: dict[str, list[bytes]] = {name: [] for name in self._explained_types}
        for explanation in explanations:
            for name, type_ in self._explained_types.items():
                explained[name].append(_encode_array(type_, [_as_record(one) for one in getattr(explanation, name)]))
        return explained


def _let_through(decisions: DecisionBatch) -> Nullable | None:
    """Return what would have been done with those of the control group."""
    if decisions.let_through is None:
        return None
    there = decisions.let_through != NOT_LET_THROUGH
    return Nullable(np.where(there, decisions.let_through, 0), there)


@cache
def _array_type(topic: str, field: str) -> object:
    definition = topics()[topic].written.definition
    return fastavro.parse_schema(next(f["type"] for f in definition["fields"] if f["name"] == field))


@cache
def _encoded_degraded() -> Text:
    """Return the encoded list of each combination of bits: few bits make few lists."""
    type_ = _array_type(DECISIONS, "degraded")
    every = ([name for at, name in enumerate(DEGRADATIONS) if bits >> at & 1] for bits in range(2 ** len(DEGRADATIONS)))
    return Text.of([_encode_array(type_, names) for names in every])


def _encode_array(type_: object, items: Sequence[Any]) -> bytes:
    if not items:
        return _EMPTY_ARRAY
    out = io.BytesIO()
    fastavro.schemaless_writer(out, type_, items)
    return out.getvalue()


def _as_record(one: Any) -> dict[str, Any]:
    """Return a flat dataclass as a record: asdict would copy every word of it."""
    return {name: getattr(one, name) for name in one.__slots__}


@cache
def _booster_names(boosters: tuple[str, ...]) -> Text:
    """Return boosters' names, and in front of them the empty one, which is that of none, and encoded as null."""
    return Text.of([b"", *(one.encode() for one in boosters)])


def _source_columns(records: Records, rows: type_i64) -> dict[str, Column]:
    return {
        "source_topic": records.topic.encode(),
        "source_partition": records.partition[rows],
        "source_offset": records.offset[rows],
        "source_timestamp_ms": records.timestamp_ms[rows],
    }


def _scattered(explained: dict[str, list[bytes]], rows: type_i64, count: int) -> dict[str, Column]:
    return {name: _scatter(encoded, rows, count) for name, encoded in explained.items()}


def _scatter(values: list[bytes], rows: type_i64, count: int) -> Text | bytes:
    """Return a column with the given encoded arrays at ``rows`` and the empty array elsewhere."""
    if not values:
        return _EMPTY_ARRAY
    text = Text.of([_EMPTY_ARRAY, *values])
    start, length = np.zeros(count, np.int64), np.ones(count, np.int64)
    start[rows], length[rows] = text.start[1:], text.length[1:]
    return Text(text.buffer, start, length)
