"""The key of every record that a service reads is what its topic's description says; any other is a dead letter."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.codec.records import decode_record, encode_record
from services.codec.schemas import topics
from services.core.columns import uuid_text
from services.offline.replay.labels import recorded_truth, simulated_truth
from services.offline.simulator.generate import simulate
from services.registry import BY_TOPIC, load
from services.streams import Records
from tests.codec.test_schemas import EXAMPLES, REJECTED_KEYS, to_record

NOW_MS = 1_767_225_600_000 + 3_600_000
ID = uuid.UUID("8a6e0804-2bd0-4672-b79d-d97027f9071a")

PROCESSORS: dict[str, Callable[[], Any]] = {topic: load(log.processor) for topic, log in BY_TOPIC.items()}


def example_of(topic: str) -> dict[str, Any]:
    path = next(p for p in EXAMPLES if p.parts[-3] == topic)
    record = to_record(json.loads(path.read_text()))
    if topic == "card-reassessment-requests":
        transaction = example_of("card-transactions")
        record |= {"card_id": transaction["card_id"], "transaction_id": transaction["transaction_id"]}
        record["transaction"] = encode_record(topics()["card-transactions"].latest, transaction)
    return record


def key_of(topic: str, record: dict[str, Any]) -> bytes:
    """Return the key that a topic's description names."""
    value = record[topics()[topic].key]
    return str(uuid.UUID(bytes=value)).encode() if isinstance(value, bytes) else value.encode()


def reasons(topic: str, keys: list[bytes | None], value: bytes) -> list[str]:
    """Return the reason of each dead letter that becomes of a record sent under each key."""
    n, processor = len(keys), PROCESSORS[topic]()
    zeros = np.zeros(n, np.int64)
    records = Records(topic, zeros, np.arange(n), zeros + NOW_MS, keys, [value] * n)
    prepared = processor.prepare(records, np.zeros(n, np.int64))
    # What is good is passed over: to decide on it takes a model, and here only what is refused counts.
    bad = prepared.status != 0
    outcome = processor.decide(prepared, [None] * len(prepared.cards), {}, bad, NOW_MS)
    assert bad.sum() == len(outcome.rejected)
    letters = [o for o in outcome.outputs if o.topic == "dead-letters"]
    return [decode_record(one or b"")[1]["reason"] for letter in letters for one in letter.values]


@pytest.mark.parametrize("topic", PROCESSORS)
def test_a_record_under_the_key_that_the_topic_names_is_taken_and_under_any_other_it_is_a_dead_letter(topic: str):
    record = example_of(topic)
    right = key_of(topic, record)
    value = encode_record(topics()[topic].latest, record)

    assert reasons(topic, [right], value) == []
    assert reasons(topic, [None], value) == ["NULL_KEY"]
    for wrong in (right + b"x", right[:-1], right.swapcase(), b"card-2", b"somebody-else"):
        assert reasons(topic, [right, wrong], value) == ["KEY_MISMATCH"], wrong


@pytest.mark.parametrize("path", REJECTED_KEYS, ids=lambda p: f"{p.parts[-4]}/{p.stem}")
def test_every_rejected_key_among_the_examples_is_refused_for_its_reason(path: Path):
    topic, example = path.parts[-4], json.loads(path.read_text())
    value = encode_record(topics()[topic].latest, to_record(example["record"]))
    key = None if example["key"] is None else example["key"].encode()

    assert reasons(topic, [key], value) == [example["reason"]]


def test_there_are_rejected_keys_of_every_topic_whose_records_can_be_written_as_text():
    assert {path.parts[-4] for path in REJECTED_KEYS} == PROCESSORS.keys() - {"card-reassessment-requests"}


@pytest.mark.parametrize(
    "wrong", [ID.bytes, ID.hex.encode(), str(ID).upper().encode(), b"", b"{%s}" % str(ID).encode()]
)
def test_a_label_has_its_transactions_id_as_its_key_in_one_spelling(wrong: bytes):
    value = encode_record(topics()["fraud-labels"].latest, example_of("fraud-labels"))

    assert reasons("fraud-labels", [wrong], value) == ["KEY_MISMATCH"]


def test_a_request_about_another_card_than_its_transactions_is_a_dead_letter():
    record = example_of("card-reassessment-requests") | {"card_id": "card-2"}
    value = encode_record(topics()["card-reassessment-requests"].latest, record)

    assert reasons("card-reassessment-requests", [b"card-2", b"card-001732"], value) == ["KEY_MISMATCH"] * 2


def test_whoever_sends_labels_here_sends_the_right_key():
    traffic = simulate(50, 40, 3, 1_767_225_600_000)
    fraud = np.arange(len(traffic)) % 97 == 0
    for truth in (simulated_truth(traffic, 1), recorded_truth(traffic.columns, fraud)):
        assert len(truth) > 5
        for key, value in zip(truth.keys, truth.values, strict=True):
            assert key == key_of("fraud-labels", decode_record(value)[1])


def test_ids_are_written_as_everybody_writes_them():
    ids = [uuid.UUID(int=i * 0x123456789ABCDEF0FEDCBA987654321 % 2**128) for i in range(50)]
    columns = np.frombuffer(b"".join(i.bytes for i in ids), np.uint8).reshape(-1, 16)

    assert uuid_text(columns).tolist() == [str(i).encode() for i in ids]
    assert uuid_text(columns[:0]).tolist() == []
