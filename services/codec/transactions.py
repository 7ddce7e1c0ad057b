"""Card transactions between their bytes and :class:`TransactionColumns`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np
from numba import njit

from services.codec.reading import ColumnarReader, Decoded
from services.codec.schemas import topics
from services.codec.writing import Column, ColumnarWriter
from services.core.columns import Text, TransactionColumns, type_f64, type_i64, type_u8
from services.core.kernels import pack_bytes

TOPIC = "card-transactions"
_TEXTS = ("card_id", "customer_id", "account_id", "terminal_id", "merchant_id", "device_id")
_INTEGERS = ("merchant_category_code", "amount_minor", "billing_amount_minor", "event_time_ms", "entry_mode")
_CODES = {"currency": 3, "billing_currency": 3, "country": 2}
_DEGREES = ("latitude", "longitude")


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
    return _to_columns(decoded), decoded.rows, decoded.status


def _to_columns(decoded: Decoded) -> TransactionColumns:
    codes, degrees = _codes_and_degrees(decoded.buffer, decoded.cells, *_places())
    columns: dict[str, Any] = {
        "transaction_id": decoded.fixed("transaction_id"),
        **{name: decoded.text(name) for name in _TEXTS},
        **{name: decoded.integers(name) for name in _INTEGERS},
        **dict(zip(_CODES, codes, strict=True)),
        **dict(zip(_DEGREES, degrees, strict=True)),
    }
    return TransactionColumns(**columns)


@cache
def _places() -> tuple[type_i64, type_i64, type_i64]:
    """Return where codes are among the cells, how wide each is, and where coordinates are."""
    index = _reader().program.index
    codes, widths, degrees = [index[name] for name in _CODES], list(_CODES.values()), [index[name] for name in _DEGREES]
    return np.array(codes), np.array(widths), np.array(degrees)


@njit(cache=True, nogil=True)
def _codes_and_degrees(
    buffer: type_u8, cells: Any, codes: type_i64, widths: type_i64, degrees: type_i64
) -> tuple[type_i64, type_f64]:
    """Return codes packed by :func:`pack_bytes`, and coordinates in which NaN means that none was sent: one that was sent must not pass for that."""
    ints, lengths, doubles = cells
    count = ints.shape[1]
    packed, sent = np.empty((len(codes), count), np.int64), np.empty((len(degrees), count))
    for k in range(len(codes)):
        f = codes[k]
        for i in range(count):
            packed[k, i] = pack_bytes(buffer, ints[f, i], lengths[f, i], widths[k])
    for k in range(len(degrees)):
        f = degrees[k]
        for i in range(count):
            sent[k, i] = np.inf if np.isnan(doubles[f, i]) and lengths[f, i] >= 0 else doubles[f, i]
    return packed, sent


def code_text(packed: type_i64, width: int) -> Text:
    """Return packed codes as text: the inverse of :func:`pack_bytes`."""
    shifts = np.arange(8 * (width - 1), -1, -8)
    raw = ((packed[:, None] >> shifts) & 0xFF).astype(np.uint8)
    return Text(raw.reshape(-1), np.arange(len(packed)) * width, np.full(len(packed), width, np.int64))


def encode_transactions(columns: TransactionColumns) -> list[bytes]:
    """Encode a batch; the inverse of :func:`decode_transactions` on valid columns."""
    values: dict[str, Column] = {f.name: getattr(columns, f.name) for f in fields(columns)}
    values |= {name: code_text(getattr(columns, name), width) for name, width in _CODES.items()}
    return _writer().write(values, len(columns))
