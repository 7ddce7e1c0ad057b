"""The yardstick of `make bench`: the worker that most projects write, one record after the other.

It polls a record, decodes it with fastavro, reads the card's last transactions from Redis, computes window features over them, asks XGBoost
for one row, encodes a decision with its features by fastavro, writes the card's transactions back, and commits atomically every 100 ms, as
Kafka Streams does by default. It is correct as far as it goes, and uses the libraries as their first examples do; nothing of Proact is in it,
but for the schemas' files, so that it stays what it is.

    python tests/benchmarks/plain_worker.py KAFKA REDIS_URL MODEL_JSON FEATURES TRANSACTION_SCHEMA READY_FILE
"""

from __future__ import annotations

import io
import json
import struct
import sys
import time
from pathlib import Path

import fastavro
import numpy as np
import redis
import xgboost
from confluent_kafka import Consumer, Producer

KEPT = 64
COMMIT_EVERY_S = 0.1
HOUR_MS = 3_600_000
WINDOWS_MS = [HOUR_MS // 6, HOUR_MS, 24 * HOUR_MS, 7 * 24 * HOUR_MS, 30 * 24 * HOUR_MS]
PAST = struct.Struct("<qq")
DECISION = fastavro.parse_schema(
    {
        "type": "record", "name": "PlainDecision", "fields": [
            {"name": "transaction_id", "type": "bytes"}, {"name": "card_id", "type": "string"},
            {"name": "decided_at_ms", "type": "long"}, {"name": "score", "type": "double"},
            {"name": "action", "type": "string"}, {"name": "features", "type": {"type": "array", "items": "double"}},
        ],
    }
)  # fmt: skip


def features(past: list[tuple[int, int]], at_ms: int, amount: int, width: int) -> np.ndarray:
    """Return 13 window features over the past of a card, in a vector as wide as the model wants it."""
    values = [amount / 100.0]
    for window_ms in WINDOWS_MS:
        inside = [a for t, a in past if at_ms - window_ms < t <= at_ms]
        values.append(float(len(inside)))
        values.append(sum(inside) / len(inside) / 100.0 if inside else 0.0)
    values.append((at_ms - past[-1][0]) / 1000.0 if past else -1.0)
    values.append(amount / (max(a for _, a in past) or 1) if past else 0.0)
    vector = np.full((1, width), np.nan)
    vector[0, : len(values)] = values
    return vector


def decide(
    booster: xgboost.Booster, wanted: object, width: int, value: bytes, past: list[tuple[int, int]]
) -> tuple[bytes, list[tuple[int, int]]]:
    """Decide on one record; return the encoded decision, and what the card's past is now."""
    transaction = fastavro.schemaless_reader(io.BytesIO(value[10:]), wanted)
    at_ms, amount = transaction["event_time_ms"], transaction["billing_amount_minor"]
    vector = features(past, at_ms, amount, width)
    score = float(booster.inplace_predict(vector)[0])
    decision = {
        "transaction_id": transaction["transaction_id"], "card_id": transaction["card_id"],
        "decided_at_ms": int(time.time() * 1000), "score": score,
        "action": "APPROVE" if score < 0.5 else "REVIEW", "features": vector[0].tolist(),
    }  # fmt: skip
    out = io.BytesIO()
    fastavro.schemaless_writer(out, DECISION, decision)
    return out.getvalue(), [*past, (at_ms, amount)][-KEPT:]


def open_model(model: str, schema: str) -> tuple[xgboost.Booster, object]:
    """Load what deciding takes."""
    booster = xgboost.Booster(model_file=model)
    booster.set_param({"nthread": 1})
    return booster, fastavro.parse_schema(json.loads(Path(schema).read_text()))


def main(kafka: str, redis_url: str, model: str, width: int, schema: str, ready: str) -> None:
    """Work until the process is ended."""
    booster, wanted = open_model(model, schema)
    store = redis.Redis.from_url(redis_url)
    consumer = Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": "plain",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": "plain"})
    producer.init_transactions()
    consumer.subscribe(["card-transactions"])
    open_since = None
    Path(ready).touch()
    while True:
        message = consumer.poll(0.05)
        if message is not None and not message.error():
            if open_since is None:
                producer.begin_transaction()
                open_since = time.monotonic()
            key = b"plain:" + message.key()
            past = list(PAST.iter_unpack(store.get(key) or b""))
            decision, past = decide(booster, wanted, width, message.value(), past)
            producer.produce("card-decisions", decision, message.key())
            store.set(key, b"".join(PAST.pack(*one) for one in past))
        if open_since is not None and time.monotonic() - open_since >= COMMIT_EVERY_S:
            producer.send_offsets_to_transaction(
                consumer.position(consumer.assignment()), consumer.consumer_group_metadata()
            )
            producer.commit_transaction()
            open_since = None


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5], sys.argv[6])
