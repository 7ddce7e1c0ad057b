"""The columnar codec against fastavro, the reference: what it writes, what it reads, and what it refuses."""

from __future__ import annotations

import io
import json
import struct

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.codec.program import compile_program
from services.codec.reading import ColumnarReader
from services.codec.records import UndecodableError, decode_record, encode_record
from services.codec.schemas import MAGIC, Schema, frame_header, topics
from services.codec.transactions import TOPIC, decode_transactions, encode_transactions
from services.codec.utf8 import valid_utf8
from services.codec.writing import ColumnarWriter
from services.core.columns import ENTRY_MODES, Text, unpack_code
from services.core.validation import Reject
from tests.generators import random_events, to_columns

LONGS = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, -1, 63, 64, -64, -65, 2**31, -(2**63), 2**63 - 1])
)


def make_schema(fields: list[dict]) -> Schema:
    definition = {"type": "record", "name": "Probe", "fields": fields}
    return Schema("probe", 1, definition, fastavro.parse_schema(definition), frame_header(definition))


def test_the_fingerprint_is_the_one_of_the_avro_specification():
    assert frame_header("int") == MAGIC + (0x7275D51A3F395C8F).to_bytes(8, "little")


def test_what_the_kernel_writes_fastavro_reads():
    columns = to_columns(random_events(1, 300))

    records = [decode_record(value)[1] for value in encode_transactions(columns)]

    assert [r["card_id"].encode() for r in records] == columns.card_id.tolist()
    assert [r["event_time_ms"] for r in records] == columns.event_time_ms.tolist()
    assert [r["country"] for r in records] == [unpack_code(c) for c in columns.country]
    assert [ENTRY_MODES.index(r["entry_mode"]) for r in records] == columns.entry_mode.tolist()
    assert [r["latitude"] is None for r in records] == np.isnan(columns.latitude).tolist()
    assert all(r["device_id"] is None for r in records)


def test_what_fastavro_writes_the_kernel_reads():
    columns = to_columns(random_events(2, 300))
    schema = topics()[TOPIC].latest
    values = [encode_record(schema, decode_record(v)[1]) for v in encode_transactions(columns)]

    read, rows, status = decode_transactions(values)

    assert rows.tolist() == list(range(300))
    assert not status.any()
    assert read.terminal_id.tolist() == columns.terminal_id.tolist()
    np.testing.assert_array_equal(read.latitude, columns.latitude)
    np.testing.assert_array_equal(read.billing_amount_minor, columns.billing_amount_minor)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "a": LONGS,
                "b": st.none() | st.text(min_size=1, max_size=20),
                "c": st.none() | st.floats(allow_nan=False),
                "d": st.booleans(),
                "e": st.integers(-(2**31), 2**31 - 1),
                "f": st.lists(st.floats(allow_nan=False), min_size=3, max_size=3),
                "g": st.binary(min_size=4, max_size=4),
            }
        ),
        min_size=1,
        max_size=20,
    )
)
def test_any_values_survive_both_ways(rows):
    schema = make_schema(
        [
            {"name": "a", "type": "long"},
            {"name": "b", "type": ["string", "null"]},
            {"name": "c", "type": ["null", "double"]},
            {"name": "d", "type": "boolean"},
            {"name": "e", "type": "int"},
            {"name": "f", "type": {"type": "array", "items": "double"}},
            {"name": "g", "type": {"type": "fixed", "name": "G", "size": 4}},
        ]
    )
    n = len(rows)
    columns = {
        "a": np.array([r["a"] for r in rows]),
        "b": Text.of([(r["b"] or "").encode() for r in rows]),
        "c": np.array([np.nan if r["c"] is None else r["c"] for r in rows], np.float64),
        "d": np.array([r["d"] for r in rows]),
        "e": np.array([r["e"] for r in rows]),
        "f": np.array([r["f"] for r in rows], np.float64),
        "g": np.frombuffer(b"".join(r["g"] for r in rows), np.uint8).reshape(n, 4),
    }

    written = ColumnarWriter(schema).write(columns, n)

    assert [fastavro.schemaless_reader(io.BytesIO(v[10:]), schema.parsed, None) for v in written] == rows
    read = ColumnarReader(schema, 10_000).read(written)
    assert not read.status.any()
    assert read.integers("a").tolist() == [r["a"] for r in rows]
    assert read.text("b").tolist() == [(r["b"] or "").encode() for r in rows]
    assert read.is_null("c").tolist() == [r["c"] is None for r in rows]
    np.testing.assert_array_equal(read.vectors("f", 3), columns["f"])


