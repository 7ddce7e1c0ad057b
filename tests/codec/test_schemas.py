"""The contract in schemas/: every example is accepted, every rejected one is refused for its reason."""

from __future__ import annotations

import io
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
import yaml

from services.checker.oracle import home_of
from services.codec.reassessments import REQUESTS
from services.codec.records import decode_record, encode_record
from services.codec.reference import KEY_FIELDS, decode_change
from services.codec.schemas import HEADER_BYTES, SCALES, _load_topic, topics
from services.codec.transactions import TOPIC, decode_transactions
from services.core.card.windows import DEGRADATIONS
from services.core.columns import Text
from services.core.validation import Reject, validate
from services.paths import data_folder
from services.registry import BY_TOPIC, load
from services.runtime.settings import SETTINGS, resolve_settings
from services.streams import Records
from services.streams.memory import MemoryLog
from services.streams.memory_places import MemoryPlaces
from services.topology import edges, topic_plans
from tests.worker.memory_system import nothing_known

SCHEMAS = data_folder("schemas")
EXAMPLES = sorted(SCHEMAS.glob("*/examples/*.json"))
_REJECTED = sorted(SCHEMAS.glob("*/examples/rejected/*.json"))
REJECTED_KEYS = [path for path in _REJECTED if "key" in json.loads(path.read_text())]
"""Good records under a wrong key, or none."""
REJECTED = [path for path in _REJECTED if path not in REJECTED_KEYS]
SERVICES = {topic: load(log.processor)() for topic, log in BY_TOPIC.items() if topic != TOPIC}
NOW_MS = 1_767_225_600_000 + 3_600_000


def to_record(example: dict) -> dict:
    ready = {}
    for name, value in example.items():
        is_uuid = isinstance(value, str) and name in ("transaction_id", "decision_id")
        ready[name] = uuid.UUID(value).bytes if is_uuid else value
        if name in ("key", "value", "transaction") and isinstance(value, str):
            ready[name] = value.encode("latin-1")
    return ready


def with_defaults(topic: str, record: dict) -> dict:
    """Return a record with what it leaves out that has a default: an example need not be changed because a field was added."""
    fields = topics()[topic].latest.definition["fields"]
    return {field["name"]: field["default"] for field in fields if "default" in field} | record


def partition_said(topic: str, record: dict, example: dict) -> tuple[int, int]:
    """Where an example lies, and of how many partitions: where its key belongs if it does not say."""
    partitions, key = example.get("partitions", 6), record[topics()[topic].key].encode()
    return example.get("partition", home_of(key, partitions)), partitions


def verdict_of_service(topic: str, value: bytes, record: dict, example: dict) -> Reject:
    """What a service makes of one record; what a request points to is looked for in an empty log, and has been waited for."""
    partition, partitions = partition_said(topic, record, example)
    key, one, at = record[topics()[topic].key].encode(), np.ones(1, bool), np.full(1, NOW_MS)
    records = Records(topic, np.full(1, partition), np.zeros(1, np.int64), at, [key], [value], partitions)
    processor = SERVICES[topic]
    prepared = processor.prepare(records, np.zeros(1, np.int64))
    found = nothing_known(prepared)
    for pointed, places in prepared.places.items():
        lies = MemoryPlaces(MemoryLog(partitions)).read(pointed, places.partition, places.offset)
        found[pointed] = replace(found[pointed], places=lies)
    rejected = processor.decide(prepared, [None] * len(prepared.cards), found, one, NOW_MS).rejected
    return Reject(int(rejected[0])) if len(rejected) else Reject.NONE


def verdict_of_json(topic: str, record: dict) -> Reject:
    """What the reference service makes of a change as JSON, which can say what Avro cannot."""
    change = json.dumps({"op": "u", "after": record}).encode()
    return decode_change(topic, str(record[KEY_FIELDS[topic]]).encode(errors="replace"), change)[1]


def verdict(topic: str, record: dict, example: dict | None = None) -> Reject:
    """What becomes of a record: transactions go through the scorer's own checks, others through their schema and their service."""
    if topic == REQUESTS and example is not None:
        purchase = json.loads((SCHEMAS / TOPIC / "examples" / "contactless-purchase.json").read_text())
        record = record | {
            "transaction": encode_record(topics()[TOPIC].latest, with_defaults(TOPIC, to_record(purchase))).decode(
                "latin-1"
            )
        }
    if topic in KEY_FIELDS and (why := verdict_of_json(topic, record)) != Reject.NONE:
        return why
    try:
        value = encode_record(topics()[topic].latest, with_defaults(topic, to_record(record)))
        decode_record(value)
    except (ValueError, TypeError, KeyError):
        return Reject.MALFORMED
    if topic in SERVICES and (topic != REQUESTS or example is not None):
        return verdict_of_service(topic, value, record, example or {})
    if topic != TOPIC:
        return Reject.NONE
    columns, rows, status = decode_transactions([value])
    if len(rows):
        keys = Text.of([record["card_id"].encode()])
        status = validate(columns, keys, np.ones(1, bool), np.full(1, NOW_MS))
    return Reject(int(status[0]))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: f"{p.parts[-3]}/{p.stem}")
def test_every_example_is_accepted(path: Path):
    assert verdict(path.parts[-3], json.loads(path.read_text())) == Reject.NONE


@pytest.mark.parametrize("path", REJECTED, ids=lambda p: f"{p.parts[-4]}/{p.stem}")
def test_every_rejected_example_is_refused_for_its_reason(path: Path):
    example = json.loads(path.read_text())

    assert verdict(path.parts[-4], example["record"], example) == Reject[example["reason"]]


RENAMED = {
    alias: field["name"]
    for topic in topics().values()
    for field in topic.latest.definition["fields"]
    for alias in field.get("aliases", ())
}
"""By what fields were called, what they are called."""


