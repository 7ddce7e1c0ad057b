"""The truth about simulated or recorded transactions, sent when their event time reaches the moment that it became known."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.codec.records import encode_written
from services.core.columns import TransactionColumns, type_bool, type_i64
from services.core.terminal.windows import fraud_labels
from services.offline.simulator.traffic import SCENARIOS, Traffic, draw_labels
from services.streams.sink import KafkaSink

TOPIC: Final = "fraud-labels"


@dataclass(frozen=True, slots=True)
class Truth:
    """What becomes known of transactions, in the order in which it does."""

    known_at_ms: type_i64
    keys: list[bytes]
    values: list[bytes]

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def nothing(cls) -> Truth:
        """Return a truth that says nothing."""
        return cls(np.empty(0, np.int64), [], [])


def simulated_truth(traffic: Traffic, seed: int) -> Truth:
    """Return what becomes known of simulated traffic: the same labels as training on the same seed sees."""
    drawn = draw_labels(traffic, np.random.default_rng(seed))
    scenarios = [SCENARIOS[code] for code in traffic.scenario[drawn.rows].tolist()]
    return _truth(traffic.columns, drawn.rows, [s != "genuine" for s in scenarios], scenarios, drawn.known_at_ms)


def recorded_truth(columns: TransactionColumns, fraud: type_bool) -> Truth:
    """Return a label of each fraud of a file, known a day after it: the features look at it after a week at the earliest."""
    known_at_ms, rows = fraud_labels(columns, fraud).known_at_ms, np.flatnonzero(fraud)
    order = np.argsort(known_at_ms, kind="stable")
    return _truth(columns, rows[order], [True] * len(rows), ["genuine"] * len(rows), known_at_ms[order])


def _truth(
    columns: TransactionColumns, rows: type_i64, fraud: list[bool], scenarios: list[str], known_at_ms: type_i64
) -> Truth:
    chosen = columns.take(rows)
    texts = zip(chosen.card_id.tolist(), chosen.terminal_id.tolist(), strict=True)
    keys, values = [], []
    for i, (card, terminal) in enumerate(texts):
        identifier = chosen.transaction_id[i].tobytes()
        keys.append(str(uuid.UUID(bytes=identifier)).encode())
        label = {
            "transaction_id": identifier,
            "card_id": card.decode(),
            "terminal_id": terminal.decode(),
            "event_time_ms": int(chosen.event_time_ms[i]),
            "is_fraud": fraud[i],
            "scenario": scenarios[i] if scenarios[i] != "genuine" else None,
            "known_at_ms": int(known_at_ms[i]),
            "source": "SIMULATOR",
        }
        values.append(encode_written(TOPIC, label))
    return Truth(known_at_ms, keys, values)


class LabelFeed:
    """Sends a truth bit by bit, as event time passes."""

    def __init__(self, sink: KafkaSink, truth: Truth) -> None:
        self._sink, self._pending = sink, truth
        self.sent = 0

    def add(self, truth: Truth) -> None:
        """Add what becomes known of more transactions."""
        joined = np.concatenate([self._pending.known_at_ms, truth.known_at_ms])
        keys, values = [*self._pending.keys, *truth.keys], [*self._pending.values, *truth.values]
        order = np.argsort(joined, kind="stable")
        self._pending = Truth(joined[order], [keys[i] for i in order.tolist()], [values[i] for i in order.tolist()])

    def send_until(self, event_time_ms: int) -> None:
        """Send what is known by then; the truth about the last days stays unknown, as in life."""
        pending = self._pending
        until = int(np.searchsorted(pending.known_at_ms, event_time_ms, side="right"))
        if until:
            self._sink.send(TOPIC, pending.keys[:until], pending.values[:until])
            self._pending = Truth(pending.known_at_ms[until:], pending.keys[until:], pending.values[until:])
            self.sent += until
