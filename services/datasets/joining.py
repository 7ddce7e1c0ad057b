"""The chunks of a file as one."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from services.core.columns import Text, TransactionColumns
from services.datasets.mapping import Dataset


def concatenate(chunks: list[Dataset]) -> TransactionColumns:
    """Return the chunks of a file as one."""
    joined: dict[str, Any] = {}
    for field in fields(TransactionColumns):
        parts = [getattr(chunk.columns, field.name) for chunk in chunks]
        joined[field.name] = Text.joined(parts) if isinstance(parts[0], Text) else np.concatenate(parts)
    return TransactionColumns(**joined)