def fitted(value, schema):
    """Return of a value what a schema knows."""
    if isinstance(schema, dict) and schema["type"] == "record":
        now = {name: RENAMED.get(name, name) for name in (field["name"] for field in schema["fields"])}
        return {field["name"]: fitted(value[now[field["name"]]], field["type"]) for field in schema["fields"]}
    if isinstance(schema, dict) and schema["type"] == "array":
        return [fitted(one, schema["items"]) for one in value]
    if value is None and isinstance(schema, str):
        return {"double": 0.0, "string": ""}[schema]  # what could not be missing before
    if isinstance(schema, dict) and schema["type"] == "enum" and value not in schema["symbols"]:
        return schema["symbols"][0]
    return value


OLD_EXAMPLES = [
    (older, path)
    for topic in topics().values()
    for older in topic.versions[:-1]
    for path in EXAMPLES
    if path.parts[-3] == topic.name
]


@pytest.mark.parametrize(("older", "path"), OLD_EXAMPLES, ids=lambda p: getattr(p, "stem", None) or f"v{p.version}")
def test_a_new_version_of_a_schema_reads_the_records_of_every_older_one(older, path: Path):
    example = with_defaults(older.topic, to_record(json.loads(path.read_text())))
    known = fitted(example, older.definition)
    written = encode_record(older, known)
    newest = topics()[older.topic].latest

    read = fastavro.schemaless_reader(io.BytesIO(written[HEADER_BYTES:]), older.parsed, newest.parsed)

    assert fitted(read, older.definition) == known
    assert read.keys() == {field["name"] for field in newest.definition["fields"]}
    assert decode_record(written)[0] == older


@pytest.mark.parametrize("name", sorted(topics()))
def test_every_topic_has_examples_and_rejected_ones_and_a_name_without_dots(name: str):
    assert any(p.parts[-3] == name for p in EXAMPLES)
    assert any(p.parts[-4] == name for p in REJECTED)
    assert re.fullmatch(r"[a-z-]+", name)


def test_the_reject_reasons_and_degraded_marks_are_those_of_the_schemas():
    fields = {f["name"]: f["type"] for f in topics()["dead-letters"].latest.definition["fields"]}
    decision = {f["name"]: f["type"] for f in topics()["card-decisions"].latest.definition["fields"]}

    assert fields["reason"]["symbols"] == [*(r.name for r in Reject if r != Reject.NONE), OTHER]
    assert decision["degraded"]["items"]["symbols"] == [*DEGRADATIONS, OTHER]


OTHER = "OTHER"
GROWING = {
    "AlertKind",
    "DecisionSource",
    "DeclineReason",
    "Degraded",
    "FallbackTier",
    "RejectReason",
    "TransactionClass",
}
"""Enums that get symbols as the services learn: a version that does not know one reads OTHER, so that one may be added."""


def enums_of(definition: Any) -> Iterator[dict[str, Any]]:
    if isinstance(definition, dict):
        if definition.get("type") == "enum":
            yield definition
        for value in definition.values():
            yield from enums_of(value)
    elif isinstance(definition, list):
        for one in definition:
            yield from enums_of(one)


def test_enums_that_grow_have_a_symbol_for_what_a_version_does_not_know():
    found = [
        enum for topic in topics().values() for enum in enums_of(topic.latest.definition) if enum["name"] in GROWING
    ]

    assert {enum["name"] for enum in found} == GROWING
    assert {(enum["default"], enum["symbols"][-1]) for enum in found} == {(OTHER, OTHER)}


@pytest.mark.parametrize(
    "change",
    [
        {"partitions": 0},
        {"retention_days": 0},
        {"surprise": 1},
        {"record_bytes_max": 10**9},
        {"producers": None},
        {"scaled_by": "x"},
    ],
)
def test_a_topic_that_is_described_wrongly_is_refused(tmp_path: Path, change: dict):
    folder = tmp_path / "card-alerts"
    folder.mkdir()
    described = yaml.safe_load((SCHEMAS / "card-alerts" / "topic.yaml").read_text()) | change
    (folder / "topic.yaml").write_text(yaml.safe_dump(described))
    (folder / "v1.avsc").write_text((SCHEMAS / "card-alerts" / "v1.avsc").read_text())

    with pytest.raises((ValueError, TypeError)):
        _load_topic(folder)


def test_partitions_come_from_the_setting_that_a_topic_names_and_some_may_have_others():
    counts = resolve_settings({"partitions": 5, "terminal_partitions": 4, "decision_partitions": 3}, {}).topic_counts
    plans = {plan.name: (plan.partitions, plan.strict) for plan in topic_plans(counts)}
    kept = ("card-transactions", "accounts", "customers", "fraud-labels")
    results = ("card-decisions", "card-alerts", "card-reassessment-requests", "card-reassessments")

    assert {name: plans[name] for name in kept} == dict.fromkeys(kept, (5, True))
    assert {name: plans[name] for name in results} == dict.fromkeys(results, (3, False))
    assert plans["terminal-events"] == (4, False)
    assert plans["dead-letters"] == (1, True)
    assert tuple(counts) == SCALES
    assert all(t.partitions == SETTINGS[t.scaled_by].default for t in topics().values() if t.scaled_by)


def test_the_topology_names_the_scorer_on_both_sides():
    assert ("simulator", "card-transactions", "scorer") in edges()
    assert {topic for producer, topic, _ in edges() if producer == "scorer"} == {
        "card-decisions",
        "card-alerts",
        "dead-letters",
        "terminal-events",
        "card-reassessment-requests",
        "rule-set-acks",
        "model-releases",
        "model-release-acks",
        "shadow-decisions",
    }
