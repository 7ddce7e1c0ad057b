"""Decode a batch of Avro single objects into columns, in one kernel, with a verdict on every record.

The decoder never stops at a bad record: it says what is wrong with it, and its neighbours are decoded as if it were not
there. It is stricter than fastavro, the reference: trailing bytes, a varint beyond its type, a boolean that is neither
0 nor 1 and invalid UTF-8 are refused. ``tests/codec`` holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
from numba import njit

from services.codec.program import (
    ARGUMENT,
    ARRAY,
    BOOLEAN,
    BYTES,
    DOUBLE,
    DOUBLES,
    ENUM,
    FIXED,
    INT,
    ITEM_FIRST,
    ITEM_STOP,
    NULL_BRANCH,
    OPERATION,
    STRING,
    AvroProgram,
    compile_program,
)
from services.codec.resolution import Cells
from services.codec.schemas import Schema, Topic
from services.codec.utf8 import valid_utf8
from services.codec.versions import UNFRAMED, OtherVersions, Raw, VersionedBatch, why_unframed
from services.core.card_number_kernels import rows_with_card_numbers
from services.core.columns import Text, type_bool, type_f64, type_i64, type_u8
from services.core.immutable import immutable
from services.core.validation import Reject

_NAN_BITS = np.uint64(0x7FF8_0000_0000_0000)
_MALFORMED, _TRAILING, _UTF8 = int(Reject.MALFORMED), int(Reject.TRAILING_BYTES), int(Reject.INVALID_UTF8)
_TOO_LARGE = int(Reject.TOO_LARGE)


@njit(cache=True, nogil=True, forceinline=True)
def read_varint(buffer, at, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return a zigzag varint and the position behind it; the position is -1 where there is no valid one."""
    if at >= stop:
        return 0, -1
    byte = np.int64(buffer[at])
    if byte < 128:
        return (byte >> 1) ^ -(byte & 1), at + 1
    bits, shift = np.uint64(byte & 127), np.uint64(7)
    for i in range(at + 1, min(stop, at + 10)):
        byte = np.int64(buffer[i])
        bits |= np.uint64(byte & 127) << shift
        shift += np.uint64(7)
        if byte < 128:
            if i == at + 9 and byte > 1:
                return 0, -1
            return np.int64(bits >> np.uint64(1)) ^ -np.int64(bits & np.uint64(1)), i + 1
    return 0, -1


