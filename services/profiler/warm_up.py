"""Run batches through everything, so that the first real one meets compiled kernels: the router's are among them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from services.codec.records import encode_written
from services.codec.terminal_events import LABELS, TOPIC, decode_labels, encode_terminal_events
from services.core.columns import TerminalEventColumns, Text, uuid_text
from services.core.validation import validate_terminal_events
from services.profiler.processor import ProfilerProcessor
from services.streams import Records

_AT_MS = 1_767_225_600_000


def _events(count: int) -> TerminalEventColumns:
    return TerminalEventColumns(
        is_label=np.arange(count) % 4 == 3,
        transaction_id=np.repeat(np.arange(count, dtype=np.uint8)[:, None] % 5, 16, axis=1),
        terminal_id=Text.constant(b"warm-up", count),
        event_time_ms=_AT_MS + 60_000 * np.arange(count),
        amount_minor=np.full(count, 1_000, np.int64),
        is_fraud=np.arange(count) % 4 == 3,
        known_at_ms=np.full(count, 2 * _AT_MS, np.int64),
    )


def warm_up(processor: ProfilerProcessor) -> None:
    """Compile every kernel of profiler and router, on batches with good and bad records; what comes of it is thrown away."""
    # The bad one is masked, too.
    values: list[bytes | None] = [*encode_terminal_events(_events(12)), None, b"bad 4111111111111111"]
    n = len(values)
    keys: list[bytes | None] = [*[b"warm-up"] * 12, None, b"bad"]
    records = Records(TOPIC, np.zeros(n, np.int64), np.arange(n), np.full(n, _AT_MS), keys, values, 1)
    first = processor.prepare(records, np.zeros(n, np.int64))
    outcome = processor.decide(first, [None] * len(first.cards), {}, np.ones(n, bool), _AT_MS)
    again = processor.prepare(replace(records, offset=records.offset + n), np.zeros(n, np.int64))
    processor.decide(again, outcome.profiles, {}, np.ones(n, bool), _AT_MS)
    label = {
        "transaction_id": bytes(16), "card_id": "warm-up", "terminal_id": "warm-up", "event_time_ms": _AT_MS,
        "is_fraud": True, "scenario": None, "known_at_ms": _AT_MS, "source": "ANALYST",
    }  # fmt: skip
    columns, rows, _ = decode_labels([encode_written(LABELS, label), b"bad"])
    keyed = uuid_text(columns.transaction_id)
    validate_terminal_events(columns, Text.of(keyed.tolist()), np.ones(len(rows), bool), keyed)
    encode_terminal_events(columns)
