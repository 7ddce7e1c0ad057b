"""The truth about simulated transactions, as far as it has become known by the end of their event time."""

from __future__ import annotations

import uuid
from typing import Final

import numpy as np

from services.codec.records import encode_record
from services.codec.schemas import topics
from services.replay.producer import NotDeliveredError
from services.simulator.traffic import SCENARIOS, Traffic, draw_labels
from services.streams.sink import KafkaSink

TOPIC: Final = "fraud-labels"
FLUSH_TIMEOUT_S: Final = 60.0


def send_labels(sink: KafkaSink, traffic: Traffic, seed: int) -> int:
    """Send the labels that are known before the traffic's last event; return how many.

    Labels come days after their transactions: those of the last days are not known yet, as in life.

    Raises:
        NotDeliveredError: Kafka has not taken them within ``FLUSH_TIMEOUT_S``.
    """
    if not len(traffic):
        return 0
    labels = draw_labels(traffic, np.random.default_rng(seed))
    known = labels.known_at_ms <= traffic.columns.event_time_ms[-1]
    rows = labels.rows[known]
    chosen, schema = traffic.take(rows), topics()[TOPIC].latest
    keys, values = [], []
    columns = chosen.columns
    texts = zip(columns.card_id.tolist(), columns.terminal_id.tolist(), strict=True)
    for i, (card, terminal) in enumerate(texts):
        scenario = SCENARIOS[chosen.scenario[i]]
        identifier = columns.transaction_id[i].tobytes()
        keys.append(str(uuid.UUID(bytes=identifier)).encode())
        label = {
            "transaction_id": identifier,
            "card_id": card.decode(),
            "terminal_id": terminal.decode(),
            "event_time_ms": int(columns.event_time_ms[i]),
            "is_fraud": scenario != "genuine",
            "scenario": scenario if scenario != "genuine" else None,
            "known_at_ms": int(labels.known_at_ms[known][i]),
            "source": "SIMULATOR",
        }
        values.append(encode_record(schema, label))
    sink.send(TOPIC, keys, values)
    if not sink.flush(FLUSH_TIMEOUT_S):
        raise NotDeliveredError(f"Kafka has not acknowledged the labels within {FLUSH_TIMEOUT_S:.0f} s")
    return len(values)
