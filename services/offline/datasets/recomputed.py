"""The log of the lake folded again, by the kernels that serve: vectors of features that serving did not have yet, and a proof of those that it had.

What the card's own log determines comes out bit for bit as it was served. What was read of others (terminals, accounts, customers) is as of the
moment of serving: the served value stays, and only where serving did not have such a feature is it made from the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from services.core.columns import (
    ENTRY_MODES,
    TerminalEventColumns,
    Text,
    TransactionColumns,
    pack_code,
    type_f64,
    type_i64,
    type_u8,
)
from services.core.features import FEATURES
from services.core.kernels import group_text
from services.core.offline import compute_offline
from services.lake.queries import Lake
from services.offline.datasets.served import Served, TrainingPeriod

OWN_COLUMNS: Final = [j for j, one in enumerate(FEATURES) if one.entity in ("card", "transaction")]
"""Where what the card's own log determines is in a vector."""
_TEXTS: Final = ("card_id", "customer_id", "account_id", "terminal_id", "merchant_id")
_NUMBERS: Final = ("merchant_category_code", "amount_minor", "billing_amount_minor", "event_time_ms")
_CODES: Final = ("currency", "billing_currency", "country")
# A repeat is folded as serving folds it; what was refused never was.
_LOG: Final = """
    SELECT t.* FROM card_transactions t SEMI JOIN card_decisions d
        ON d.source_partition = t.kafka_partition AND d.source_offset = t.kafka_offset
    WHERE t.event_time_ms < $until_ms
    ORDER BY max(t.event_time_ms) OVER (PARTITION BY t.kafka_partition ORDER BY t.kafka_offset), t.kafka_partition, t.kafka_offset
"""
_LABELS: Final = """
    SELECT transaction_id, terminal_id, event_time_ms, is_fraud, known_at_ms FROM fraud_labels WHERE known_at_ms <= $until_ms
    ORDER BY known_at_ms, kafka_partition, kafka_offset
"""


@dataclass(frozen=True, slots=True)
class Recomputed:
    """Vectors of served rows, made again."""

    vectors: type_f64
    compared: int
    """Values of the card's own features that were compared with what was served, bit by bit."""
    different: int
    """Of these, how many differ."""


def recompute(lake: Lake, served: Served, wanted: TrainingPeriod) -> Recomputed:
    """Fold the log from its beginning in the lake, and compare with what was served. Raises LakeError."""
    log = lake.query(_LOG, wanted.parameters)
    labels = lake.query(_LABELS, wanted.parameters)
    columns = columns_of(log)
    vectors = compute_offline(columns, _label_events(labels)).vectors
    places = _places(log["kafka_partition"], log["kafka_offset"])
    wanted_places = _places(served.table["source_partition"], served.table["source_offset"])
    order = np.argsort(places)
    at = order[np.searchsorted(places, wanted_places, sorter=order)]
    made = served.vectors.copy()
    made[:, OWN_COLUMNS] = vectors[at][:, OWN_COLUMNS]
    equal = made[:, OWN_COLUMNS].view(np.int64) == served.vectors[:, OWN_COLUMNS].copy().view(np.int64)
    return Recomputed(made, equal.size, int(np.count_nonzero(~equal)))


def _places(partition: Any, offset: Any) -> type_i64:
    found: type_i64 = (partition.to_numpy().astype(np.int64) << 48) | offset.to_numpy()
    return found


def text_of(column: pa.ChunkedArray) -> Text:
    """Return a column of text; null is empty."""
    array = column.fill_null("").combine_chunks().cast(pa.large_string())
    if isinstance(array, pa.ChunkedArray):  # of no rows
        return Text.of([])
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    raw = array.buffers()[2]
    buffer = np.frombuffer(raw, np.uint8) if raw is not None and raw.size else np.empty(0, np.uint8)
    return Text(buffer, offsets[:-1].copy(), np.diff(offsets))


def uuids_of(column: pa.ChunkedArray) -> type_u8:
    """Return UUIDs as bytes, shape (n, 16)."""
    text = text_of(column)
    digits = [i for i in range(36) if i not in (8, 13, 18, 23)]
    raw = text.buffer[text.start[:, None] + digits].astype(np.int64)
    value = np.where(raw >= ord("a"), raw - ord("a") + 10, raw - ord("0")).reshape(len(text), 16, 2)
    found: type_u8 = (value[:, :, 0] << 4 | value[:, :, 1]).astype(np.uint8)
    return found


def _codes_of(column: pa.ChunkedArray) -> type_i64:
    texts = text_of(column)
    slot, first = group_text(texts, np.zeros(len(texts), np.int64))
    packed = np.array([pack_code(code.decode()) for code in texts.take(first).tolist()], np.int64)
    return packed[slot] if len(texts) else np.empty(0, np.int64)


def columns_of(table: pa.Table) -> TransactionColumns:
    """Return the rows of ``card_transactions`` as the kernels take them."""
    modes = {name: i for i, name in enumerate(ENTRY_MODES)}
    encoded = table["entry_mode"].combine_chunks().dictionary_encode() if len(table) else None
    mode = np.empty(0, np.int64)
    if encoded is not None:
        known = np.array([modes[name] for name in encoded.dictionary.to_pylist()], np.int64)
        mode = known[encoded.indices.to_numpy()]
    values: dict[str, Any] = {name: text_of(table[name]) for name in (*_TEXTS, "device_id")}
    values |= {name: table[name].to_numpy().astype(np.int64) for name in _NUMBERS}
    values |= {name: _codes_of(table[name]) for name in _CODES}
    values |= {
        name: table[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in ("latitude", "longitude")
    }
    return TransactionColumns(transaction_id=uuids_of(table["transaction_id"]), entry_mode=mode, **values)


def _label_events(table: pa.Table) -> TerminalEventColumns:
    n = len(table)
    return TerminalEventColumns(
        is_label=np.ones(n, bool),
        transaction_id=uuids_of(table["transaction_id"]),
        terminal_id=text_of(table["terminal_id"]),
        event_time_ms=table["event_time_ms"].to_numpy(),
        amount_minor=np.zeros(n, np.int64),
        is_fraud=table["is_fraud"].to_numpy(),
        known_at_ms=table["known_at_ms"].to_numpy(),
    )
