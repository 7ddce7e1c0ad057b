"""An Avro record schema as a table of operations that the columnar kernels run, field by field.

Supported: records of scalars, enums, fixed, unions of null with a scalar, and arrays of doubles, enums or flat records.
That is all that the topics of Proact use; another type raises when the program is made, never while records flow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from services.core.columns import type_i64

LONG, INT, STRING, BYTES, FIXED, ENUM, BOOLEAN, DOUBLE, DOUBLES, ARRAY = range(10)
"""Operations. DOUBLES is an array of doubles; ARRAY is any other array, kept as its encoded bytes."""

_SCALARS: Final = {
    "long": LONG, "int": INT, "string": STRING, "bytes": BYTES, "boolean": BOOLEAN, "double": DOUBLE,
}  # fmt: skip
OPERATION, ARGUMENT, NULL_BRANCH, ITEM_FIRST, ITEM_STOP = range(5)
"""Columns of a program. ARGUMENT: the size of a fixed, the number of symbols of an enum. NULL_BRANCH: the index of null
in a union, -1 where there is none. ITEM_FIRST, ITEM_STOP: the rows that describe an array's item."""


@dataclass(frozen=True, slots=True)
class AvroProgram:
    """The operations of a schema: the first ``len(names)`` rows are its fields, items of arrays follow."""

    names: tuple[str, ...]
    table: type_i64
    index: dict[str, int] = field(init=False)
    """The row of each field."""
    nullable: frozenset[str] = field(init=False)
    strings: tuple[str, ...] = field(init=False)
    """The fields of text, codes among them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {name: f for f, name in enumerate(self.names)})
        nullable = (name for f, name in enumerate(self.names) if self.table[f, NULL_BRANCH] >= 0)
        object.__setattr__(self, "nullable", frozenset(nullable))
        strings = (name for f, name in enumerate(self.names) if self.table[f, OPERATION] == STRING)
        object.__setattr__(self, "strings", tuple(strings))


def _scalar_row(avro_type: Any, known: dict[str, Any]) -> list[int]:
    null_branch = -1
    if isinstance(avro_type, list):
        branches = [b for b in avro_type if b != "null"]
        if len(avro_type) != 2 or len(branches) != 1:
            raise ValueError(f"only unions of null and one type are supported: {avro_type}")
        null_branch, avro_type = avro_type.index("null"), branches[0]
    avro_type = known.get(avro_type, avro_type) if isinstance(avro_type, str) else avro_type
    kind = avro_type["type"] if isinstance(avro_type, dict) else avro_type
    if isinstance(avro_type, dict) and "name" in avro_type:
        known[avro_type["name"]] = avro_type
    if kind == "fixed":
        return [FIXED, avro_type["size"], null_branch, 0, 0]
    if kind == "enum":
        return [ENUM, len(avro_type["symbols"]), null_branch, 0, 0]
    if kind not in _SCALARS:
        raise ValueError(f"the columnar codec does not support the Avro type {kind!r}")
    return [_SCALARS[kind], 0, null_branch, 0, 0]


def compile_program(definition: dict[str, Any]) -> AvroProgram:
    """Compile a record schema.

    Raises:
        ValueError: the schema uses a type that the columnar codec does not support.
    """
    known: dict[str, Any] = {}
    rows: list[list[int]] = []
    items: list[tuple[int, list[list[int]]]] = []
    for at, one in enumerate(definition["fields"]):
        avro_type = one["type"]
        if not (isinstance(avro_type, dict) and avro_type["type"] == "array"):
            rows.append(_scalar_row(avro_type, known))
        elif avro_type["items"] == "double":
            rows.append([DOUBLES, 0, -1, 0, 0])
        else:
            item = avro_type["items"]
            flat = item["fields"] if isinstance(item, dict) and item["type"] == "record" else [{"type": item}]
            items.append((at, [_scalar_row(f["type"], known) for f in flat]))
            rows.append([ARRAY, 0, -1, 0, 0])
    for at, item_rows in items:
        rows[at][ITEM_FIRST], rows[at][ITEM_STOP] = len(rows), len(rows) + len(item_rows)
        rows.extend(item_rows)
    return AvroProgram(tuple(f["name"] for f in definition["fields"]), np.array(rows, np.int64))
