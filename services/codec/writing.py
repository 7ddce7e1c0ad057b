"""Encode columns into a batch of Avro single objects, in one kernel."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import numpy as np
from numba import njit

from services.codec.program import (
    ARRAY,
    BOOLEAN,
    DOUBLE,
    DOUBLES,
    FIXED,
    NULL_BRANCH,
    OPERATION,
    compile_program,
)
from services.codec.program import BYTES as _BYTES
from services.codec.program import STRING as _STRING
from services.codec.schemas import Schema
from services.core.columns import Text, type_bool, type_f64, type_i64, type_u8
from services.core.immutable import immutable
from services.core.packing import put_varint


@immutable
class Nullable:
    """A column of integers of which some are null."""

    values: type_i64
    there: type_bool

    def take(self, rows: type_i64 | type_bool) -> Nullable:
        """Return the given rows."""
        return Nullable(self.values[rows], self.there[rows])


Column = Text | Nullable | type_i64 | type_f64 | type_u8 | type_bool | int | bytes | None
"""What a field is in each record: an array, or a constant of all of them: an integer, the bytes of a text or of an encoded array, null."""

_VARINT_BYTES_MAX = 10
_SIZED: Final = (FIXED, DOUBLES)


@njit(cache=True, nogil=True, forceinline=True)
def _put_varint(out: type_u8, at: int, value: int) -> int:
    return put_varint(out, at, (np.uint64(value) << np.uint64(1)) ^ np.uint64(value >> 63))


@njit(cache=True, nogil=True, forceinline=True)
def _put_bytes(out: type_u8, at: int, source: type_u8, start: int, length: int) -> int:
    for j in range(length):
        out[at + j] = source[start + j]
    return at + length


@njit(cache=True, nogil=True)
def _room(header_bytes: int, table: type_i64, lengths: type_i64) -> int:
    """Return how many bytes the records take at most."""
    fields, count = lengths.shape
    total = (header_bytes + 2 * _VARINT_BYTES_MAX * fields) * count
    for f in range(fields):
        width = 8 if table[f, OPERATION] == DOUBLES else 1
        for i in range(count):
            total += width * lengths[f, i]
    return total


@njit(cache=True, nogil=True)
def _write_rows(header, table, places, buffer, cells):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    # One flat loop, for the reason that the reader's is one.
    ints, lengths, doubles, double_bytes = cells
    shift, stride = places
    fields, count = ints.shape
    out, stops = np.empty(_room(len(header), table, lengths), np.uint8), np.empty(count, np.int64)
    at = 0
    for i in range(count):
        at = _put_bytes(out, at, header, 0, len(header))
        for f in range(fields):
            operation, null_branch, length = table[f, OPERATION], table[f, NULL_BRANCH], lengths[f, i]
            if null_branch >= 0:
                missing = np.isnan(doubles[f, i]) if operation == DOUBLE else length <= 0
                at = _put_varint(out, at, null_branch if missing else 1 - null_branch)
                if missing:
                    continue
            start = ints[f, i] + shift[f] + stride[f] * i
            if operation == DOUBLE:
                at = _put_bytes(out, at, double_bytes, 8 * (f * count + i), 8)
            elif operation in (FIXED, ARRAY):
                at = _put_bytes(out, at, buffer, start, length)
            elif operation == DOUBLES:
                at = _put_varint(out, at, length)
                at = _put_bytes(out, at, buffer, start, 8 * length)
                out[at] = 0  # the end of what is not empty
                at += length > 0
            elif operation == BOOLEAN:
                out[at] = start
                at += 1
            else:
                at = _put_varint(out, at, length if operation in (_STRING, _BYTES) else start)
                if operation in (_STRING, _BYTES):
                    at = _put_bytes(out, at, buffer, start, length)
        stops[i] = at
    return out[:at], stops


class ColumnarWriter:
    """Encodes records of one schema version."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.program = compile_program(schema.definition)
        self._header = np.frombuffer(schema.header, np.uint8)
        operations = self.program.table[: len(self.program.names), OPERATION].tolist()
        self._fields = list(zip(range(len(operations)), self.program.names, operations, strict=True))

    def write(self, columns: Mapping[str, Column], count: int) -> list[bytes]:
        """Encode ``count`` records.

        A column is: integers for long, int, enum and boolean; float64 for double; :class:`Text` for string and bytes,
        and for the encoded bytes of an array; shape (n, size) uint8 for fixed; shape (n, width) float64 for an array of
        doubles; or a constant. In a nullable field NaN or an empty text is null, and integers are :class:`Nullable`.

        Raises:
            KeyError: a field has no column.
        """
        fields = len(self._fields)
        ints, lengths = np.zeros((fields, count), np.int64), np.zeros((fields, count), np.int64)
        doubles, shift, stride = np.zeros((fields, count)), [0] * fields, [0] * fields
        buffers = _Buffers()
        for f, name, operation in self._fields:
            column = columns[name]
            # Not isinstance(), which would take longer than all else here.
            if type(column) is np.ndarray:
                if operation in _SIZED:
                    raw = np.ascontiguousarray(column).reshape(-1).view(np.uint8)
                    lengths[f], shift[f], stride[f] = column.shape[1], buffers.place(raw), len(raw) // (count or 1)
                else:
                    (doubles if operation == DOUBLE else ints)[f] = column
            elif type(column) is Text:
                ints[f], lengths[f], shift[f] = column.start, column.length, buffers.place(column.buffer)
            elif type(column) is bytes:
                lengths[f], shift[f] = len(column), buffers.place_constant(column)
            elif type(column) is Nullable:
                ints[f], lengths[f] = column.values, column.there
            elif type(column) is int:
                ints[f], lengths[f] = column, 1
            else:
                assert column is None, name
                doubles[f] = np.nan  # and a length of 0 is null
        cells, places = (ints, lengths, doubles, doubles.view(np.uint8).reshape(-1)), np.array((shift, stride))
        out, stops = _write_rows(self._header, self.program.table, places, buffers.joined(), cells)
        raw_out = out.tobytes()
        return [raw_out[a:b] for a, b in pairwise([0, *stops.tolist()])]


class _Buffers:
    """Puts the buffers of several columns into one, each once, so that the kernel sees one array."""

    def __init__(self) -> None:
        self._placed: dict[int | bytes, int] = {}
        self._parts: list[type_u8 | bytes] = []
        self._size = 0

    def place(self, buffer: type_u8) -> int:
        """Return where ``buffer`` begins in the joined one."""
        # Kept, a buffer is alive, so that its id stays its own.
        at = self._placed.get(id(buffer))
        return self._add(id(buffer), buffer) if at is None else at

    def place_constant(self, value: bytes) -> int:
        """Return where a constant begins."""
        at = self._placed.get(value)
        return self._add(value, value) if at is None else at

    def _add(self, key: int | bytes, part: type_u8 | bytes) -> int:
        at = self._placed[key] = self._size
        self._parts.append(part)
        self._size += len(part)
        return at

    def joined(self) -> type_u8:
        return np.frombuffer(b"".join(self._parts), np.uint8)  # type: ignore[arg-type]  # arrays are buffers
