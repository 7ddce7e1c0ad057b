"""No text of any topic that a service reads brings a card number in, and none is left in the dead letter of what does."""

from __future__ import annotations

import json
import uuid

import numpy as np
import pytest

from services.codec.records import decode_record, encode_record
from services.codec.schemas import topics
from services.core.validation import Reject
from services.paths import data_folder
from services.registry import BY_NAME, BY_TOPIC, load
from services.streams import Records
from services.topology import edges
from services.worker.dead_letters import encode_dead_letters

NOW_MS = 1_767_225_600_000 + 3_600_000
PROCESSORS = {topic: load(log.processor)() for topic, log in BY_TOPIC.items()}
KEYS = {topic: topics()[topic].key for topic in BY_TOPIC}
CLOSED = {"currency", "billing_currency", "country", "home_country"}
"""Codes of closed lists: a card number is none of them, and refused as such."""
SPELLINGS = ("4111111111111111", "4111--1111--1111--1111", "pan4111.1111.1111.1111", "4111  1111  1111  1111x")


def strings_of(topic: str) -> list[str]:
    fields = topics()[topic].latest.definition["fields"]
    return [f["name"] for f in fields if f["type"] == "string" or f["type"] == ["null", "string"]]


def example_of(topic: str) -> dict:
    record = json.loads(min(data_folder("schemas").glob(f"{topic}/examples/*.json")).read_text())
    record["transaction_id"] = uuid.UUID(int=7).bytes
    if topic == "card-reassessment-requests":
        record |= {"transaction": transaction(), "card_id": "card-001732"}
    return {f["name"]: record[f["name"]] for f in topics()[topic].latest.definition["fields"]}


def transaction(**changes: str) -> bytes:
    record = json.loads((data_folder("schemas") / "card-transactions/examples/contactless-purchase.json").read_text())
    ready = record | {"transaction_id": uuid.UUID(int=7).bytes, "card_id": "card-001732"} | changes
    return encode_record(topics()["card-transactions"].latest, ready)


def refused(topic: str, record: dict) -> tuple[Reject, bytes]:
    """Return why a record is refused, and everything that its dead letter says of it."""
    key = record[KEYS[topic]]
    raw = key.encode() if isinstance(key, str) else str(uuid.UUID(bytes=key)).encode()
    value = encode_record(topics()[topic].latest, record)
    records = Records(topic, np.zeros(1, np.int64), np.zeros(1, np.int64), np.full(1, NOW_MS), [raw], [value])
    status = PROCESSORS[topic].prepare(records, np.zeros(1, np.int64)).status
    if status[0] == Reject.NONE:
        return Reject.NONE, b""
    output = encode_dead_letters(records, np.zeros(1, np.int64), status, NOW_MS)
    letter = decode_record(output.values[0])[1]
    return Reject(int(status[0])), (letter["key"] or b"") + b"\0" + letter["value"]


def test_every_topic_that_a_service_reads_is_looked_at():
    # What archivers leave out is looked at in tests/lake, what auditors do in tests/auditor.
    read = {topic for _, topic, consumer in edges() if consumer in BY_NAME and consumer not in ("archiver", "auditor")}

    assert read - {"rule-sets", "model-releases"} == PROCESSORS.keys()


@pytest.mark.parametrize("topic", sorted(PROCESSORS))
def test_the_example_that_the_others_are_made_of_is_accepted(topic):
    assert refused(topic, example_of(topic))[0] == Reject.NONE


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(("topic", "field"), [(t, f) for t in sorted(PROCESSORS) for f in strings_of(t)])
def test_no_text_of_a_topic_brings_a_card_number_in(topic, field, spelling):
    reason, left = refused(topic, example_of(topic) | {field: spelling})

    assert reason == Reject.CARD_NUMBER if field not in CLOSED else reason != Reject.NONE
    assert not any(digits in left for digits in (b"4111", b"1111"))


@pytest.mark.parametrize("field", ["customer_id", "account_id", "terminal_id", "merchant_id", "device_id"])
def test_nor_does_the_transaction_within_a_request(field):
    record = example_of("card-reassessment-requests") | {"transaction": transaction(**{field: SPELLINGS[1]})}

    reason, left = refused("card-reassessment-requests", record)

    assert reason == Reject.CARD_NUMBER
    assert b"1111" not in left


@pytest.mark.parametrize("topic", ["accounts", "customers"])
def test_nor_does_json_of_a_change_however_it_is_escaped(topic):
    record = example_of(topic) | {KEYS[topic]: SPELLINGS[1]}
    reported = json.dumps({"op": "u", "after": record}).replace("4111", "\\u0034\\u0031\\u00311").encode()
    key = SPELLINGS[1].encode()
    records = Records(topic, np.zeros(1, np.int64), np.zeros(1, np.int64), np.full(1, NOW_MS), [key], [reported])

    status = PROCESSORS[topic].prepare(records, np.zeros(1, np.int64)).status
    letter = decode_record(encode_dead_letters(records, np.zeros(1, np.int64), status, NOW_MS).values[0])[1]

    assert status[0] == Reject.CARD_NUMBER
    assert letter["masked"]
    assert b"1111" not in letter["key"] + letter["value"]
    assert b"\\u0034" not in letter["value"]
