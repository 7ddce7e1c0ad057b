"""The scorer's records: decisions, alerts and dead letters, encoded from columns."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import fastavro
import numpy as np

from services.codec.records import encode_record
from services.codec.schemas import topics
from services.codec.transactions import code_text
from services.codec.writing import Column, ColumnarWriter
from services.core.columns import Text, TransactionColumns, type_bool, type_f64, type_i64, unpack_code
from services.core.features import FEATURE_SET_HASH
from services.core.masking import mask_bytes
from services.core.money import format_amount
from services.core.policy import SEVERITY_OF_ACTION, Action, decision_ids
from services.core.reasons import Reason, heaviest_reasons
from services.core.validation import Reject
from services.core.windows import DEGRADATIONS
from services.inference import Model
from services.streams import Output, Records

DECISIONS, ALERTS, DEAD_LETTERS = "card-decisions", "card-alerts", "dead-letters"
DEAD_LETTER_BYTES_MAX: Final = 16 * 1024
"""How much of a refused record is kept; its length is always told."""

_IDS: Final = ("card_id", "customer_id", "account_id", "terminal_id", "merchant_id")


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided on d transactions, in columns."""

    columns: TransactionColumns
    rows: type_i64
    """(d,) the record that each came from."""
    vectors: type_f64
    scores: type_f64
    actions: type_i64
    contributions: type_f64
    """(a, features): of those that are not APPROVE, in order."""
    degraded: type_i64
    """(d,) one bit for each of ``DEGRADATIONS``."""
    repeat: type_bool

    def __len__(self) -> int:
        return len(self.rows)


