"""Records of every version of a schema, in one batch: each is read as the newest, as fastavro resolves it."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from fastavro.schema import parse_schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.checker.oracle import Schemas
from services.codec.program import compile_program
from services.codec.reading import ColumnarReader, Decoded
from services.codec.records import UndecodableError, decode_as_newest, encode_record, encode_written
from services.codec.reference import ACCOUNTS, decode_change
from services.codec.resolution import ByColumn, ByRecord, resolution_of, whole
from services.codec.schemas import HEADER_BYTES, MAGIC, Schema, frame_header, topics
from services.codec.transactions import TOPIC, decode_transactions, encode_transactions
from services.core.validation import Reject
from tests.codec.compatibility import why_not_read
from tests.codec.fuzzing import examples_of, values_of, values_of_schema
from tests.codec.growing import add_field, encoded_as_first, grown_folder, reading
from tests.codec.test_schemas import fitted
from tests.generators import random_events, to_columns

FORWARD_SINCE = {
    "card-alerts": 6,
    "card-decisions": 7,
    "card-reassessment-requests": 2,
    "card-reassessments": 3,
    "dead-letters": 3,
}
"""Versions before these gave fields of older ones no default, enums new symbols and no default, or fields and types other names, while nobody ran
this yet (decision 81): what is written since is not read by what was written before. From here on a version is compatible both ways; a topic that
is not here is from its first version on."""
BYTES_MAX = 1_000_000
UNRESOLVED = object()


def pairs(versions: tuple[Schema, ...]) -> list[tuple[Schema, Schema]]:
    return [(a, b) for a in versions for b in versions if a.version < b.version]


@pytest.mark.parametrize("name", sorted(topics()))
def test_every_version_of_a_schema_is_compatible_with_all_others(name: str):
    """FULL_TRANSITIVE: new readers read old records, and old readers new ones, for all pairs of versions."""
    topic = topics()[name]
    count = len(topic.versions)
    assert len(pairs(topic.versions)) == count * (count - 1) // 2
    for versions in (topic.versions, topic.envelopes):
        for older, newer in pairs(versions):
            assert why_not_read(older.definition, newer.definition) == []
            if older.version >= FORWARD_SINCE.get(name, 1):
                assert why_not_read(newer.definition, older.definition) == []


def test_no_version_is_compatible_earlier_than_is_said():
    for name, since in FORWARD_SINCE.items():
        before = [(a, b) for a, b in pairs(topics()[name].versions) if b.version == since]
        assert any(why_not_read(b.definition, a.definition) for a, b in before)


def test_versions_are_numbered_from_one_without_a_gap():
    assert topics()
    for topic in topics().values():
        for versions in (topic.versions, topic.envelopes):
            assert [schema.version for schema in versions] == list(range(1, len(versions) + 1))


CHANGES: dict[str, Any] = {
    "a field without a default is added": lambda fields: fields.append({"name": "wallet", "type": "string"}),
    "a field without a default goes": lambda fields: fields.pop(2),
    "a field is renamed": lambda fields: fields[2].update(name="other", aliases=[fields[2]["name"]]),
    "a number becomes a text": lambda fields: fields[7].update(type="string"),
    "a number becomes longer": lambda fields: fields[6].update(type="long"),
    "what may be missing may not": lambda fields: fields[14].update(type="double", default=0.0),
    "what may not be missing may": lambda fields: fields[2].update(type=["null", "string"], default=None),
    "an enum without a default gets a symbol": lambda fields: fields[12]["type"]["symbols"].append("WALLET"),
    "an enum loses a symbol": lambda fields: fields[12]["type"]["symbols"].pop(),
    "a type is renamed": lambda fields: fields[12]["type"].update(name="HowItWasRead", aliases=["EntryMode"]),
    "a fixed gets another size": lambda fields: fields[0]["type"].update(size=8),
    "a default of bytes": lambda fields: fields.append({"name": "mac", "type": "bytes", "default": "x"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_version_that_is_not_fully_compatible_is_refused(name: str):
    before = topics()[TOPIC].versions[0].definition
    after = copy.deepcopy(before)
    CHANGES[name](after["fields"])

    assert why_not_read(before, after) or why_not_read(after, before)


def test_a_field_with_a_default_may_come_and_go():
    before = topics()[TOPIC].versions[0].definition
    after = copy.deepcopy(before)
    add_field(after)
    after["fields"].pop()  # device_id, which has one

    assert why_not_read(before, after) == why_not_read(after, before) == []


def expected(value: bytes, writer: Schema, reader: Schema) -> Any:
    """What fastavro makes of a record, parsed anew so that nothing is shared with what is tested."""
    try:
        return fastavro.schemaless_reader(
            io.BytesIO(value[HEADER_BYTES:]),
            parse_schema(copy.deepcopy(writer.definition)),
            parse_schema(copy.deepcopy(reader.definition)),
        )
    except Exception:  # noqa: BLE001 - fastavro raises many kinds
        return UNRESOLVED


def said_of(read: Decoded, row: int, field: dict[str, Any]) -> Any:
    """What a columnar reader says of one field of one record, as fastavro would."""
    name, kind = field["name"], field["type"]
    if isinstance(kind, list):
        if read.is_null(name)[row]:
            return None
        [kind] = [one for one in kind if one != "null"]
    plain = kind["type"] if isinstance(kind, dict) else kind
    if plain in ("string", "bytes", "fixed"):
        raw = read.text(name).tolist()[row]
        return raw.decode() if plain == "string" else raw
    if plain == "array":
        if kind["items"] == "double":
            _, lengths, _ = read.cells
            count = int(lengths[read.program.index[name], row])
            start = int(read.cells[0][read.program.index[name], row])
            return np.frombuffer(read.buffer[start : start + 8 * count].tobytes(), "<f8").tolist()
        return fastavro.schemaless_reader(
            io.BytesIO(read.text(name).tolist()[row]), parse_schema(copy.deepcopy(kind)), None
        )
    if plain == "double":
        return float(read.floats(name)[row])
    number = int(read.integers(name)[row])
    return kind["symbols"][number] if plain == "enum" else bool(number) if plain == "boolean" else number


def assert_read_as(reader: Schema, versions: list[Schema], written: list[tuple[Schema, bytes]]) -> None:
    """What a columnar reader makes of a batch is what fastavro makes of each record; what it does not resolve is WRONG_SCHEMA."""
    wanted = [expected(value, schema, reader) for schema, value in written]

    read = ColumnarReader(reader, BYTES_MAX, versions).read([value for _, value in written])

    assert read.status.tolist() == [Reject.WRONG_SCHEMA if one is UNRESOLVED else Reject.NONE for one in wanted]
    fields = whole(reader.definition)["fields"]
    for row, at in enumerate(read.rows.tolist()):
        assert exact({f["name"]: said_of(read, row, f) for f in fields}) == exact(wanted[at])


def exact(value: Any) -> str:
    """Return a value as a text that tells NaN and signs of zero, and no order of fields."""
    if isinstance(value, dict):
        return repr(sorted((name, exact(one)) for name, one in value.items()))
    return repr([exact(one) for one in value] if isinstance(value, list) else value)


def columnar(schema: Schema) -> bool:
    try:
        compile_program(schema.definition)
    except ValueError:
        return False
    return True


@st.composite
def records_of_every_version(draw: st.DrawFn, versions: tuple[Schema, ...]) -> list[tuple[Schema, bytes]]:
    """Return records of every version, each at least once, and in any order."""
    order = draw(st.permutations([*versions, *draw(st.lists(st.sampled_from(versions), max_size=6))]))
    return [(schema, encode_record(schema, draw(values_of_schema(schema.header)))) for schema in order]


@pytest.mark.parametrize("name", sorted(name for name, topic in topics().items() if columnar(topic.latest)))
@given(data=st.data())
@settings(max_examples=20, suppress_health_check=list(HealthCheck))
def test_records_of_every_version_in_one_batch_are_read_as_fastavro_resolves_them(name: str, data: st.DataObject):
    versions = topics()[name].versions

    assert_read_as(versions[-1], list(versions), data.draw(records_of_every_version(versions)))


@pytest.mark.parametrize("name", sorted(topics()))
@given(data=st.data())
@settings(max_examples=20, suppress_health_check=list(HealthCheck))
def test_single_records_of_every_version_are_read_as_fastavro_resolves_them(name: str, data: st.DataObject):
    topic = topics()[name]
    oracle, written = Schemas(name), data.draw(records_of_every_version(topic.versions))
    assert len(written) >= len(topic.versions)
    for schema, value in written:
        wanted = expected(value, schema, topic.latest)
        assert exact(list(decode_as_newest(value))) == exact([schema, wanted])
        assert exact(oracle.decode(value)) == exact(wanted)


@pytest.mark.parametrize("name", sorted(name for name, topic in topics().items() if columnar(topic.latest)))
def test_examples_of_every_version_mixed_at_random_keep_their_places(name: str):
    rng, topic = np.random.default_rng(24), topics()[name]
    written = []
    for at in rng.integers(0, len(topic.versions), 200).tolist():
        schema = topic.versions[at]
        example = examples_of(name)[int(rng.integers(0, len(examples_of(name))))]
        written.append((schema, encode_record(schema, fitted(example, schema.definition))))

    assert_read_as(topic.latest, list(topic.versions), written)


def probe(version: int, fields: list[dict[str, Any]], name: str = "Probe") -> Schema:
    definition = {"type": "record", "name": name, "fields": fields}
    return Schema("probe", version, definition, parse_schema(copy.deepcopy(definition)), frame_header(definition))


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "Colour", "symbols": list(symbols), **more}


def array_of(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "record", "name": "Item", "fields": list(fields)}}


A, B = {"name": "a", "type": "long"}, {"name": "b", "type": "string"}
GROWN: dict[str, tuple[Any, Any, type]] = {
    "int to long": ("int", "long", ByColumn),
    "int to double": ("int", "double", ByColumn),
    "long to double": ("long", "double", ByColumn),
    "nothing or int to nothing or double": (["null", "int"], ["double", "null"], ByColumn),
    "float to double": ("float", "double", ByRecord),
    "string to bytes": ("string", "bytes", ByColumn),
    "bytes to string": ("bytes", "string", ByColumn),
    "nothing or bytes to string or nothing": (["null", "bytes"], ["string", "null"], ByColumn),
    "a value to a value or nothing": ("double", ["null", "double"], ByColumn),
    "a value or nothing to a value": (["null", "string"], "string", ByColumn),
    "a whole number or nothing to a value": (["null", "long"], "double", ByColumn),
    "long to int": ("long", "int", ByRecord),
    "text to number": ("string", "long", ByRecord),
    "three to two": (["null", "string", "long"], ["null", "long"], ByRecord),
    "symbols moved": (enum("R", "G"), enum("G", "R", "B"), ByColumn),
    "symbols added": (enum("R", "G"), enum("R", "G", "B"), ByColumn),
    "a symbol gone with a default": (enum("R", "G", "B"), enum("G", "X", default="X"), ByColumn),
    "a symbol gone without one": (["null", enum("R", "G", "B")], ["null", enum("G")], ByColumn),
    "an enum of another name": (enum("R"), enum("R") | {"name": "Color"}, ByRecord),
    "an enum that was renamed": (enum("R"), enum("R") | {"name": "Color", "aliases": ["Colour"]}, ByColumn),
    "a fixed of another size": (
        {"type": "fixed", "name": "F", "size": 4},
        {"type": "fixed", "name": "F", "size": 5},
        ByRecord,
    ),
    "an array of the same": ({"type": "array", "items": "int"}, {"type": "array", "items": "long"}, ByColumn),
    "an array of records of the same": (array_of(A, B), array_of(A, B), ByColumn),
    "an array of records that grew": (array_of(A), array_of(A, B | {"default": "x"}), ByRecord),
    "an array of records that shrank": (array_of(A, B), array_of(B), ByRecord),
    "an array of promoted": ({"type": "array", "items": "int"}, {"type": "array", "items": "double"}, ByRecord),
    "an array of doubles": ({"type": "array", "items": "double"}, {"type": "array", "items": "double"}, ByColumn),
    "a record in it": ({"type": "record", "name": "In", "fields": [A]}, "long", ByRecord),
}


def values_of_any(kind: Any) -> st.SearchStrategy[Any]:
    return st.floats(width=32) if kind == "float" else values_of(kind)


@pytest.mark.parametrize("name", GROWN)
@given(data=st.data())
@settings(max_examples=20, suppress_health_check=list(HealthCheck))
def test_a_field_that_changes_is_read_as_fastavro_resolves_it(name: str, data: st.DataObject):
    """Between two others, of which one comes from elsewhere in the record, so that a wrong place shows."""
    before, after, how = GROWN[name]
    old = probe(1, [A, {"name": "it", "type": before}, B])
    new = probe(2, [B, {"name": "it", "type": after}, A])
    written = []
    for schema in data.draw(st.permutations([old, old, new])):
        kinds = {f["name"]: values_of_any(f["type"]) for f in schema.definition["fields"]}
        written.append((schema, encode_record(schema, data.draw(st.fixed_dictionaries(kinds)))))

    assert type(resolution_of(old, new)) is how
    assert_read_as(new, [old, new], written)


DEFAULTS = {
    "null": (["null", "long"], None), "long": ("long", -7), "a long or null": (["long", "null"], 3), "double": ("double", 1), "string": ("string", "é"),
    "boolean": ("boolean", True), "enum": (enum("R", "G"), "G"), "no items": (array_of(A), []), "doubles": ({"type": "array", "items": "double"}, [1, 2.5]),
    "items": (array_of(A), [{"a": 3}]), "null for a text": (["null", "string"], None), "null for a double": (["null", "double"], None),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_field_that_is_new_has_its_default_and_one_that_is_gone_is_passed_over(name: str):
    kind, default = DEFAULTS[name]
    old = probe(1, [A, {"name": "gone", "type": array_of(B)}, B])
    new = probe(2, [{"name": "it", "type": kind, "default": default}, B, A])
    record = {"a": 5, "gone": [{"b": "x"}, {"b": "yy"}], "b": "text"}
    said = fastavro.schemaless_reader(io.BytesIO(encode_record(old, record)[HEADER_BYTES:]), old.parsed, new.parsed)
    written = [
        (old, encode_record(old, record)),
        (new, encode_record(new, said)),
        (old, encode_record(old, record | {"a": 6})),
    ]
    [at] = [f for f in whole(new.definition)["fields"] if f["name"] == "it"]

    read = ColumnarReader(new, BYTES_MAX, [old]).read([value for _, value in written])

    assert not read.status.any()
    assert [said_of(read, row, at) for row in range(3)] == [default] * 3
    assert read.integers("a").tolist() == [5, 5, 6]
    assert read.text("b").tolist() == [b"text"] * 3


def test_a_default_of_bytes_is_one_of_its_characters():
    old = probe(1, [A])
    kinds = {"x": "bytes", "y": {"type": "fixed", "name": "F", "size": 2}}
    new = probe(2, [A, *({"name": n, "type": k, "default": "\u00ff\u0000"} for n, k in kinds.items())])

    read = ColumnarReader(new, BYTES_MAX, [old]).read([encode_record(old, {"a": 1})] * 2)

    assert read.text("x").tolist() == [b"\xff\x00"] * 2
    assert read.fixed("y").tolist() == [[255, 0]] * 2


def test_a_field_is_found_by_its_older_name_unless_the_newer_one_is_there():
    old, older = probe(2, [A, B]), probe(1, [{"name": "z", "type": "long"}, B])
    new = probe(3, [{"name": "a", "aliases": ["z"], "type": "long"}, B])
    written = [(older, encode_record(older, {"z": 1, "b": ""})), (old, encode_record(old, {"a": 2, "b": "x"}))]

    assert_read_as(new, [older, old], written)


def test_what_says_nothing_of_a_field_without_a_default_is_of_the_wrong_schema():
    old, new = probe(1, [A]), probe(2, [A, B])
    good = encode_record(new, {"a": 1, "b": "x"})

    read = ColumnarReader(new, BYTES_MAX, [old]).read([encode_record(old, {"a": 1}), good])

    assert read.status.tolist() == [Reject.WRONG_SCHEMA, Reject.NONE]
    assert read.text("b").tolist() == [b"x"]


@pytest.mark.parametrize("kind", [ByColumn, ByRecord])
def test_bad_bytes_of_an_older_version_have_their_reason_and_their_neighbours_are_read(kind: type):
    grown = [A | {"name": "c", "default": 0}] if kind is ByRecord else []
    old, new = (probe(v, [A, B, {"name": "it", "type": array_of(A, *more)}]) for v, more in ((1, []), (2, grown)))
    if kind is ByColumn:
        new = probe(
            2, [A, {"name": "c", "type": ["null", "long"], "default": None}, B, {"name": "it", "type": array_of(A)}]
        )
    good = encode_record(old, {"a": 1, "b": "text", "it": [{"a": 2}]})
    newest = encode_record(new, fastavro.schemaless_reader(io.BytesIO(good[HEADER_BYTES:]), old.parsed, new.parsed))
    bad = [
        (good + b"\x00", Reject.TRAILING_BYTES), (good[:-1], Reject.MALFORMED), (good.replace(b"text", b"\xff\xfext"), Reject.INVALID_UTF8),
        (b"", Reject.EMPTY), (good[:10], Reject.MALFORMED), (MAGIC + b"whoknows" + good[10:], Reject.UNKNOWN_FINGERPRINT),
        (topics()[TOPIC].latest.header + good[10:], Reject.WRONG_SCHEMA), (good + b"x" * 200, Reject.TOO_LARGE), (b"{}", Reject.BAD_FRAMING),
    ]  # fmt: skip
    values = [newest, *(value for one, _ in bad for value in (one, good)), newest]

    read = ColumnarReader(new, 200, [old]).read(values)

    assert type(resolution_of(old, new)) is kind
    assert read.status.tolist() == [0, *(status for _, why in bad for status in (why, 0)), 0]
    assert read.text("b").tolist() == [b"text"] * (len(bad) + 2)
    assert read.integers("a").tolist() == [1] * (len(bad) + 2)


def test_records_before_and_after_a_field_was_added_are_decoded_alike(tmp_path: Path):
    """Readers that know the new version read both; so do those that still take what they read for the old one."""
    columns = to_columns(random_events(7, 60))
    old = encoded_as_first(columns)
    before, _, _ = decode_transactions(old)
    first = topics()[TOPIC].latest
    with reading(grown_folder(tmp_path, TOPIC)):
        topic = topics()[TOPIC]
        records = [decode_as_newest(value)[1] | {"added_by_a_test": f"wallet-{i}"} for i, value in enumerate(old)]
        new = [encode_record(topic.latest, record) for record in records]
        mixed = [new[i] if i % 3 == 1 else value for i, value in enumerate(old)]
        for values in (old, mixed, new):
            after, rows, status = decode_transactions(values)
            assert not status.any()
            assert rows.tolist() == list(range(60))
            assert encoded_as_first(after) == encoded_as_first(before) == old

        read = ColumnarReader(first, topic.record_bytes_max, topic.versions).read(mixed)
        assert not read.status.any()
        assert read.text("card_id").tolist() == columns.card_id.tolist()
        wallets = ColumnarReader.of(topic).read(mixed)
        assert [
            None if no else text.decode()
            for no, text in zip(
                wallets.is_null("added_by_a_test"), wallets.text("added_by_a_test").tolist(), strict=True
            )
        ] == [f"wallet-{i}" if i % 3 == 1 else None for i in range(60)]
    assert decode_transactions(mixed)[2].tolist() == [
        Reject.UNKNOWN_FINGERPRINT if i % 3 == 1 else Reject.NONE for i in range(60)
    ]


def test_producers_write_the_version_that_the_topic_names(tmp_path: Path):
    columns = to_columns(random_events(7, 5))
    old, first = encode_transactions(columns), topics()["dead-letters"].latest
    letter = examples_of("dead-letters")[0]

    def add(definition: dict[str, Any]) -> None:
        definition["fields"].append({"name": "worker", "type": ["null", "string"], "default": None})

    with reading(grown_folder(tmp_path / "a", TOPIC, written_version=topics()[TOPIC].written.version)):
        assert encode_transactions(columns) == old
    with reading(grown_folder(tmp_path / "b", "dead-letters", add, first.version)):
        value = encode_written("dead-letters", letter | {"worker": "one"})
        assert decode_as_newest(value)[1] == letter | {"worker": None}
        with pytest.raises(ValueError, match="surprise"):
            encode_written("dead-letters", letter | {"worker": "one", "surprise": 1})
    with reading(grown_folder(tmp_path / "c", "dead-letters", add)):
        assert decode_as_newest(encode_written("dead-letters", letter | {"worker": "one"}))[1]["worker"] == "one"
    with (
        reading(grown_folder(tmp_path / "d", TOPIC, written_version=9)),
        pytest.raises(ValueError, match="written_version 9"),
    ):
        topics()


def test_an_envelope_of_an_older_account_is_held_with_the_new_fields_default(tmp_path: Path):
    def add(definition: dict[str, Any]) -> None:
        definition["fields"].insert(1, {"name": "credit_limit_minor_before", "type": "long", "default": 0})

    account = examples_of(ACCOUNTS)[0]
    envelope = topics()[ACCOUNTS].envelope
    assert envelope is not None
    change = {f["name"]: None for f in envelope.definition["fields"]} | {"op": "u", "after": account, "ts_ms": 1}
    values = [encode_record(envelope, change), encode_record(topics()[ACCOUNTS].latest, account)]
    key = account["account_id"].encode()
    held = [decode_change(ACCOUNTS, key, value) for value in values]
    with reading(grown_folder(tmp_path, ACCOUNTS, add)):
        assert [decode_change(ACCOUNTS, key, value) for value in values] == held
        assert decode_as_newest(values[0])[1]["after"] == account | {"credit_limit_minor_before": 0}
        assert decode_as_newest(values[1])[1] == account | {"credit_limit_minor_before": 0}
    assert held[0] == held[1]
    assert held[0][1] == Reject.NONE


def test_what_cannot_be_resolved_is_undecodable():
    with pytest.raises(UndecodableError):
        decode_as_newest(topics()["dead-letters"].versions[0].header + b"\x7f")
