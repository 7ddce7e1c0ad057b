"""Decode a batch of Avro single objects into columns, in one kernel, with a verdict on every record.

The decoder never stops at a bad record: it says what is wrong with it, and its neighbours are decoded as if it were not
there. It is stricter than fastavro, the reference: trailing bytes, a varint beyond its type, a boolean that is neither
0 nor 1 and invalid UTF-8 are refused. ``tests/codec`` holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numba import njit

from services.codec.program import (
    ARGUMENT,
    ARRAY,
    BOOLEAN,
    DOUBLE,
    DOUBLES,
    ENUM,
    FIXED,
    INT,
    ITEM_FIRST,
    ITEM_STOP,
    LONG,
    NULL_BRANCH,
    OPERATION,
    STRING,
    Program,
    compile_program,
)
from services.codec.schemas import HEADER_BYTES, MAGIC, Schema, schemas_by_header
from services.codec.utf8 import valid_utf8
from services.core.columns import Text, type_bool, type_f64, type_i64, type_u8
from services.core.validation import Reject

_NAN_BITS = np.uint64(0x7FF8_0000_0000_0000)
_MALFORMED, _TRAILING, _UTF8 = int(Reject.MALFORMED), int(Reject.TRAILING_BYTES), int(Reject.INVALID_UTF8)
_TOO_LARGE, _UNFRAMED = int(Reject.TOO_LARGE), -1


@njit(cache=True, nogil=True, forceinline=True)
def read_varint(buffer, at, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return a zigzag varint and the position behind it; the position is -1 where there is no valid one."""
    value = np.uint64(0)
    for i in range(10):
        if at + i >= stop:
            return 0, -1
        byte = np.uint64(buffer[at + i])
        if i == 9 and byte > 1:
            return 0, -1
        value |= (byte & np.uint64(0x7F)) << np.uint64(7 * i)
        if byte < 128:
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), at + i + 1
    return 0, -1


@njit(cache=True, nogil=True, forceinline=True)
def _read_bits(buffer: type_u8, at: int) -> np.uint64:
    bits = np.uint64(0)
    for j in range(8):
        bits |= np.uint64(buffer[at + j]) << np.uint64(8 * j)
    return bits


@njit(cache=True, nogil=True, forceinline=True)
def _read_scalar(buffer, at, stop, table, r, ints, lengths, double_bits, f, i):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Read one scalar, which row r of the table describes, into cell (f, i); return (position behind it, status)."""
    # No slices in here: to make one costs more than to read a field.
    operation, null_branch, argument = table[r, OPERATION], table[r, NULL_BRANCH], table[r, ARGUMENT]
    if null_branch >= 0:
        branch, at = read_varint(buffer, at, stop)
        if at < 0 or branch not in (0, 1):
            return at, _MALFORMED
        if branch == null_branch:
            lengths[f, i] = -1
            double_bits[f, i] = _NAN_BITS
            return at, 0
    if operation == DOUBLE:
        if at + 8 > stop:
            return -1, _MALFORMED
        double_bits[f, i] = _read_bits(buffer, at)
        return at + 8, 0
    if operation == BOOLEAN:
        if at >= stop or buffer[at] > 1:
            return -1, _MALFORMED
        ints[f, i] = buffer[at]
        return at + 1, 0
    if operation == FIXED:
        if argument > stop - at:
            return -1, _MALFORMED
        ints[f, i], lengths[f, i] = at, argument
        return at + argument, 0
    value, at = read_varint(buffer, at, stop)
    if at < 0:
        return -1, _MALFORMED
    if operation in (LONG, INT, ENUM):
        if operation == INT and not -(2**31) <= value < 2**31:
            return -1, _MALFORMED
        if operation == ENUM and not 0 <= value < argument:
            return -1, _MALFORMED
        ints[f, i] = value
        return at, 0
    if value < 0 or value > stop - at:
        return -1, _MALFORMED
    ints[f, i], lengths[f, i] = at, value
    if operation == STRING and not valid_utf8(buffer, at, at + value):
        return at + value, _UTF8
    return at + value, 0


@njit(cache=True, nogil=True, forceinline=True)
def _skip_array(buffer, at, stop, table, f, scratch_ints, scratch_lengths, scratch_bits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Walk over an array of scalars or flat records, checking each; return (position behind it, status)."""
    while True:
        count, at = read_varint(buffer, at, stop)
        # Every item of ours takes a byte at least, so more items than bytes is a bomb.
        if at < 0 or count < 0 or count > stop - at:
            return -1, _MALFORMED
        if count == 0:
            return at, 0
        for _ in range(count):
            for r in range(table[f, ITEM_FIRST], table[f, ITEM_STOP]):
                at, status = _read_scalar(buffer, at, stop, table, r, scratch_ints, scratch_lengths, scratch_bits, 0, 0)
                if status:
                    return -1, status