class OutputEncoder:
    """Encodes what a batch decided; holds only what is constant for a model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._decisions = ColumnarWriter(topics()[DECISIONS].latest)
        self._alerts = ColumnarWriter(topics()[ALERTS].latest)
        self._reasons_type = self._array_type(DECISIONS, "reasons")
        # Three bits make eight lists: each encoded once.
        self._degraded = Text.of([self._encode_degraded(bits) for bits in range(2 ** len(DEGRADATIONS))])

    @staticmethod
    def _array_type(topic: str, field: str) -> object:
        definition = topics()[topic].latest.definition
        return fastavro.parse_schema(next(f["type"] for f in definition["fields"] if f["name"] == field))

    def _encode_degraded(self, bits: int) -> bytes:
        out = io.BytesIO()
        named = [name for at, name in enumerate(DEGRADATIONS) if bits >> at & 1]
        fastavro.schemaless_writer(out, self._array_type(DECISIONS, "degraded"), named)
        return out.getvalue()

    def encode(
        self, records: Records, decided: Decided, bad_rows: type_i64, status: type_i64, now_ms: int
    ) -> Sequence[Output]:
        """Return the outputs of a batch; topics without a record are left out."""
        outputs = []
        if len(decided):
            alerted = np.flatnonzero(decided.actions != Action.APPROVE)
            reasons = self._encode_reasons(decided, alerted)
            columns = self._decision_columns(records, decided, now_ms)
            columns["reasons"] = _scatter(reasons, alerted, len(decided))
            # A row for each record is the rule; only with refused or folded records in between are keys picked out.
            whole = len(decided) == len(records)
            keys = records.keys if whole else [records.keys[i] for i in decided.rows.tolist()]
            outputs.append(Output(DECISIONS, keys, self._decisions.write(columns, len(decided))))
            if len(alerted):
                alert_keys = [keys[i] for i in alerted.tolist()]
                alerts = self._alert_columns(columns, decided, alerted, reasons)
                outputs.append(Output(ALERTS, alert_keys, self._alerts.write(alerts, len(alerted))))
        if len(bad_rows):
            outputs.append(_dead_letters(records, bad_rows, status, now_ms))
        return outputs

    def _decision_columns(self, records: Records, decided: Decided, now_ms: int) -> dict[str, Column]:
        n, columns = len(decided), decided.columns
        values: dict[str, Column] = {name: getattr(columns, name) for name in _IDS}
        return values | {
            "decision_id": decision_ids(columns.transaction_id),
            "transaction_id": columns.transaction_id,
            "event_time_ms": columns.event_time_ms,
            "decided_at_ms": np.full(n, now_ms, np.int64),
            "action": decided.actions,
            "score": decided.scores,
            "model": Text.constant(self._model.name.encode(), n),
            "model_version": Text.constant(self._model.version.encode(), n),
            "feature_set_hash": Text.constant(FEATURE_SET_HASH.encode(), n),
            "features": decided.vectors,
            "degraded": self._degraded.take(decided.degraded),
            "repeat": decided.repeat,
            "source_topic": Text.constant(records.topic.encode(), n),
            "source_partition": records.partition[decided.rows],
            "source_offset": records.offset[decided.rows],
            "source_timestamp_ms": records.timestamp_ms[decided.rows],
        }

    def _alert_columns(
        self, decisions: dict[str, Column], decided: Decided, alerted: type_i64, reasons: list[bytes]
    ) -> dict[str, Column]:
        shared = (*_IDS, "decision_id", "transaction_id", "event_time_ms", "decided_at_ms", "action", "score")
        taken: dict[str, Column] = {}
        for name in shared:
            column = decisions[name]
            taken[name] = column.take(alerted) if isinstance(column, Text) else column[alerted]
        columns = decided.columns
        return taken | {
            "severity": SEVERITY_OF_ACTION[decided.actions[alerted]],
            "billing_amount_minor": columns.billing_amount_minor[alerted],
            "billing_currency": code_text(columns.billing_currency[alerted], 3),
            "reasons": Text.of(reasons),
        }

    def _encode_reasons(self, decided: Decided, alerted: type_i64) -> list[bytes]:
        """Encode the reasons of each alerted row: one by one, since they are few."""
        encoded = []
        for i, contributions in zip(alerted.tolist(), decided.contributions, strict=True):
            currency = unpack_code(int(decided.columns.billing_currency[i]))
            amount = format_amount(int(decided.columns.billing_amount_minor[i]), currency)
            reasons = heaviest_reasons(contributions, decided.vectors[i], amount)
            out = io.BytesIO()
            fastavro.schemaless_writer(out, self._reasons_type, [_reason_record(reason) for reason in reasons])
            encoded.append(out.getvalue())
        return encoded


def _reason_record(reason: Reason) -> dict[str, object]:
    return {"code": reason.code, "weight": reason.weight, "value": reason.value, "text": reason.text}


def _scatter(values: list[bytes], rows: type_i64, count: int) -> Text:
    """Return a column with the given encoded arrays at ``rows`` and the empty array elsewhere."""
    text = Text.of([b"\x00", *values])
    start, length = np.zeros(count, np.int64), np.ones(count, np.int64)
    start[rows], length[rows] = text.start[1:], text.length[1:]
    return Text(text.buffer, start, length)


def _dead_letters(records: Records, bad_rows: type_i64, status: type_i64, now_ms: int) -> Output:
    """Encode the refused records, one by one, since they are the exception; card-number-like digits are masked."""
    schema = topics()[DEAD_LETTERS].latest
    keys, values = [], []
    for i in bad_rows.tolist():
        key, value = records.keys[i], records.values[i]
        masked_key = None if key is None else mask_bytes(key)[:DEAD_LETTER_BYTES_MAX]
        masked_value = None if value is None else mask_bytes(value)
        keys.append(masked_key)
        letter = {
            "reason": Reject(status[i]).name,
            "key": masked_key,
            "value": None if masked_value is None else masked_value[:DEAD_LETTER_BYTES_MAX],
            "value_bytes": len(value or b""),
            "masked": masked_value != value or (key is not None and mask_bytes(key) != key),
            "source_topic": records.topic,
            "source_partition": int(records.partition[i]),
            "source_offset": int(records.offset[i]),
            "source_timestamp_ms": int(records.timestamp_ms[i]),
            "rejected_at_ms": now_ms,
        }
        values.append(encode_record(schema, letter))
    return Output(DEAD_LETTERS, keys, values)
