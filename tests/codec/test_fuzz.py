"""Every decoder of the system against whatever a topic may hold: it gives each record a verdict, and raises nothing but its own error."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import services.codec
from services.checker.card_numbers import holds_card_number
from services.codec.audit_events import AuditEvent, decode_audit_event
from services.codec.json_values import UnfitError, fit, read_object
from services.codec.reading import ColumnarReader, Decoded
from services.codec.reassessments import REQUESTS, decode_requests
from services.codec.records import UndecodableError, decode_as_newest, decode_record, encode_record
from services.codec.reference import ACCOUNTS, CUSTOMERS, DELETED, KEY_FIELDS, decode_change
from services.codec.rule_sets import RULE_SETS, VERSIONS_MAX, rule_set_of
from services.codec.schemas import Schema, topics
from services.codec.terminal_events import LABELS, decode_labels, decode_terminal_events
from services.codec.terminal_events import TOPIC as TERMINALS
from services.codec.transactions import TOPIC as TRANSACTIONS
from services.codec.transactions import decode_transactions
from services.core.rules.engine import RuleEngine
from services.core.rules.syntax import RuleError
from services.core.validation import Reject
from services.decision.rule_sets import RuleSetLog, runnable
from services.offline.replay.redrive import Redrive, Redriven
from services.streams import Records
from services.worker.dead_letters import DEAD_LETTERS
from services.worker.excluded import letters_of
from tests.codec.fuzzing import avro_values, examples_of, good_values, json_values

FUZZED = settings(max_examples=100, suppress_health_check=list(HealthCheck))
COLUMNAR: dict[str, tuple[str, Callable[[Sequence[bytes | None]], tuple[Any, Any, Any]]]] = {
    "decode_transactions": (TRANSACTIONS, decode_transactions),
    "decode_terminal_events": (TERMINALS, decode_terminal_events),
    "decode_labels": (LABELS, decode_labels),
    "decode_requests": (REQUESTS, decode_requests),
}
ONE_BY_ONE = {"decode_change", "decode_record", "decode_as_newest", "decode_audit_event"}
"""Decoders of single records, each with a test of its own."""
OF_BYTES = {
    Reject.NONE, Reject.EMPTY, Reject.TOO_LARGE, Reject.BAD_FRAMING, Reject.UNKNOWN_FINGERPRINT, Reject.WRONG_SCHEMA, Reject.MALFORMED,
    Reject.TRAILING_BYTES, Reject.INVALID_UTF8, Reject.CARD_NUMBER,
}  # fmt: skip


def test_every_decoder_is_fuzzed():
    found = set()
    for module in pkgutil.iter_modules(services.codec.__path__):
        members = inspect.getmembers(importlib.import_module(f"services.codec.{module.name}"), inspect.isfunction)
        found |= {name for name, one in members if name.startswith("decode_") and one.__module__.endswith(module.name)}

    assert found == COLUMNAR.keys() | ONE_BY_ONE


def agrees(read: Decoded, schema: Schema, values: Sequence[bytes | None]) -> None:
    """Assert that what a columnar reader took for good is what fastavro reads of it."""
    for row, at in enumerate(read.rows.tolist()):
        record = decode_as_newest(values[at] or b"")[1]
        for field in schema.definition["fields"]:
            name, said = field["name"], record[field["name"]]
            if said is None:
                assert read.is_null(name)[row] or np.isnan(read.floats(name)[row])
            elif isinstance(said, bool | int) and not isinstance(said, float):
                assert read.integers(name)[row] == said
            elif isinstance(said, float):
                np.testing.assert_array_equal(read.floats(name)[row], said)
            elif isinstance(said, bytes):
                assert read.text(name).tolist()[row] == said
            elif isinstance(said, str) and name not in _enums(schema):
                assert read.text(name).tolist()[row] == said.encode()


def _enums(schema: Schema) -> set[str]:
    return {f["name"] for f in schema.definition["fields"] if "enum" in json.dumps(f["type"])}


@pytest.mark.parametrize("name", sorted(COLUMNAR))
@given(data=st.data())
@FUZZED
def test_a_columnar_decoder_gives_every_record_a_verdict_and_agrees_with_fastavro(name: str, data: st.DataObject):
    topic, decode = COLUMNAR[name]
    values = data.draw(st.lists(avro_values(topic), min_size=1, max_size=6))

    columns, rows, status = decode(values)

    assert len(status) == len(values)
    assert set(status.tolist()) <= OF_BYTES
    assert rows.tolist() == np.flatnonzero(status == Reject.NONE).tolist()
    assert len(columns) == len(rows)
    assert [int(decode([value])[2][0]) for value in values] == status.tolist(), "a neighbour matters"
    agrees(
        ColumnarReader.of(topics()[topic]).read(values),
        topics()[topic].latest,
        values,
    )
    event(f"good: {len(rows) > 0}")


@pytest.mark.parametrize("name", sorted(COLUMNAR))
@given(data=st.data())
@FUZZED
def test_what_fits_the_schema_is_decoded_whatever_its_fields_hold(name: str, data: st.DataObject):
    topic, decode = COLUMNAR[name]
    value = data.draw(good_values(topic))
    texts = [said for said in decode_record(value)[1].values() if isinstance(said, str)]
    # Those of transactions and terminal events are looked at by their validation.
    refused = name in ("decode_labels", "decode_requests") and any(map(holds_card_number, texts))

    assert decode([value])[2].tolist() == [Reject.CARD_NUMBER if refused else Reject.NONE]


@pytest.mark.parametrize("topic", sorted(topics()))
@given(data=st.data())
@FUZZED
def test_the_decoder_of_single_records_raises_nothing_but_its_own_error(topic: str, data: st.DataObject):
    value = data.draw(avro_values(topic))
    try:
        schema, record = decode_record(value or b"")
    except UndecodableError:
        return

    assert {field["name"] for field in schema.definition["fields"]} == record.keys()


@pytest.mark.parametrize("topic", [ACCOUNTS, CUSTOMERS])
@given(data=st.data())
@settings(FUZZED, max_examples=300)
def test_a_change_is_held_or_refused_whatever_comes(topic: str, data: st.DataObject):
    key = examples_of(topic)[0][KEY_FIELDS[topic]].encode()
    value = data.draw(json_values(topic) | avro_values(topic))

    held, status = decode_change(topic, data.draw(st.sampled_from([key, b"", b"\xff", b"other"])), value)

    assert isinstance(held, bytes)
    assert status in Reject
    assert status == Reject.NONE or held == DELETED
    event(f"{status.name} {'json' if (value or b'').startswith(b'{') else 'avro'}")


@pytest.mark.parametrize("topic", [ACCOUNTS, CUSTOMERS])
@given(data=st.data())
@settings(FUZZED, max_examples=300)
def test_json_is_taken_for_a_record_exactly_where_fastavro_takes_it(topic: str, data: st.DataObject):
    """Or where it is more than fastavro looks at: a name that is said twice, a text that is none, NaN."""
    value = data.draw(json_values(topic))
    schema = topics()[topic].latest
    try:
        reported = read_object(value)
        record = fit(schema.definition, reported.get("payload", reported)["after"])
    except (UnfitError, KeyError, TypeError):
        return

    written = encode_record(schema, record)

    assert fastavro.validate(record, schema.parsed, raise_errors=False, strict=True)
    read = decode_record(written)[1]
    assert repr(read) == repr(record)
    key = record[KEY_FIELDS[topic]].encode()
    change = json.dumps({"op": "u", "after": record}).encode()
    assert decode_change(topic, key, change) == decode_change(topic, key, written)


EXPRESSIONS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["(", "not ", "-", "[", "1 + (", "x in ["]).flatmap(
        lambda part: st.integers(1, 2_000).map(lambda n: part * n)
    ),
    st.lists(
        st.sampled_from(
            [
                "(",
                ")",
                "and",
                "or",
                "not",
                "in",
                "==",
                "<",
                ">",
                "+",
                "-",
                "*",
                "/",
                "1",
                "0",
                "1e400",
                "'a'",
                "transaction.amount",
                "card.count",
                "[",
                "]",
                ",",
                ".",
            ]
        ),
        max_size=12,
    ).map(" ".join),
)


@given(EXPRESSIONS, st.integers(-(2**63), 2**63 - 1))
@FUZZED
def test_a_rule_set_of_any_expression_is_run_or_refused(when: str, version: int):
    saved = next(one for one in examples_of(RULE_SETS) if one["kind"] == "SAVED")
    rules = [rule | {"when": when.encode(errors="replace").decode()} for rule in saved["rules"]]
    try:
        assert isinstance(runnable({version: saved | {"rules": rules}}, version), RuleEngine)
    except RuleError:
        return


@given(st.lists(avro_values(RULE_SETS), max_size=6))
@FUZZED
def test_announced_rule_sets_are_run_or_refused(values: list[bytes | None]):
    log = RuleSetLog()
    log.add(values)
    assert set(log.saved) <= set(range(1, VERSIONS_MAX + 1))
    for version, saved in log.saved.items():
        try:
            assert isinstance(runnable(log.saved, version), RuleEngine)
            rule_set_of(saved)
        except RuleError:
            continue


def dead(values: list[bytes | None]) -> Records:
    n = len(values)
    return Records(DEAD_LETTERS, np.zeros(n, np.int64), np.arange(n), np.zeros(n, np.int64), [None] * n, values)


@given(st.lists(avro_values(DEAD_LETTERS), max_size=6))
@FUZZED
def test_dead_letters_are_sent_again_or_passed_over(values: list[bytes | None]):
    done = Redriven()
    outputs = Redrive(None, None, frozenset(), 10).select(dead(values), done)  # type: ignore[arg-type]

    assert sum(len(one.values) for one in outputs) == sum(done.sent.values())
    assert sum(done.sent.values()) + sum(done.passed.values()) == len(values)
    assert len(list(letters_of(dead(values)))) <= len(values)


@FUZZED
@given(st.binary(max_size=60) | st.just(b"card-1"), st.data())
def test_an_audit_event_is_read_or_refused(key: bytes, data: st.DataObject):
    good = AuditEvent("card-1", "TRANSACTION", 0, 1, 2, 0, None).encode()
    cut = data.draw(st.integers(0, len(good[1] or b"")))
    value = data.draw(st.sampled_from([None, good[1], (good[1] or b"")[:cut]]) | st.binary(max_size=200))
    event, status = decode_audit_event(key, value)
    assert (event is None) == (status is not Reject.NONE)
    if event is not None:
        assert event.card_id.encode() == key
