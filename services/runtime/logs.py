"""Logging: one line an event on standard output, JSON for machines or text for people.

Lines hold facts, never payloads. A transaction is named by its token, so that lines about it can be found by who knows its
id. As a second net, what looks like a card number is starred out, wherever it stands in a line.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import math
import os
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from services.core.masking import mask_text
from services.runtime.variables import WORKER_VARIABLE

_FIELDS_OF_OURS = "fields"
FRAMES_MAX: Final = 30
"""Of an exception, the innermost ones."""


class _Formatter(logging.Formatter):
    def __init__(self, *, as_json: bool, worker: int | None = None) -> None:
        super().__init__()
        self._as_json, self._worker = as_json, worker

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = getattr(record, _FIELDS_OF_OURS, {})
        if self._worker is not None:
            fields = {"worker": self._worker} | fields
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        if self._as_json:
            said = {"at": at, "level": record.levelname, "logger": record.name, "message": message, **fields}
            # Masked before it is JSON: stars in a bare number would not be any.
            return json.dumps(_masked(said), allow_nan=False)
        extra = "".join(f" {k}={v}" for k, v in fields.items())
        line = mask_text(f"{at[11:23]} {record.levelname:<7} {record.name}: {message}{extra}")
        return line.encode(errors="backslashreplace").decode()


def _masked(value: object) -> object:
    """Return what JSON can say of a value, with card numbers starred out; a number that looks like one becomes a text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return {mask_text(str(key)): _masked(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_masked(one) for one in value]
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        digits = str(int(value))
        masked = mask_text(digits)
        return value if masked == digits else masked
    if isinstance(value, float) and math.isfinite(value):
        return value  # its digits behind the point are no card number
    return mask_text(str(value))


def set_up_logging(log_format: str) -> None:
    """Log to standard output in the format ``text``, ``json`` or ``auto``: text on a terminal."""
    as_json = log_format == "json" or (log_format == "auto" and not sys.stdout.isatty())
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Formatter(as_json=as_json, worker=_own_number()))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("numba", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _own_number() -> int | None:
    raw = os.environ.get(WORKER_VARIABLE, "")
    return int(raw) if raw.isdecimal() else None


def transaction_token(transaction_id: bytes) -> str:
    """Return the name that a transaction has in logs: 13 letters and digits that do not tell its id."""
    digest = hashlib.blake2s(transaction_id, digest_size=8, person=b"proact").digest()
    # In base 32: hexadecimal digits could look like a card number.
    return base64.b32encode(digest).decode().rstrip("=").lower()


def frames_of(error: BaseException) -> list[str]:
    """Return where an exception was raised, the innermost frame last, and where what caused it was, by kind; no message, no value of a variable."""
    lines: list[str] = []
    at: BaseException | None = error
    while at is not None and len(lines) < FRAMES_MAX:
        frames = [
            f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(at.__traceback__)
        ]
        lines += [type(at).__name__, *frames[-FRAMES_MAX:]]
        at = at.__cause__
    return lines[: 2 * FRAMES_MAX]


def _short(path: str) -> str:
    """Return a source file without where it is installed."""
    for folder in ("services", "site-packages"):
        _, found, tail = path.rpartition(f"/{folder}/")
        if found:
            return f"{folder}/{tail}" if folder == "services" else tail
    return path.rpartition("/")[2]


def fields(**values: object) -> dict[str, dict[str, object]]:
    """Return the ``extra`` of a log call: facts beside the message, never payloads."""
    return {_FIELDS_OF_OURS: values}
