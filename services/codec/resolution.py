"""How records of one version of a schema become columns of another: Avro's schema resolution, a batch at a time.

A batch is decoded by the schema that wrote it. What the reading schema has of it is then moved, field by field, into the reading schema's
cells, and what only the reading schema has is filled with its default. What needs more than that (an array whose items changed, a type that
the columnar codec does not know) goes through fastavro, record by record: see :class:`ByRecord`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import fastavro
import numpy as np
from numba import njit

from services.codec.program import DOUBLE, OPERATION, AvroProgram, compile_program
from services.codec.schemas import HEADER_BYTES, Schema
from services.codec.utf8 import valid_utf8
from services.core.columns import type_bool, type_f64, type_i64, type_u8

Cells = tuple[type_i64, type_i64, type_f64]
"""Where each field begins or its integer, its length or -1 for null, and its double: each (fields, n)."""

_NAMED: Final = ("record", "enum", "fixed")
_AS_IT_IS, _TO_DOUBLE, _TO_TEXT, _SYMBOL = range(4)
"""How a field is moved. _TO_TEXT: bytes that may be no text. _SYMBOL: an enum whose symbols have other numbers."""
_PROMOTED: Final = {("int", "double"): _TO_DOUBLE, ("long", "double"): _TO_DOUBLE, ("bytes", "string"): _TO_TEXT}
"""How one type is read as another; int as long and string as bytes have the same bytes."""
_SOURCE, _TARGET, _HOW, _NEVER_NULL, _FIRST_SYMBOL = range(5)
"""Columns of a table of moves."""


class NotColumnarError(ValueError):
    """Two schemas differ in more than fields that are moved, promoted, or filled."""


@dataclass(frozen=True, slots=True)
class Fill:
    """The default of a field that only the reading schema has."""

    target: int
    number: int = 0
    double: float = 0.0
    length: int = 0
    raw: bytes | None = None
    """What lies in the buffer; ``number`` is its place there then."""


@dataclass(frozen=True, slots=True)
class ByColumn:
    """How records of a version become columns of the reading schema, all of them at once."""

    program: AvroProgram
    """How they are decoded."""
    moves: type_i64
    """(moves, 5)"""
    symbols: type_i64
    """The number in the reading schema of each symbol of each enum that changed, -1 where it has none."""
    fills: Sequence[Fill]

    @property
    def appended(self) -> bytes:
        """What has to lie in the buffer behind the records."""
        return b"".join(fill.raw or b"" for fill in self.fills)

    def apply(self, buffer: type_u8, source: Cells, target: Cells, rows: type_i64) -> type_bool:
        """Put rows into the reading schema's cells; return (m,) which of them Avro's rules do not resolve.

        Args:
            buffer: the records, with ``appended`` behind them.
            source: the cells of the writing schema, for as many records as those of the reading one.
            target: the cells of the reading schema, changed in place.
            rows: (m,) which are moved.
        """
        bad = np.zeros(len(rows), np.bool_)
        _move_rows((buffer, self.moves, self.symbols), source, target, rows, bad)
        at, (ints, lengths, doubles) = len(buffer) - len(self.appended), target
        for fill in self.fills:
            ints[fill.target, rows] = fill.number if fill.raw is None else at
            lengths[fill.target, rows], doubles[fill.target, rows] = fill.length, fill.double
            at += len(fill.raw or b"")
        return bad


@njit(cache=True, nogil=True)
def _move_rows(how, source, target, rows, bad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Move the fields of rows from the cells of one schema into those of another, in place."""
    buffer, moves, symbols = how
    from_ints, from_lengths, from_doubles = source
    ints, lengths, doubles = target
    for m in range(len(moves)):
        a, b, kind = moves[m, _SOURCE], moves[m, _TARGET], moves[m, _HOW]
        for k in range(len(rows)):
            i = rows[k]
            value, length, double = from_ints[a, i], from_lengths[a, i], from_doubles[a, i]
            if length < 0:
                bad[k] |= moves[m, _NEVER_NULL] != 0
            elif kind == _TO_DOUBLE:
                double = np.float64(value)
            elif kind == _TO_TEXT:
                bad[k] |= not valid_utf8(buffer, value, value + length)
            elif kind == _SYMBOL:
                value = symbols[moves[m, _FIRST_SYMBOL] + value]
                bad[k] |= value < 0
            ints[b, i], lengths[b, i], doubles[b, i] = value, length, double


