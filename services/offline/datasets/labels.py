"""The truth in a file's column: what a mapping lists as true is a fraud, as false none; nothing there is no label; all else is an error.

What is listed nowhere is never guessed: an empty cell, or the word "No", read as a number or as a truth value of its own accord, would
train a model on labels that nobody gave.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from services.core.columns import type_bool
from services.core.masking import mask_text

_DEFAULT: Final = ("true", "1"), ("false", "0")
"""What stands for true and for false where a mapping lists nothing: booleans, and the numbers 1 and 0."""
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]{0,15})?")
_SHOWN_MAX: Final = 40
"""Characters of a value that an error shows."""
_NO, _YES, _NONE, _WRONG = 0, 1, 2, 3


class DatasetError(Exception):
    """A file or a mapping cannot be used: a user's mistake, said in one line."""


@dataclass(frozen=True, slots=True)
class LabelWords:
    """The truth about n transactions."""

    fraud: type_bool
    """(n,) False where there is no label."""
    known: type_bool
    """(n,) whether there is a label."""


@dataclass(frozen=True, slots=True)
class LabelRule:
    """Where a file holds the truth, and what its values mean."""

    column: str
    true: tuple[str, ...]
    false: tuple[str, ...]
    texts: bool
    """Whether texts may be labels: where a mapping lists what they mean."""

    @classmethod
    def of(cls, described: dict[Any, Any]) -> LabelRule:
        """Read what a mapping says. Raises DatasetError."""
        named = {_key(name): value for name, value in described.items()}
        if not {"column"} <= set(named) <= {"column", "true", "false"}:
            raise DatasetError(
                f"is_fraud must be a column, perhaps with the values for true and false, not {described}"
            )
        if ("true" in named) != ("false" in named):
            raise DatasetError("is_fraud must list the values for true and those for false, or neither")
        if "true" not in named:
            return cls(str(named["column"]), *_DEFAULT, texts=False)
        true, false = _listed(named["true"]), _listed(named["false"])
        if not true or not false or set(true) & set(false):
            raise DatasetError(
                f"is_fraud must list different values for true and false, at least one each: {described}"
            )
        return cls(str(named["column"]), true, false, texts=True)

    def read(self, column: Any, file: str, first_row: int, *, untyped: bool) -> LabelWords:
        """Return the labels of a column.

        Args:
            column: the arrow array, or chunked array, of n values.
            file: what the file is called in an error.
            first_row: the number, from 1, that the column's first row has in the file.
            untyped: whether the file has no types, as CSV: then a text may be a number or a truth value.

        Raises:
            DatasetError: a value is neither listed nor empty.
        """
        encoded = _without_nothing(column, untyped=untyped).dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.unify_dictionaries().combine_chunks()
            encoded = encoded if isinstance(encoded, pa.Array) else encoded.chunk(0)
        values = encoded.dictionary.to_pylist()
        codes = np.array([*(self._code(value, untyped=untyped) for value in values), _NONE], np.int64)
        codes = codes[pc.fill_null(encoded.indices.cast(pa.int64()), len(values)).to_numpy(zero_copy_only=False)]
        if (codes == _WRONG).any():
            at = int(np.argmax(codes == _WRONG))
            raise DatasetError(self._why_refused(column[at].as_py(), file, first_row + at))
        return LabelWords(codes == _YES, codes != _NONE)

    def _code(self, value: object, *, untyped: bool) -> int:
        words = [str(value)] if isinstance(value, str) and (self.texts or untyped) else []
        if not isinstance(value, str):
            words = [_word(value)]
        elif untyped:
            words.append(_untyped_word(value))
        for word in words:
            if word in self.true:
                return _YES
            if word in self.false:
                return _NO
        return _WRONG

    def _why_refused(self, value: object, file: str, row: int) -> str:
        shown = mask_text(str(value))
        shown = shown if len(shown) <= _SHOWN_MAX else shown[:_SHOWN_MAX] + "..."
        allowed = f"{' or '.join(self.true)} for a fraud, {' or '.join(self.false)} for none, or nothing"
        hint = (
            ""
            if self.texts
            else "; a mapping may list other values: is_fraud: {column: ..., true: [...], false: [...]}"
        )
        return (
            f"{file}: row {row}: column {self.column!r} holds {shown!r}, which is no label: it must be {allowed}{hint}"
        )


def _key(name: object) -> object:
    # YAML reads the keys true and false as truth values.
    return str(name).lower() if isinstance(name, bool) else name


def _listed(value: object) -> tuple[str, ...]:
    values: Iterable[object] = value if isinstance(value, list) else [value]
    for one in values:
        if not isinstance(one, str | int | float) or (isinstance(one, str) and not one.strip()):
            raise DatasetError(
                f"is_fraud: {one!r} cannot stand for a label: it must be a text, a number, true or false"
            )
    return tuple(dict.fromkeys(_word(one) for one in values))


def _word(value: object) -> str:
    """Return what a value is compared by: numbers that are equal are one, whatever their type."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return str(int(value))
    return str(value)


def _untyped_word(text: str) -> str:
    """Return what a text means in a file without types."""
    bare = text.strip()
    if bare in ("True", "TRUE", "False", "FALSE"):
        return bare.lower()
    return _word(float(bare)) if _NUMBER.fullmatch(bare) else bare


def _without_nothing(column: Any, *, untyped: bool) -> Any:
    """Return the column with null for all that says nothing: NaN, an empty text, in CSV what its readers take for missing."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    column = column.cast(kind)
    if pa.types.is_floating(kind):
        return pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        bare = pc.utf8_trim_whitespace(column)
        nothing = pyarrow.csv.ConvertOptions().null_values if untyped else [""]
        return pc.if_else(pc.is_in(bare, pa.array(nothing, kind)), pa.scalar(None, kind), column)
    return column