@given(st.lists(st.tuples(st.floats(width=64), st.floats(width=64), st.integers(-(2**63), 2**63 - 1)), max_size=20))
def test_numbers_come_out_with_all_their_bits(rows):
    schema = make_schema(
        [{"name": "a", "type": "double"}, {"name": "b", "type": ["null", "double"]}, {"name": "c", "type": "long"}]
    )
    a, b, c = (np.array([row[at] for row in rows], kind) for at, kind in enumerate((np.float64, np.float64, np.int64)))

    read = ColumnarReader(schema, 1_000).read(ColumnarWriter(schema).write({"a": a, "b": b, "c": c}, len(rows)))

    assert read.floats("a").tobytes() == a.tobytes()
    assert np.array_equal(read.floats("b"), b, equal_nan=True)
    np.testing.assert_array_equal(read.integers("c"), c)


def test_damaged_bytes_never_pass_where_fastavro_refuses_and_never_touch_their_neighbours():
    rng = np.random.default_rng(11)
    good = encode_transactions(to_columns(random_events(3, 400)))
    values: list[bytes | None] = list(good)
    damaged = rng.choice(400, 200, replace=False)
    for i in damaged:
        values[i] = _damage(rng, good[i])

    _, _, status = decode_transactions(values)

    intact = np.setdiff1d(np.arange(400), damaged)
    assert not status[intact].any()
    assert status[damaged].any()
    for i in damaged:
        if status[i] == Reject.NONE:
            decode_record(values[i] or b"")  # fastavro must agree that it is a record


def _damage(rng: np.random.Generator, value: bytes) -> bytes:
    raw = bytearray(value)
    kind = int(rng.integers(0, 5))
    if kind == 0:
        return bytes(raw[: int(rng.integers(0, len(raw)))])
    if kind == 1:
        return bytes(raw) + rng.bytes(int(rng.integers(1, 9)))
    if kind == 2:
        return rng.bytes(int(rng.integers(0, 200)))
    for _ in range(kind):
        raw[int(rng.integers(0, len(raw)))] ^= 1 << int(rng.integers(0, 8))
    return bytes(raw)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, Reject.EMPTY),
        (b"", Reject.EMPTY),
        (b"\xc3", Reject.MALFORMED),
        (b"\xc3\x01abc", Reject.MALFORMED),
        (b'{"card_id": "card-1"}', Reject.BAD_FRAMING),
        (MAGIC + b"unknown!" + b"x" * 50, Reject.UNKNOWN_FINGERPRINT),
        (topics()["fraud-labels"].latest.header + b"x" * 50, Reject.WRONG_SCHEMA),
        (topics()[TOPIC].latest.header, Reject.MALFORMED),
        (b"\xc3\x01" + b"\x00" * 9_000, Reject.TOO_LARGE),
    ],
)
def test_each_kind_of_bad_bytes_has_its_reason(value, reason):
    good = encode_transactions(to_columns(random_events(4, 2)))

    _, rows, status = decode_transactions([good[0], value, good[1]])

    assert status.tolist() == [Reject.NONE, reason, Reject.NONE]
    assert rows.tolist() == [0, 2]


def test_trailing_bytes_and_invalid_utf8_are_reported_apart():
    value = encode_transactions(to_columns(random_events(4, 1)))[0]
    broken = value.replace(b"card-", b"\xff\xfe\xfd\xfc-")

    assert decode_transactions([value + b"\x00"])[2][0] == Reject.TRAILING_BYTES
    assert decode_transactions([broken])[2][0] == Reject.INVALID_UTF8


def test_a_nan_that_was_sent_does_not_pass_for_a_missing_position():
    columns = to_columns([e for e in random_events(5, 40) if e.latitude is not None][:1])
    value = encode_transactions(columns)[0]
    sent = value.replace(struct.pack("<d", columns.latitude[0]), struct.pack("<d", float("nan")))

    read, _, status = decode_transactions([sent])

    assert not status.any()
    assert np.isinf(read.latitude[0])


@given(st.binary(max_size=12))
def test_utf8_is_judged_as_python_does(raw):
    try:
        raw.decode("utf-8")
        expected = True
    except UnicodeDecodeError:
        expected = False

    assert valid_utf8(np.frombuffer(raw, np.uint8), 0, len(raw)) == expected


def test_an_array_that_claims_more_items_than_bytes_is_refused_at_once():
    schema = topics()["card-decisions"].latest
    bomb = schema.header + b"\x00" * 32 + b"\x02a" * 5 + b"\xff" * 9 + b"\x01"

    assert ColumnarReader(schema, 10_000).read([bomb]).status[0] == Reject.MALFORMED


def test_a_type_that_the_kernels_do_not_know_is_refused_when_the_program_is_made():
    with pytest.raises(ValueError, match="does not support"):
        compile_program({"fields": [{"name": "a", "type": {"type": "map", "values": "long"}}]})


def test_the_reference_refuses_trailing_bytes_and_unknown_framing():
    value = encode_transactions(to_columns(random_events(4, 1)))[0]

    for bad in (value + b"\x00", value[:-1], b"", json.dumps({}).encode()):
        with pytest.raises(UndecodableError):
            decode_record(bad)