class ByRecord:
    """How records of a version become records of the reading schema, one after the other: fastavro reads each and writes it again."""

    def __init__(self, writer: Schema, reader: Schema) -> None:
        self._writer, self._reader = writer, reader
        self.program: AvroProgram | None
        """How they are decoded first, for the verdict on each; None where the columnar codec does not know a type."""
        try:
            self.program = compile_program(writer.definition)
        except ValueError:
            self.program = None

    def convert(self, value: bytes) -> bytes | None:
        """Return a framed record as one of the reading schema; None for what is not exactly one record, or is not resolved."""
        body, out = io.BytesIO(value[HEADER_BYTES:]), io.BytesIO()
        out.write(self._reader.header)
        try:
            record = fastavro.schemaless_reader(body, self._writer.parsed, self._reader.parsed)
            fastavro.schemaless_writer(out, self._reader.parsed, record)
        except Exception:  # noqa: BLE001 - fastavro raises many kinds for what it cannot resolve, and for damaged bytes
            return None
        return None if body.read(1) else out.getvalue()


Resolution = ByColumn | ByRecord


def resolution_of(writer: Schema, reader: Schema) -> Resolution:
    """Return how records of ``writer`` are read as those of ``reader``, which the columnar codec knows."""
    try:
        return _by_column(writer, reader)
    except ValueError:  # of the compiler, for a type that it does not know, and NotColumnarError
        return ByRecord(writer, reader)


def _by_column(writer: Schema, reader: Schema) -> ByColumn:
    """Raises ValueError: it cannot be done by column."""
    source, target = compile_program(writer.definition), compile_program(reader.definition)
    _require_same_name(writer.definition, reader.definition)
    written, wanted = (whole(one.definition)["fields"] for one in (writer, reader))
    aliases = {alias: field["name"] for field in wanted for alias in field.get("aliases", [])}
    by_name = {field["name"]: field for field in wanted}
    moves: list[list[int]] = []
    symbols: list[int] = []
    for at, field in enumerate(written):
        name = field["name"] if field["name"] in by_name else aliases.get(field["name"])
        found = by_name.pop(name, None)
        if found is not None:
            how, never_null, numbers = _how_moved(field["type"], found["type"])
            moves.append([at, target.index[found["name"]], how, never_null, len(symbols)])
            symbols += numbers
    fills = [_fill(target, target.index[name], field) for name, field in by_name.items()]
    return ByColumn(source, np.array(moves, np.int64).reshape(-1, 5), np.array(symbols, np.int64), fills)


def whole(definition: dict[str, Any]) -> dict[str, Any]:
    """Return a definition in which every name is replaced by what it names."""
    known: dict[str, Any] = {}

    def of(kind: Any, namespace: str) -> Any:
        if isinstance(kind, list):
            return [of(one, namespace) for one in kind]
        if isinstance(kind, str):
            return known.get(kind, kind)
        if kind["type"] == "record":
            space = kind.get("namespace", namespace)
            kind = kind | {"fields": [field | {"type": of(field["type"], space)} for field in kind["fields"]]}
        elif kind["type"] == "array":
            kind = kind | {"items": of(kind["items"], namespace)}
        if "name" in kind:
            known[kind["name"]] = known[f"{kind.get('namespace', namespace)}.{kind['name']}"] = kind
        return kind

    resolved: dict[str, Any] = of(definition, definition.get("namespace", ""))
    return resolved