@njit(cache=True, nogil=True, forceinline=True)
def _read_doubles(buffer, at, stop, ints, lengths, f, i):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Note where the doubles of an array lie: our writer puts them into one block."""
    count, at = read_varint(buffer, at, stop)
    if at < 0 or count < 0 or count > (stop - at) // 8:
        return -1, _MALFORMED
    ints[f, i], lengths[f, i] = at, count
    if count == 0:
        return at, 0
    end = at + 8 * count
    if end >= stop or buffer[end] != 0:
        return -1, _MALFORMED
    return end + 1, 0


@njit(cache=True, nogil=True)
def _read_rows(buffer, length, header, table, cells, limits, status) -> int:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Read records that lie one behind the other; return how many are good."""
    ints, lengths, double_bits = cells
    fields, record_bytes_max = limits
    scratch_ints, scratch_bits = np.empty((1, 1), np.int64), np.empty((1, 1), np.uint64)
    scratch_lengths = np.empty((1, 1), np.int64)
    stop, good = 0, 0
    for i in range(len(length)):
        at, stop = stop, stop + length[i]
        status[i] = _TOO_LARGE if length[i] > record_bytes_max else _why_not_framed(buffer, at, stop, header)
        if status[i]:
            continue
        at += len(header)
        for f in range(fields):
            if table[f, OPERATION] == DOUBLES:
                at, code = _read_doubles(buffer, at, stop, ints, lengths, f, i)
            elif table[f, OPERATION] == ARRAY:
                begin = at
                at, code = _skip_array(buffer, at, stop, table, f, scratch_ints, scratch_lengths, scratch_bits)
                ints[f, i], lengths[f, i] = begin, at - begin
            else:
                at, code = _read_scalar(buffer, at, stop, table, f, ints, lengths, double_bits, f, i)
            if code:
                status[i] = code
                break
        if status[i] == 0 and at != stop:
            status[i] = _TRAILING
        good += status[i] == 0
    return good


@njit(cache=True, nogil=True, forceinline=True)
def _why_not_framed(buffer: type_u8, at: int, stop: int, header: type_u8) -> int:
    """Return 0 for a record that begins as those of the schema do, or _UNFRAMED."""
    if stop - at < len(header):
        return _UNFRAMED
    for j in range(len(header)):
        if buffer[at + j] != header[j]:
            return _UNFRAMED
    return 0


@njit(cache=True, nogil=True)
def _gather(buffer: type_u8, start: type_i64, size: int) -> type_u8:
    out = np.empty((len(start), size), np.uint8)
    for i in range(len(start)):
        for j in range(size):
            out[i, j] = buffer[start[i] + j]
    return out


