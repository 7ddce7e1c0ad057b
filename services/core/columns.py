"""Columns: how a batch of transactions looks once its bytes are decoded.

A batch of *n* transactions is one array a field, never *n* objects. Text stays where it was decoded from: a column of
text is a shared byte buffer with a start and a length a row, so that decoding copies nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, ClassVar, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from services.core.immutable import immutable

type_u8 = NDArray[np.uint8]
type_i64 = NDArray[np.int64]
type_u64 = NDArray[np.uint64]
type_f64 = NDArray[np.float64]
type_bool = NDArray[np.bool_]

ENTRY_MODES = ("CHIP", "CONTACTLESS", "MAGSTRIPE", "ECOMMERCE", "MANUAL", "ATM")
"""How the card was read, in the order of the Avro enum: the code in a column is the index here."""


def filled(count: int, value: float | np.floating[Any], kind: Any = np.int64) -> NDArray[Any]:
    """Return ``count`` times the same value: in half of the time that ``np.full`` takes for a few."""
    out = np.empty(count, kind)
    out.fill(value)
    return out


@njit(cache=True, nogil=True)
def starts_of(length: type_i64) -> type_i64:
    """Return where each of several texts begins that lie one behind the other."""
    start = np.empty(len(length), np.int64)
    at = 0
    for i in range(len(length)):
        start[i] = at
        at += length[i]
    return start


@immutable
class Text:
    """A column of UTF-8 strings over one shared buffer; row i is ``buffer[start[i] : start[i] + length[i]]``. Never changed."""

    buffer: type_u8
    start: type_i64
    length: type_i64

    def __len__(self) -> int:
        return len(self.start)

    @classmethod
    def of(cls, values: Sequence[bytes]) -> Self:
        """Build a column from byte strings: for tests, constants and the slow side."""
        length = np.fromiter(map(len, values), np.int64, len(values))
        return cls(np.frombuffer(b"".join(values), np.uint8), starts_of(length), length)

    @classmethod
    def constant(cls, value: bytes, count: int) -> Self:
        """Build a column in which every row is the same string, held once."""
        buffer = np.frombuffer(value, np.uint8)
        return cls(buffer, np.zeros(count, np.int64), np.full(count, len(value), np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Text]) -> Self:
        """Put columns one behind the other."""
        at = np.cumsum([0, *(len(part.buffer) for part in parts)])
        return cls(
            np.concatenate([part.buffer for part in parts]),
            np.concatenate([part.start + shift for part, shift in zip(parts, at[:-1], strict=True)]),
            np.concatenate([part.length for part in parts]),
        )

    def take(self, rows: type_i64 | type_bool) -> Text:
        """Return the given rows; the buffer is shared."""
        return Text(self.buffer, self.start[rows], self.length[rows])

    def tolist(self) -> list[bytes]:
        """Return the rows as byte strings: one Python object a row, so only for the exceptional and the unique."""
        raw = self.buffer.tobytes()
        stop = self.start + self.length
        return [raw[a:b] for a, b in zip(self.start.tolist(), stop.tolist(), strict=True)]


_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_DIGITS_AT = [i for i in range(36) if i not in (8, 13, 18, 23)]


def uuid_text(ids: type_u8) -> Text:
    """Return UUIDs of shape (n, 16) as everybody writes them (RFC 9562): 36 characters, in small letters."""
    n = len(ids)
    text = np.full((n, 36), ord("-"), np.uint8)
    text[:, _DIGITS_AT] = _HEX[np.stack([ids >> 4, ids & 15], axis=2).reshape(n, 32)]
    text.flags.writeable = False  # as the bytes of every other column are
    return Text(text.reshape(-1), np.arange(n) * 36, np.full(n, 36, np.int64))


@immutable
class _Batch:
    """What is said of transactions, in columns: every array has one row for each."""

    transaction_id: type_u8
    """Shape (n, 16): the UUID's bytes."""
    _others: ClassVar[attrgetter[Any]]
    """Gets all columns but that."""

    def __init_subclass__(cls) -> None:
        cls._others = attrgetter(*cls.__annotations__)

    def __post_init__(self) -> None:
        n = len(self.transaction_id)
        assert self.transaction_id.shape == (n, 16)
        assert {len(column.start if type(column) is Text else column) for column in self._others(self)} == {n}

    def __len__(self) -> int:
        return len(self.transaction_id)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Put batches one behind the other."""
        columns: dict[str, Any] = {}
        for field in fields(cls):
            several = [getattr(part, field.name) for part in parts]
            columns[field.name] = Text.joined(several) if isinstance(several[0], Text) else np.concatenate(several)
        return cls(**columns)

    def take(self, rows: type_i64 | type_bool) -> Self:
        """Return the given rows, in the given order."""
        taken: dict[str, Any] = {}
        for field in fields(self):
            column = getattr(self, field.name)
            taken[field.name] = column.take(rows) if isinstance(column, Text) else column[rows]
        return type(self)(**taken)


@immutable
class TransactionColumns(_Batch):
    """A batch of card transactions in columns; every array has one row a transaction.

    Codes of three letters (currencies) and two (countries) are packed big-endian into integers (:func:`pack_code`);
    a missing position is NaN in both coordinates, a missing device is an empty text.
    """

    card_id: Text
    customer_id: Text
    account_id: Text
    terminal_id: Text
    merchant_id: Text
    device_id: Text
    merchant_category_code: type_i64
    amount_minor: type_i64
    currency: type_i64
    billing_amount_minor: type_i64
    billing_currency: type_i64
    event_time_ms: type_i64
    entry_mode: type_i64
    country: type_i64
    latitude: type_f64
    longitude: type_f64


@immutable
class TerminalEventColumns(_Batch):
    """A batch of what terminals' profiles are folded from; every array has one row a transaction or label."""

    is_label: type_bool
    terminal_id: Text
    event_time_ms: type_i64
    """Of the transaction, for its label too."""
    amount_minor: type_i64
    """0 for a label."""
    is_fraud: type_bool
    known_at_ms: type_i64
    """0 for a transaction."""


def pack_code(code: str) -> int:
    """Pack an ASCII code such as ``EUR`` or ``BE`` into an integer, first letter most significant."""
    return int.from_bytes(code.encode("ascii"), "big")


def unpack_code(packed: int) -> str:
    """Return the text of a packed code: the inverse of :func:`pack_code`."""
    return int(packed).to_bytes((int(packed).bit_length() + 7) // 8, "big").decode("ascii")