def _how_moved(written: Any, wanted: Any) -> tuple[int, bool, list[int]]:
    """Return how a field is moved, whether it must not be null, and the numbers of its symbols. Raises NotColumnarError."""
    (said, may_be_null), (read, nullable) = _without_null(written), _without_null(wanted)
    never_null, kinds = may_be_null and not nullable, (_kind(said), _kind(read))
    if kinds[0] == "enum" == kinds[1]:
        _require_same_name(said, read)
        numbers = _numbers(said, read)
        unchanged = numbers == list(range(len(numbers)))
        return (_AS_IT_IS, never_null, []) if unchanged else (_SYMBOL, never_null, numbers)
    if kinds == ("string", "bytes") or _same_bytes(said, read):
        return _AS_IT_IS, never_null, []
    if kinds not in _PROMOTED:
        raise NotColumnarError
    return _PROMOTED[kinds], never_null, []


def _numbers(said: Mapping[str, Any], read: Mapping[str, Any]) -> list[int]:
    """Return the number in the reader's enum of each of the writer's symbols: its default's, or -1, of those that it has not."""
    known = {symbol: at for at, symbol in enumerate(read["symbols"])}
    other = known[read["default"]] if "default" in read else -1
    return [known.get(symbol, other) for symbol in said["symbols"]]


def _without_null(kind: Any) -> tuple[Any, bool]:
    """Return the other type of a union of null and one type, and whether it is such a union."""
    if not isinstance(kind, list):
        return kind, False
    [other] = [branch for branch in kind if branch != "null"]
    return other, True


def _kind(one: Any) -> str:
    return str(one["type"] if isinstance(one, dict) else one)


def _same_bytes(said: Any, read: Any) -> bool:
    """Whether what is written as one type has the bytes of the same value of another."""
    if isinstance(said, list) or isinstance(read, list):
        both = isinstance(said, list) and isinstance(read, list) and len(said) == len(read)
        return both and all(map(_same_bytes, said, read))
    kinds = _kind(said), _kind(read)
    if kinds[0] != kinds[1]:
        return kinds == ("int", "long")
    if kinds[0] == "array":
        return _same_bytes(said["items"], read["items"])
    if kinds[0] not in _NAMED:
        return True
    _require_same_name(said, read)
    if kinds[0] == "fixed":
        return bool(said["size"] == read["size"])
    if kinds[0] == "enum":
        return bool(said["symbols"] == read["symbols"][: len(said["symbols"])])
    fields = list(zip(said["fields"], read["fields"], strict=False))
    return len(said["fields"]) == len(read["fields"]) and all(
        a["name"] == b["name"] and _same_bytes(a["type"], b["type"]) for a, b in fields
    )


def _require_same_name(said: Mapping[str, Any], read: Mapping[str, Any]) -> None:
    """Raises NotColumnarError unless the reader's type is of the writer's name, or was."""
    names, said_name = {read["name"].split(".")[-1], *read.get("aliases", [])}, said["name"]
    if not names & {said_name, said_name.split(".")[-1]}:
        raise NotColumnarError


def _fill(program: AvroProgram, target: int, field: Mapping[str, Any]) -> Fill:
    """Return what a field is in records that do not have it. Raises NotColumnarError where nothing says so, or it is not written here."""
    if "default" not in field:
        raise NotColumnarError
    default, (kind, _) = field["default"], _without_null(field["type"])
    if default is None:
        return Fill(target, double=np.nan, length=-1)
    if program.table[target, OPERATION] == DOUBLE:
        return Fill(target, double=float(default))
    if _kind(kind) == "enum":
        return Fill(target, kind["symbols"].index(default))
    if isinstance(default, int):  # a boolean is one, too
        return Fill(target, int(default))
    if isinstance(default, str):
        raw = default.encode("utf-8" if _kind(kind) == "string" else "latin-1")
        return Fill(target, length=len(raw), raw=raw)
    return _array_fill(target, kind, default)


def _array_fill(target: int, kind: Mapping[str, Any], default: list[Any]) -> Fill:
    if _kind(kind["items"]) == "double":
        raw = np.array(default, "<f8").tobytes()
        return Fill(target, length=len(default), raw=raw)
    if default:
        raise NotColumnarError
    return Fill(target, length=1, raw=b"\x00")
