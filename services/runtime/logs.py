"""Logging: one line an event, JSON for machines or text for people, with card-number-like digits masked as a last net."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from services.core.masking import mask_text

_FIELDS_OF_OURS = "fields"


class _Formatter(logging.Formatter):
    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = getattr(record, _FIELDS_OF_OURS, {})
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        if self._as_json:
            line = json.dumps(
                {"at": at, "level": record.levelname, "logger": record.name, "message": message, **fields}
            )
        else:
            extra = "".join(f" {k}={v}" for k, v in fields.items())
            line = f"{at[11:23]} {record.levelname:<7} {record.name}: {message}{extra}"
        return mask_text(line)


def set_up_logging(log_format: str) -> None:
    """Log to standard error in the format ``text``, ``json`` or ``auto``."""
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(as_json=as_json))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("numba", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def fields(**values: object) -> dict[str, dict[str, object]]:
    """Return the ``extra`` of a log call: facts beside the message, never payloads."""
    return {_FIELDS_OF_OURS: values}
