"""The items of arrays as columns, and text packed side by side: what a columnar file format wants of decoded records."""

from __future__ import annotations

import numpy as np
from numba import njit

from services.codec.program import (
    ARGUMENT,
    BYTES,
    DOUBLE,
    FIXED,
    ITEM_FIRST,
    ITEM_STOP,
    NULL_BRANCH,
    OPERATION,
    STRING,
)
from services.codec.reading import Decoded, find_sized, read_double, read_number, read_varint
from services.codec.resolution import Cells
from services.core.columns import type_f64, type_i64, type_u8

_NAN_BITS = np.uint64(0x7FF8_0000_0000_0000)


@njit(cache=True, nogil=True)
def _walk_items(buffer, places, program, cells, counts) -> int:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Read the items of arrays that were checked before; return how many there are. Cells of no columns: they are only counted."""
    (start, length), (table, row), (ints, lengths, double_bits) = places, program, cells
    first, items = table[row, ITEM_FIRST], table[row, ITEM_STOP] - table[row, ITEM_FIRST]
    keeps, k = ints.shape[1] > 0, 0
    for i in range(len(start)):
        at, stop, begin = start[i], start[i] + length[i], k
        while at < stop:
            count, at = read_varint(buffer, at, stop)
            for _ in range(count):
                for f in range(items):
                    operation, null_branch = table[first + f, OPERATION], table[first + f, NULL_BRANCH]
                    value, size, bits, branch = np.int64(0), np.int64(0), _NAN_BITS, np.int64(-1)
                    if null_branch >= 0:
                        branch, at = read_varint(buffer, at, stop)
                    if null_branch >= 0 and branch == null_branch:
                        size = np.int64(-1)
                    elif operation == DOUBLE:
                        bits, at = read_double(buffer, at, stop)
                    elif operation in (STRING, BYTES, FIXED):
                        value, size = find_sized(buffer, at, stop, operation == FIXED, table[first + f, ARGUMENT])
                        at = value + size
                    else:
                        value, at = read_number(buffer, at, stop, operation, table[first + f, ARGUMENT])
                    if keeps:
                        ints[f, k], lengths[f, k], double_bits[f, k] = value, size, bits
                k += 1
        counts[i] = k - begin
    return k


def items_of(decoded: Decoded, name: str) -> tuple[Cells, type_i64]:
    """Return the items of an array that is no array of doubles.

    Returns:
        The cells of its items, each (fields of an item, items), as :attr:`Decoded.cells` has those of records; and (m,) how many each record has.
    """
    row, table = decoded.program.index[name], decoded.program.table
    ints, lengths, _ = decoded.cells
    start, length, counts = ints[row], lengths[row], np.zeros(len(decoded.rows), np.int64)
    fields = int(table[row, ITEM_STOP] - table[row, ITEM_FIRST])

    def walk(n: int) -> tuple[Cells, int]:
        cells = np.zeros((fields, n), np.int64), np.zeros((fields, n), np.int64), np.zeros((fields, n))
        bits = cells[0], cells[1], cells[2].view(np.uint64)
        return cells, _walk_items(decoded.buffer, (start, length), (table, row), bits, counts)

    return walk(walk(0)[1])[0], counts


@njit(cache=True, nogil=True)
def pack_bytes(buffer: type_u8, start: type_i64, offsets: type_i64) -> type_u8:
    """Return ranges of a buffer one behind the other; the i-th goes to ``offsets[i]`` and has the length up to ``offsets[i + 1]``."""
    out = np.empty(offsets[-1], np.uint8)
    for i in range(len(start)):
        at, begin = offsets[i], start[i]
        for j in range(offsets[i + 1] - at):
            out[at + j] = buffer[begin + j]
    return out


def offsets_of(length: type_i64) -> type_i64:
    """Return where ranges of these lengths begin that lie one behind the other, and where the last one ends: (n + 1,)."""
    offsets = np.zeros(len(length) + 1, np.int64)
    np.cumsum(length, out=offsets[1:])
    return offsets


def doubles_of(decoded: Decoded, name: str) -> tuple[type_f64, type_i64]:
    """Return the numbers of an array of doubles, one record's behind the other's, and (m,) how many each has."""
    row = decoded.program.index[name]
    ints, lengths, _ = decoded.cells
    packed = pack_bytes(decoded.buffer, ints[row], offsets_of(8 * lengths[row]))
    return packed.view(np.float64), lengths[row]