@njit(cache=True, nogil=True, forceinline=True)
def read_double(buffer, at, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the bits of a double, and the position behind it, or a status below 0."""
    if at + 8 > stop:
        # Of the same type as what is read: numba would make a float of an unsigned and a signed number, and lose bits.
        return _NAN_BITS, -_MALFORMED
    bits = np.uint64(0)
    for j in range(8):
        bits |= np.uint64(buffer[at + j]) << np.uint64(8 * j)
    return bits, at + 8


@njit(cache=True, nogil=True, forceinline=True)
def _fits(operation: int, argument: int, value: int) -> bool:
    """Whether an integer is one of its type: an INT, or the index of a symbol."""
    if operation == INT:
        return -(2**31) <= value < 2**31
    return operation != ENUM or 0 <= value < argument


@njit(cache=True, nogil=True, forceinline=True)
def find_sized(buffer, at, stop, is_fixed, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return where a string, bytes or a fixed of ``size`` begins, or a status below 0, and its size."""
    if not is_fixed:
        size, at = read_varint(buffer, at, stop)
    return (-_MALFORMED, 0) if at < 0 or size < 0 or size > stop - at else (at, size)


@njit(cache=True, nogil=True, forceinline=True)
def read_number(buffer, at, stop, operation, argument):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return a long, an int, an enum or a boolean, and the position behind it, or a status below 0."""
    if operation == BOOLEAN:
        return (buffer[at], at + 1) if at < stop and buffer[at] <= 1 else (0, -_MALFORMED)
    value, at = read_varint(buffer, at, stop)
    return value, at if at >= 0 and _fits(operation, argument, value) else -_MALFORMED


@njit(cache=True, nogil=True)
def _skip_scalar(buffer, at, stop, row):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Walk over one scalar that a row of the table describes, checking it; return the position behind it, or a status below 0."""
    operation, null_branch, argument = row[OPERATION], row[NULL_BRANCH], row[ARGUMENT]
    if null_branch >= 0:
        branch, at = read_varint(buffer, at, stop)
        if at < 0 or branch not in (0, 1):
            return -_MALFORMED
        if branch == null_branch:
            return at
    if operation == DOUBLE:
        return read_double(buffer, at, stop)[1]
    if operation in (STRING, BYTES, FIXED):
        begin, size = find_sized(buffer, at, stop, operation == FIXED, argument)
        if operation == STRING and begin >= 0 and not valid_utf8(buffer, begin, begin + size):
            return -_UTF8
        return begin + size
    return read_number(buffer, at, stop, operation, argument)[1]


@njit(cache=True, nogil=True)
def _skip_array(buffer, at, stop, table, f):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Walk over an array of scalars or flat records, checking each; return the position behind it, or a status below 0."""
    while True:
        count, at = read_varint(buffer, at, stop)
        # Every item of ours takes a byte at least, so more items than bytes is a bomb.
        if at < 0 or count < 0 or count > stop - at:
            return -_MALFORMED
        if count == 0:
            return at
        for _ in range(count):
            for r in range(table[f, ITEM_FIRST], table[f, ITEM_STOP]):
                at = _skip_scalar(buffer, at, stop, table[r])
                if at < 0:
                    return at


@njit(cache=True, nogil=True)
def _read_doubles(buffer, at, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Walk over an array of doubles, which our writer puts into one block; return the position behind it and how many there are."""
    count, at = read_varint(buffer, at, stop)
    if at < 0 or count < 0 or count > (stop - at) // 8:
        return -_MALFORMED, 0
    end = at + 8 * count
    if count == 0:
        return at, 0
    if end >= stop or buffer[end] != 0:
        return -_MALFORMED, 0
    return end + 1, count


@njit(cache=True, nogil=True)
def _read_rows(buffer, length, header, table, cells, limits, status) -> int:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Read records that lie one behind the other; return how many are good.

    One flat loop: to hand an array to a function that is not inlined, or to make a slice, takes longer than to read a field, since the array
    is counted as used and as no longer used.
    """
    ints, lengths, double_bits = cells
    fields, record_bytes_max = limits
    stop, good = 0, 0
    for i in range(len(length)):
        at, stop = stop, stop + length[i]
        status[i] = _TOO_LARGE if length[i] > record_bytes_max else _why_not_framed(buffer, at, stop, header)
        if status[i]:
            continue
        at += len(header)
        for f in range(fields):
            operation, argument, null_branch = table[f, OPERATION], table[f, ARGUMENT], table[f, NULL_BRANCH]
            if null_branch >= 0:
                branch, at = read_varint(buffer, at, stop)
                if at < 0 or branch not in (0, 1):
                    at = -_MALFORMED
                    break
                if branch == null_branch:
                    lengths[f, i] = -1
                    double_bits[f, i] = _NAN_BITS
                    continue
            if operation == DOUBLE:
                double_bits[f, i], at = read_double(buffer, at, stop)
            elif operation in (STRING, BYTES, FIXED):
                ints[f, i], size = find_sized(buffer, at, stop, operation == FIXED, argument)
                lengths[f, i], at = size, ints[f, i] + size
                if operation == STRING and at >= 0 and not valid_utf8(buffer, at - size, at):
                    at = -_UTF8
            elif operation == ARRAY:
                ints[f, i], at = at, _skip_array(buffer, at, stop, table, f)
                lengths[f, i] = at - ints[f, i]
            elif operation == DOUBLES:
                at, lengths[f, i] = _read_doubles(buffer, at, stop)
                ints[f, i] = at - 8 * lengths[f, i] - (lengths[f, i] > 0)
            else:
                ints[f, i], at = read_number(buffer, at, stop, operation, argument)
            if at < 0:
                break
        status[i] = (_UTF8 if at == -_UTF8 else _MALFORMED) if at < 0 else _TRAILING * (at != stop)
        good += status[i] == 0
    return good


@njit(cache=True, nogil=True, forceinline=True)
def _why_not_framed(buffer: type_u8, at: int, stop: int, header: type_u8) -> int:
    """Return 0 for a record that begins as those of the schema do, or UNFRAMED."""
    if stop - at < len(header):
        return UNFRAMED
    for j in range(len(header)):
        if buffer[at + j] != header[j]:
            return UNFRAMED
    return 0


@njit(cache=True, nogil=True)
def gather(buffer: type_u8, start: type_i64, size: int) -> type_u8:
    """Return ranges of so many bytes, shape (n, size)."""
    out = np.empty((len(start), size), np.uint8)
    for i in range(len(start)):
        for j in range(size):
            out[i, j] = buffer[start[i] + j]
    return out


@immutable
class Decoded:
    """The columns of a batch, by field name: a row for each of its m good records."""

    program: AvroProgram
    buffer: type_u8
    status: type_i64
    """(n,) the Reject of every record."""
    rows: type_i64
    """(m,) which records are good."""
    _ints: type_i64
    _lengths: type_i64
    _doubles: type_f64

    @property
    def cells(self) -> tuple[type_i64, type_i64, type_f64]:
        """What kernels need of all fields, each (fields, m): where a field begins or its integer, its length or -1 for null, and its double."""
        return self._ints, self._lengths, self._doubles

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

    def without_card_numbers(self) -> Decoded:
        """Return it without the records of which a text looks like a card number: any string of the schema, but those in arrays."""
        bad = np.zeros(len(self.rows), np.bool_)
        for name in self.program.strings:
            bad |= rows_with_card_numbers(self.text(name))
        if not bad.any():
            return self
        self.status[self.rows[bad]] = Reject.CARD_NUMBER
        cells = (column.compress(~bad, 1) for column in self.cells)
        return Decoded(self.program, self.buffer, self.status, self.rows[~bad], *cells)

    def fixed(self, name: str) -> type_u8:
        """Return a fixed, shape (m, size)."""
        f = self.program.index[name]
        return gather(self.buffer, self._ints[f], int(self.program.table[f, ARGUMENT]))

    def vectors(self, name: str, width: int) -> type_f64:
        """Return an array of ``width`` doubles, shape (m, width). Raises ValueError where one has another width."""
        f = self.program.index[name]
        if np.any(self._lengths[f] != width):
            raise ValueError(f"{name} does not hold {width} numbers in every record")
        return gather(self.buffer, self._ints[f], 8 * width).view(np.float64)


class ColumnarReader:
    """Decodes records of every version of a schema into columns of one of them; those of the others are exceptional, and take longer."""

    def __init__(self, schema: Schema, record_bytes_max: int, others: Iterable[Schema] = ()) -> None:
        """Read ``schema``, and ``others`` as it."""
        self.program = compile_program(schema.definition)
        self._header = np.frombuffer(schema.header, np.uint8)
        self._record_bytes_max = record_bytes_max
        self._others = OtherVersions(schema, others, _decode)

    @classmethod
    def of(cls, topic: Topic) -> ColumnarReader:
        """Return one that reads every version of a topic as the newest."""
        return cls(topic.latest, topic.record_bytes_max, topic.versions)

    def read(self, values: Sequence[bytes | None]) -> Decoded:
        """Decode n records; never raises for what they hold.

        ``status`` of the result is NONE or one of EMPTY, TOO_LARGE, BAD_FRAMING, UNKNOWN_FINGERPRINT, WRONG_SCHEMA, MALFORMED,
        TRAILING_BYTES and INVALID_UTF8. WRONG_SCHEMA is a record of another topic, or of a version that Avro's rules do not resolve.
        """
        # The check and the cast leave the usual batch, which has a value in every record, without a loop.
        present = cast("Sequence[bytes]", values) if None not in values else [value or b"" for value in values]
        n = len(present)
        length = np.fromiter(map(len, present), np.int64, n)
        buffer = np.frombuffer(b"".join(present), np.uint8)
        raw = buffer, length, self._record_bytes_max
        cells, status, good = _decode(raw, self._header, self.program)
        if good == n:
            return Decoded(self.program, buffer, status, np.arange(n), *cells)
        batch = VersionedBatch(present, raw, cells, status)
        self._others.read(batch)
        for i in np.flatnonzero(status == UNFRAMED).tolist():  # exceptional
            status[i] = why_unframed(present[i])
        rows = np.flatnonzero(status == Reject.NONE)
        if len(rows) < n:
            cells = cells[0].take(rows, 1), cells[1].take(rows, 1), cells[2].take(rows, 1)
        return Decoded(self.program, batch.raw[0], status, rows, *cells)


def _decode(raw: Raw, header: type_u8, program: AvroProgram) -> tuple[Cells, type_i64, int]:
    """Decode the records of one version; return its cells, the Reject of every record or UNFRAMED, and how many are good."""
    (buffer, length, record_bytes_max), fields = raw, len(program.names)
    n = len(length)
    ints, lengths = np.zeros((fields, n), np.int64), np.zeros((fields, n), np.int64)
    doubles, status = np.zeros((fields, n)), np.empty(n, np.int64)
    bits, limits = (ints, lengths, doubles.view(np.uint64)), (fields, record_bytes_max)
    good = _read_rows(buffer, length, header, program.table, bits, limits, status)
    return (ints, lengths, doubles), status, good
