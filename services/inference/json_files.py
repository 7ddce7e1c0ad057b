"""JSON of a release, read within limits: whatever a file holds, what comes out is a value or one kind of error."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from services.inference.base import ModelError

FILE_BYTES_MAX: Final = 64 * 1024 * 1024
DEPTH_MAX: Final = 32
"""Brackets within brackets: a release has 8 of them. The parser calls itself for each, until Python ends it."""
_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
"""Strings, whose brackets do not count, and brackets."""


def read_file(path: Path) -> bytes:
    """Return a file of a release. Raises ModelError."""
    try:
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            raise ModelError(f"{path} has {size} bytes, more than {FILE_BYTES_MAX}")
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None


def parse_object(raw: bytes, what: object) -> dict[str, Any]:
    """Return the JSON object that bytes hold. Raises ModelError, which names it as ``what``."""
    _check_depth(raw, what)
    try:
        found = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{what} is not JSON: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{what} is not a JSON object")
    return found


def _check_depth(raw: bytes, what: object) -> None:
    depth = 0
    for found in _STRUCTURE.finditer(raw):
        first = found[0][:1]
        depth += 1 if first in b"[{" else -1 if first in b"]}" else 0
        if depth > DEPTH_MAX:
            raise ModelError(f"{what} has more than {DEPTH_MAX} brackets within brackets")


def _unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
