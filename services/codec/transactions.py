"""Card transactions between their bytes and :class:`TransactionColumns`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
from numba import njit

from services.codec.reading import ColumnarReader, Decoded, gather
from services.codec.schemas import topics
from services.codec.writing import Column, ColumnarWriter
from services.core.columns import Text, TransactionColumns, type_i64, type_u8
from services.core.kernels import pack_bytes

TOPIC = "card-transactions"
_TEXTS = ("card_id", "customer_id", "account_id", "terminal_id", "merchant_id", "device_id")
_CODES = {"currency": 3, "billing_currency": 3, "country": 2}
_NUMBERS = (
    *("merchant_category_code", "amount_minor", "billing_amount_minor", "event_time_ms", "entry_mode"),
    *_CODES,
)
_DEGREES = ("latitude", "longitude")
_OTHERS = ("transaction_id", "device_id", *_DEGREES)


@cache
def _reader() -> ColumnarReader:
    return ColumnarReader.of(topics()[TOPIC])


@cache
def _writer() -> ColumnarWriter:
    return ColumnarWriter(topics()[TOPIC].written)


def decode_transactions(values: Sequence[bytes | None]) -> tuple[TransactionColumns, type_i64, type_i64]:
    """Decode a batch.

    Returns:
        The columns of the records that decoded, their row numbers in ``values`` (m,), and the :class:`Reject` of every
        record (n,).
    """
    decoded = _reader().read(values)
    return _to_columns(decoded), decoded.rows, decoded.status


@dataclass(frozen=True, slots=True)
class _Places:
    """Where among the cells the fields are that become columns, by the kind of column."""

    texts: Sequence[tuple[str, int]]
    numbers: Sequence[tuple[str, int]]
    degrees: Sequence[tuple[str, int]]
    codes: type_i64
    """(2, codes) where codes are, and how wide each is."""
    others: type_i64
    """Where ``_OTHERS`` are."""


@cache
def _places() -> _Places:
    program = _reader().program
    assert program.nullable.intersection(_TEXTS) == {"device_id"}
    texts, numbers, degrees, codes, others = (
        [(name, program.index[name]) for name in names] for names in (_TEXTS, _NUMBERS, _DEGREES, _CODES, _OTHERS)
    )
    widths = [_CODES[name] for name, _ in codes]
    return _Places(texts, numbers, degrees, np.array(([f for _, f in codes], widths)), np.array([f for _, f in others]))


def _to_columns(decoded: Decoded) -> TransactionColumns:
    places, buffer, (ints, lengths, doubles) = _places(), decoded.buffer, decoded.cells
    ids = _settle(buffer, decoded.cells, places.codes, places.others)
    # Not by Decoded's methods, which look each field up by its name: that is a few microseconds of a batch, however small.
    columns: dict[str, Any] = {name: Text(buffer, ints[f], lengths[f]) for name, f in places.texts}
    columns |= {name: ints[f] for name, f in places.numbers}
    columns |= {name: doubles[f] for name, f in places.degrees}
    return TransactionColumns(transaction_id=ids, **columns)


@njit(cache=True, nogil=True)
def _settle(buffer: type_u8, cells: Any, codes: type_i64, others: type_i64) -> type_u8:
    """Turn cells into what columns hold, in place: codes packed by :func:`pack_bytes`, and a missing text as an empty one; return the ids.

    A coordinate that is NaN means that none was sent: one that was sent must not pass for that.
    """
    ints, lengths, doubles = cells
    transaction_id, device, latitude, longitude = others
    for i in range(ints.shape[1]):
        for k in range(codes.shape[1]):
            f = codes[0, k]
            ints[f, i] = pack_bytes(buffer, ints[f, i], lengths[f, i], codes[1, k])
        for f in (latitude, longitude):
            if np.isnan(doubles[f, i]) and lengths[f, i] >= 0:
                doubles[f, i] = np.inf
        lengths[device, i] = max(lengths[device, i], 0)
    return gather(buffer, ints[transaction_id], 16)


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
