"""Card transactions between their bytes and :class:`TransactionColumns`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import cache

import numpy as np

from services.codec.reading import ColumnarReader, Decoded
from services.codec.schemas import topics
from services.codec.writing import Column, ColumnarWriter
from services.core.columns import Text, TransactionColumns, type_i64
from services.core.kernels import pack_text
from services.core.validation import Reject

TOPIC = "card-transactions"
_TEXTS = ("card_id", "customer_id", "account_id", "terminal_id", "merchant_id", "device_id")
_INTEGERS = ("merchant_category_code", "amount_minor", "billing_amount_minor", "event_time_ms", "entry_mode")
_CODES = {"currency": 3, "billing_currency": 3, "country": 2}


@cache
def _reader() -> ColumnarReader:
    topic = topics()[TOPIC]
    return ColumnarReader(topic.latest, topic.record_bytes_max)


@cache
def _writer() -> ColumnarWriter:
    return ColumnarWriter(topics()[TOPIC].latest)


def decode_transactions(values: Sequence[bytes | None]) -> tuple[TransactionColumns, type_i64, type_i64]:
    """Decode a batch.

    Returns:
        The columns of the records that decoded, their row numbers in ``values`` (m,), and the :class:`Reject` of every
        record (n,).
    """
    decoded = _reader().read(values)
    rows = np.flatnonzero(decoded.status == Reject.NONE)
    return _to_columns(decoded, rows), rows, decoded.status


def _to_columns(decoded: Decoded, rows: type_i64) -> TransactionColumns:
    columns: dict[str, Column] = {"transaction_id": decoded.fixed("transaction_id", rows)}
    columns |= {name: decoded.text(name).take(rows) for name in _TEXTS}
    columns |= {name: decoded.integers(name)[rows] for name in _INTEGERS}
    columns |= {name: pack_text(decoded.text(name).take(rows), width) for name, width in _CODES.items()}
    for name in ("latitude", "longitude"):
        degrees = decoded.floats(name)[rows].copy()
        # NaN means "none was sent" in the columns; one that was sent must not pass for that.
        degrees[np.isnan(degrees) & ~decoded.is_null(name)[rows]] = np.inf
        columns[name] = degrees
    return TransactionColumns(**columns)  # type: ignore[arg-type]


def code_text(packed: type_i64, width: int) -> Text:
    """Return packed codes as text: the inverse of :func:`pack_text`."""
    shifts = np.arange(8 * (width - 1), -1, -8)
    raw = ((packed[:, None] >> shifts) & 0xFF).astype(np.uint8)
    return Text(raw.reshape(-1), np.arange(len(packed)) * width, np.full(len(packed), width, np.int64))


def encode_transactions(columns: TransactionColumns) -> list[bytes]:
    """Encode a batch; the inverse of :func:`decode_transactions` on valid columns."""
    values: dict[str, Column] = {f.name: getattr(columns, f.name) for f in fields(columns)}
    values |= {name: code_text(getattr(columns, name), width) for name, width in _CODES.items()}
    return _writer().write(values, len(columns))
