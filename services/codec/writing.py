"""Encode columns into a batch of Avro single objects, in one kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

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


@dataclass(frozen=True, slots=True)
class Nullable:
    """A column of integers of which some are null."""

    values: type_i64
    there: type_bool

    def take(self, rows: type_i64 | type_bool) -> Nullable:
        """Return the given rows."""
        return Nullable(self.values[rows], self.there[rows])


Column = Text | Nullable | type_i64 | type_f64 | type_u8 | type_bool

_VARINT_BYTES_MAX = 10


@njit(cache=True, nogil=True)
def _put_varint(out: type_u8, at: int, value: int) -> int:
    bits = (np.uint64(value) << np.uint64(1)) ^ np.uint64(value >> 63)
    while bits > np.uint64(127):
        out[at] = np.uint8(bits & np.uint64(127)) | np.uint8(128)
        bits >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(bits)
    return at + 1


@njit(cache=True, nogil=True)
def _put_bytes(out: type_u8, at: int, source: type_u8, start: int, length: int) -> int:
    # Without slices: to make one costs more than the few bytes that most fields have.
    for j in range(length):
        out[at + j] = source[start + j]
    return at + length


@njit(cache=True, nogil=True)
def _put_field(out, at, operation, value, buffer, length, double_bytes, cell):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    if operation == DOUBLE:
        return _put_bytes(out, at, double_bytes, 8 * cell, 8)
    if operation == DOUBLES:
        at = _put_varint(out, at, length)
        if length > 0:
            at = _put_bytes(out, at, buffer, value, 8 * length)
            out[at] = 0
            at += 1
        return at
    if operation in (FIXED, ARRAY, _STRING, _BYTES):
        if operation in (_STRING, _BYTES):
            at = _put_varint(out, at, length)
        return _put_bytes(out, at, buffer, value, length)
    if operation == BOOLEAN:
        out[at] = value
        return at + 1
    return _put_varint(out, at, value)


@njit(cache=True, nogil=True)
def _write_rows(out, stops, header, table, fields, buffer, ints, lengths, doubles, double_bytes) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    at, count = 0, len(stops)
    for i in range(count):
        at = _put_bytes(out, at, header, 0, len(header))
        for f in range(fields):
            null_branch = table[f, NULL_BRANCH]
            if null_branch >= 0:
                missing = np.isnan(doubles[f, i]) if table[f, OPERATION] == DOUBLE else lengths[f, i] <= 0
                at = _put_varint(out, at, null_branch if missing else 1 - null_branch)
                if missing:
                    continue
            at = _put_field(
                out, at, table[f, OPERATION], ints[f, i], buffer, lengths[f, i], double_bytes, f * count + i
            )
        stops[i] = at


class ColumnarWriter:
    """Encodes records of one schema version."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.program = compile_program(schema.definition)
        self._header = np.frombuffer(schema.header, np.uint8)

    def write(self, columns: Mapping[str, Column], count: int) -> list[bytes]:
        """Encode ``count`` records.

        A column is: integers for long, int, enum and boolean; float64 for double; :class:`Text` for string and bytes,
        and for the encoded bytes of an array; shape (n, size) uint8 for fixed; shape (n, width) float64 for an array of
        doubles. In a nullable field NaN or an empty text is null, and integers are :class:`Nullable`.

        Raises:
            KeyError: a field has no column.
        """
        fields = len(self.program.names)
        ints, lengths = np.zeros((fields, count), np.int64), np.zeros((fields, count), np.int64)
        doubles = np.zeros((fields, count))
        buffers = _Buffers()
        bound = len(self._header) * count
        for f, name in enumerate(self.program.names):
            column, operation = columns[name], int(self.program.table[f, OPERATION])
            if operation == DOUBLE:
                assert not isinstance(column, Text | Nullable)
                doubles[f] = column
            elif isinstance(column, Nullable):
                ints[f], lengths[f] = column.values, column.there
            elif isinstance(column, Text):
                ints[f], lengths[f] = column.start + buffers.place(column.buffer), column.length
                bound += int(column.length.sum())
            elif operation in (FIXED, DOUBLES):
                raw = np.ascontiguousarray(column).view(np.uint8).reshape(count, -1)
                ints[f] = buffers.place(raw.reshape(-1)) + np.arange(count) * raw.shape[1]
                lengths[f] = column.shape[1]
                bound += raw.size
            else:
                ints[f] = column
            bound += 2 * _VARINT_BYTES_MAX * count
        out, stops = np.empty(bound, np.uint8), np.empty(count, np.int64)
        _write_rows(
            out, stops, self._header, self.program.table, fields, buffers.joined(), ints, lengths, doubles,
            doubles.view(np.uint8).reshape(-1),
        )  # fmt: skip
        raw_out = out[: stops[-1] if count else 0].tobytes()
        return [raw_out[a:b] for a, b in pairwise([0, *stops.tolist()])]


class _Buffers:
    """Puts the buffers of several columns into one, each once, so that the kernel sees one array."""

    def __init__(self) -> None:
        self._placed: dict[int, int] = {}
        self._parts: list[type_u8] = []
        self._size = 0

    def place(self, buffer: type_u8) -> int:
        """Return where ``buffer`` begins in the joined one."""
        key = id(buffer)
        if key not in self._placed:
            self._placed[key] = self._size
            self._parts.append(buffer)  # keeps it alive, so that its id stays its own
            self._size += len(buffer)
        return self._placed[key]

    def joined(self) -> type_u8:
        return np.concatenate(self._parts) if self._parts else np.empty(0, np.uint8)
