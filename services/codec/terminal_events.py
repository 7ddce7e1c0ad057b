"""Terminal events and fraud labels between their bytes and :class:`TerminalEventColumns`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np

from services.codec.reading import ColumnarReader, Decoded
from services.codec.schemas import topics
from services.codec.writing import Column, ColumnarWriter
from services.core.columns import TerminalEventColumns, type_bool, type_i64

TOPIC: Final = "terminal-events"
LABELS: Final = "fraud-labels"
_LABEL_KIND: Final = 1
"""The index of LABEL in the schema's enum."""


@cache
def _reader(topic: str) -> ColumnarReader:
    return ColumnarReader.of(topics()[topic])


@cache
def _writer() -> ColumnarWriter:
    return ColumnarWriter(topics()[TOPIC].written)


def decode_terminal_events(values: Sequence[bytes | None]) -> tuple[TerminalEventColumns, type_i64, type_i64]:
    """Decode a batch.

    Returns:
        The columns of the records that decoded, their row numbers in ``values`` (m,), and the :class:`Reject` of every
        record (n,).
    """
    decoded = _reader(TOPIC).read(values)
    is_label = decoded.integers("kind") == _LABEL_KIND
    return _to_columns(decoded, is_label, decoded.integers("amount_minor")), decoded.rows, decoded.status


def decode_labels(values: Sequence[bytes | None]) -> tuple[TerminalEventColumns, type_i64, type_i64]:
    """Decode a batch of fraud labels; returns as :func:`decode_terminal_events` does, and refuses card numbers in any text."""
    decoded = _reader(LABELS).read(values).without_card_numbers()
    n = len(decoded.rows)
    return _to_columns(decoded, np.ones(n, bool), np.zeros(n, np.int64)), decoded.rows, decoded.status


def _to_columns(decoded: Decoded, is_label: type_bool, amount_minor: type_i64) -> TerminalEventColumns:
    return TerminalEventColumns(
        transaction_id=decoded.fixed("transaction_id"),
        is_label=is_label,
        terminal_id=decoded.text("terminal_id"),
        event_time_ms=decoded.integers("event_time_ms"),
        amount_minor=amount_minor,
        is_fraud=decoded.integers("is_fraud") != 0,
        known_at_ms=decoded.integers("known_at_ms"),
    )


def encode_terminal_events(columns: TerminalEventColumns) -> list[bytes]:
    """Encode a batch; the inverse of :func:`decode_terminal_events`."""
    values: dict[str, Column] = {
        "kind": columns.is_label.astype(np.int64),
        "transaction_id": columns.transaction_id,
        "terminal_id": columns.terminal_id,
        "event_time_ms": columns.event_time_ms,
        "amount_minor": columns.amount_minor,
        "is_fraud": columns.is_fraud.astype(np.int64),
        "known_at_ms": columns.known_at_ms,
    }
    return _writer().write(values, len(columns))
