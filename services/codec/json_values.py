"""A JSON document as a record of an Avro schema: types exactly as the schema has them, missing fields by its defaults.

Only what the schema names is looked at; a document may say more. Nothing is converted: a number that is a text, a whole number that is
written with a fraction, or true for 1 is another type, and refused.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from services.core.validation import Reject

_WHOLE: Final = {"int": 2**31, "long": 2**63}


class UnfitError(ValueError):
    """A document is not a record of the schema; ``reason`` says why."""

    def __init__(self, reason: Reject = Reject.MALFORMED) -> None:
        super().__init__(reason.name)
        self.reason = reason


def read_object(value: bytes) -> dict[str, Any]:
    """Return a JSON object. Raises UnfitError for what is none, says a name twice, holds NaN or infinity, or is nested too deep."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise UnfitError(Reject.INVALID_UTF8) from None
    try:
        document = json.loads(text, object_pairs_hook=_without_twins, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise UnfitError from None
    if not isinstance(document, dict):
        raise UnfitError
    return document


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object, of which no name is said twice: which of the two counts would be a guess."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UnfitError
    return found


def _refuse_constant(_: str) -> NoReturn:
    """Refuse NaN and infinity, which Python's parser takes and JSON does not know."""
    raise UnfitError


def fit(schema: Any, value: Any) -> Any:
    """Return what a document says as a value of a schema: its definition, whose records and enums are written where they are used.

    Raises:
        UnfitError: it is no such value.
    """
    if isinstance(schema, list):
        return _fit_union(schema, value)
    if isinstance(schema, str):
        return _fit_scalar(schema, value)
    if schema["type"] == "record":
        return _fit_record(schema, value)
    if schema["type"] == "array":
        if not isinstance(value, list):
            raise UnfitError
        return [fit(schema["items"], one) for one in value]
    if schema["type"] == "enum":
        if not isinstance(value, str) or value not in schema["symbols"]:
            raise UnfitError
        return value
    raise AssertionError(f"no JSON is read as {schema['type']!r}")


def _fit_record(schema: Mapping[str, Any], value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UnfitError
    found = {}
    for field in schema["fields"]:
        name = field["name"]
        if name in value:
            found[name] = fit(field["type"], value[name])
        elif "default" in field:
            found[name] = copy.deepcopy(field["default"])
        else:
            raise UnfitError
    return found


def _fit_union(branches: list[Any], value: Any) -> Any:
    """Return a value of null and one other type: which of several others would be a guess."""
    [other] = [branch for branch in branches if branch != "null"]
    assert len(branches) == 2, branches
    return None if value is None else fit(other, value)


def _fit_scalar(name: str, value: Any) -> Any:
    if name == "string":
        if not isinstance(value, str):
            raise UnfitError
        if not _encodes(value):
            raise UnfitError(Reject.INVALID_UTF8)
        return value
    if name == "boolean" and isinstance(value, bool):
        return value
    if name in _WHOLE and type(value) is int and -_WHOLE[name] <= value < _WHOLE[name]:
        return value
    if name == "double" and type(value) in (int, float):
        return _double(value)
    assert name in {*_WHOLE, "boolean", "double"}, f"no JSON is read as {name!r}"
    raise UnfitError


def _double(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number beyond what a double holds
        raise UnfitError from None


def _encodes(text: str) -> bool:
    """Whether a text can be written: JSON may name half of a surrogate pair, which is no character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