@dataclass(frozen=True, slots=True)
class Decoded:
    """The columns of a batch, by field name: a row for each of its m good records."""

    program: Program
    buffer: type_u8
    status: type_i64
    """(n,) the Reject of every record."""
    rows: type_i64
    """(m,) which records are good."""
    _ints: type_i64
    _lengths: type_i64
    _doubles: type_f64

    def cells(self, name: str) -> tuple[type_i64, type_i64, type_f64]:
        """Return what kernels need of a field: where it begins or its integer, its length or -1 for null, and its double."""
        f = self.program.index[name]
        return self._ints[f], self._lengths[f], self._doubles[f]

    def integers(self, name: str) -> type_i64:
        """Return a field of long, int, enum (its index) or boolean."""
        return self._ints[self.program.index[name]]

    def floats(self, name: str) -> type_f64:
        """Return a field of double; null is NaN."""
        return self._doubles[self.program.index[name]]

    def is_null(self, name: str) -> type_bool:
        """Whether a nullable field is null."""
        return self._lengths[self.program.index[name]] < 0

    def text(self, name: str) -> Text:
        """Return a field of string, bytes or fixed, or the encoded bytes of an array; null is empty."""
        f = self.program.index[name]
        length = self._lengths[f]
        return Text(self.buffer, self._ints[f], np.maximum(length, 0) if name in self.program.nullable else length)

    def fixed(self, name: str) -> type_u8:
        """Return a fixed, shape (m, size)."""
        f = self.program.index[name]
        return _gather(self.buffer, self._ints[f], int(self.program.table[f, ARGUMENT]))

    def vectors(self, name: str, width: int) -> type_f64:
        """Return an array of ``width`` doubles, shape (m, width). Raises ValueError where one has another width."""
        f = self.program.index[name]
        if np.any(self._lengths[f] != width):
            raise ValueError(f"{name} does not hold {width} numbers in every record")
        return _gather(self.buffer, self._ints[f], 8 * width).view(np.float64)


class ColumnarReader:
    """Decodes records of one schema version."""

    def __init__(self, schema: Schema, record_bytes_max: int) -> None:
        self.schema = schema
        self.program = compile_program(schema.definition)
        self._header = np.frombuffer(schema.header, np.uint8)
        self._limits = len(self.program.names), record_bytes_max

    def read(self, values: Sequence[bytes | None]) -> Decoded:
        """Decode n records; never raises for what they hold.

        ``status`` of the result is NONE or one of EMPTY, TOO_LARGE, BAD_FRAMING, UNKNOWN_FINGERPRINT, WRONG_SCHEMA,
        MALFORMED, TRAILING_BYTES and INVALID_UTF8.
        """
        # The check and the cast leave the usual batch, which has a value in every record, without a loop.
        present = cast("Sequence[bytes]", values) if None not in values else [value or b"" for value in values]
        n, fields = len(present), len(self.program.names)
        length = np.fromiter(map(len, present), np.int64, n)
        buffer = np.frombuffer(b"".join(present), np.uint8)
        ints, lengths = np.zeros((fields, n), np.int64), np.zeros((fields, n), np.int64)
        doubles, status = np.zeros((fields, n)), np.empty(n, np.int64)
        cells = ints, lengths, doubles.view(np.uint64)
        good = _read_rows(buffer, length, self._header, self.program.table, cells, self._limits, status)
        if good == n:
            return Decoded(self.program, buffer, status, np.arange(n), ints, lengths, doubles)
        for i in np.flatnonzero(status == _UNFRAMED).tolist():  # exceptional
            status[i] = _why_unframed(present[i], self.schema)
        rows = np.flatnonzero(status == Reject.NONE)
        cells_of_good = ints.take(rows, 1), lengths.take(rows, 1), doubles.take(rows, 1)
        return Decoded(self.program, buffer, status, rows, *cells_of_good)


def _why_unframed(value: bytes, schema: Schema) -> Reject:
    if not value:
        return Reject.EMPTY
    if len(value) < HEADER_BYTES:
        return Reject.MALFORMED if value.startswith(MAGIC[: len(value)]) else Reject.BAD_FRAMING
    if not value.startswith(MAGIC):
        return Reject.BAD_FRAMING
    known = schemas_by_header().get(value[:HEADER_BYTES])
    if known is None:
        return Reject.UNKNOWN_FINGERPRINT
    assert known.topic != schema.topic or known.version != schema.version
    return Reject.WRONG_SCHEMA
