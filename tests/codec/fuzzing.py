"""Records as nobody sends them, from the schemas themselves: valid ones with extreme fields, then damaged in their bytes; and JSON of any shape."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from hypothesis import strategies as st

from services.codec.records import encode_record
from services.codec.resolution import whole
from services.codec.schemas import Schema, schemas_by_header, topics
from services.paths import data_folder
from tests.codec.test_schemas import EXAMPLES, to_record, with_defaults

_WHOLE = {"int": 2**31, "long": 2**63}
_TEXTS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["", "EUR", "BE", "card-1", "x" * 64, "x" * 65, "4111 1111 1111 1111", "\x00", "é" * 40, "1" * 100]
)
_FLOATS = st.floats(width=64) | st.sampled_from([0.0, -0.0, 90.0, -180.0, 91.0, 1e308, 5e-324])


def values_of(schema: Any) -> st.SearchStrategy[Any]:
    """Return values of an Avro type, the extreme ones among them."""
    if isinstance(schema, list):
        return st.one_of([st.none() if branch == "null" else values_of(branch) for branch in schema])
    kind = schema if isinstance(schema, str) else schema["type"]
    if kind in _WHOLE:
        most = _WHOLE[kind]
        near = [0, 1, -1, 840, 9_999, 10**12, 10**12 + 1, 1_767_225_600_000, most - 1, -most]
        return st.integers(-most, most - 1) | st.sampled_from([n for n in near if -most <= n < most])
    if kind == "record":
        return st.fixed_dictionaries({field["name"]: values_of(field["type"]) for field in schema["fields"]})
    simple = {"string": _TEXTS, "double": _FLOATS, "boolean": st.booleans(), "bytes": st.binary(max_size=200)}
    if kind in simple:
        return simple[kind]
    if kind == "fixed":
        return st.binary(min_size=schema["size"], max_size=schema["size"])
    if kind == "enum":
        return st.sampled_from(schema["symbols"])
    assert kind == "array", kind
    return st.lists(values_of(schema["items"]), max_size=4)


@cache
def examples_of(topic: str) -> list[dict[str, Any]]:
    """Return the good examples of a topic."""
    found = [json.loads(path.read_text()) for path in EXAMPLES if path.parts[-3] == topic]
    return [with_defaults(topic, to_record(example)) for example in found]


@cache
def _field_of(topic: str, name: str) -> st.SearchStrategy[Any]:
    return values_of(next(f["type"] for f in whole(topics()[topic].latest.definition)["fields"] if f["name"] == name))


@st.composite
def records_of(draw: st.DrawFn, topic: str) -> dict[str, Any]:
    """Return a record of the newest schema: an example, some of whose fields are any of their type."""
    definition = topics()[topic].latest.definition
    record = dict(draw(st.sampled_from(examples_of(topic))))
    if topic == "card-reassessment-requests":
        record["transaction"] = draw(good_values("card-transactions"))
    for field in draw(st.just([]) | st.lists(st.sampled_from(definition["fields"]), max_size=3)):
        record[field["name"]] = draw(_field_of(topic, field["name"]))
    return record


def schemas_of(topic: str) -> list[Schema]:
    """Return the versions of a topic's schema, its envelope among them."""
    found = topics()[topic]
    return [*found.versions, *found.envelopes]


@cache
def good_values(topic: str) -> st.SearchStrategy[bytes]:
    """Return records of a topic as its schema has it, whatever their fields hold."""
    return _good_values(topic)


@st.composite
def _good_values(draw: st.DrawFn, topic: str) -> bytes:
    return encode_record(topics()[topic].latest, draw(records_of(topic)))


@st.composite
def _of_any_version(draw: st.DrawFn, topic: str) -> bytes:
    """Return a record of any version of a topic's schema, or of any other topic's."""
    schema = draw(st.sampled_from(schemas_of(topic)) | st.sampled_from(_SMALL))
    return encode_record(schema, draw(values_of_schema(schema.header)))


_SMALL = [topics()[name].latest for name in ("accounts", "fraud-labels", "terminal-events")]


@cache
def values_of_schema(header: bytes) -> st.SearchStrategy[Any]:
    """Return the values of a whole schema; a strategy takes its time to be made."""
    return values_of(whole(schemas_by_header()[header].definition))


@st.composite
def _damaged(draw: st.DrawFn, topic: str) -> bytes:
    """Return a record whose bytes were flipped, cut, doubled, or put together of two."""
    raw = bytearray(draw(good_values(topic)))
    kind = draw(st.sampled_from(["flip", "cut", "trail", "splice", "overwrite"]))
    if kind == "cut":
        return bytes(raw[: draw(st.integers(0, len(raw)))])
    if kind == "trail":
        return bytes(raw) + draw(st.binary(min_size=1, max_size=9))
    if kind == "splice":
        other = draw(good_values(topic))
        return bytes(raw[: draw(st.integers(0, len(raw)))]) + other[draw(st.integers(0, len(other))) :]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw) - 1))
        raw[at] = raw[at] ^ (1 << draw(st.integers(0, 7))) if kind == "flip" else draw(st.integers(0, 255))
    if kind == "overwrite":
        at, chunk = (
            draw(st.integers(10, len(raw))),
            draw(st.sampled_from([b"\xff" * 9 + b"\x01", b"\x80" * 10, b"\x01", b"\xff"])),
        )
        raw[at : at + len(chunk)] = chunk
    return bytes(raw)


@cache
def avro_values(topic: str) -> st.SearchStrategy[bytes | None]:
    """Return anything that a topic of Avro records may hold."""
    header = topics()[topic].latest.header
    framed = st.binary(max_size=200).map(lambda body: header + body)
    return st.one_of(
        good_values(topic), _damaged(topic), _of_any_version(topic), framed, st.binary(max_size=64), st.none()
    )  # fmt: skip


# -- JSON ------------------------------------------------------------------------------------------------------------

_ANY_TEXT = st.text(max_size=6) | st.sampled_from(["\ud800", "a\udfff", "EUR", "BE", "1", "true", "NaN", "\x00"])
_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), _ANY_TEXT,
    st.sampled_from([10**30, -(10**400), 2**63, 1e400, float("nan"), 1.0, 0.5]),
)  # fmt: skip
ANYTHING = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_ANY_TEXT, inner, max_size=3), max_leaves=6
)
_SURPRISES = [
    b"{", b"{}", b'{"payload": null}', b'{"payload": {}}', b'{"op": "u", "op": "d"}', b"{\x00", b"{\xff", b'{"a": ' + b"[" * 100_000,
    b'{"a": ' + b'{"a": ' * 30_000, b'{"op": "u", "after": ' + b"9" * 5_000 + b"}", b'{"\\ud800": 1}', b'{"op": NaN}', b'{"op": -Infinity}',
]  # fmt: skip


@st.composite
def changed_documents(draw: st.DrawFn, topic: str) -> dict[str, Any]:
    """Return a document as Debezium tells of a change: fields left out, of other types, of any shape, and more than there are."""
    fields = topics()[topic].latest.definition["fields"]
    after: Any = dict(draw(st.sampled_from(_plain_examples(topic))))
    for field in draw(st.lists(st.sampled_from(fields), max_size=3)):
        move = draw(st.sampled_from(["leave out", "anything", "of its type"]))
        if move == "leave out":
            after.pop(field["name"], None)
        else:
            after[field["name"]] = draw(ANYTHING if move == "anything" else _field_of(topic, field["name"]))
    after |= draw(st.dictionaries(_ANY_TEXT, ANYTHING, max_size=1))
    if draw(st.integers(0, 9)) == 0:
        after = draw(ANYTHING)
    change: dict[str, Any] = {"op": "u", "before": None, "after": after, "ts_ms": 1}
    if draw(st.integers(0, 4)) == 0:
        change[draw(st.sampled_from(sorted(change)))] = draw(ANYTHING | st.sampled_from(["c", "r", "d", "t"]))
    if draw(st.booleans()):
        return change
    return {"schema": {"type": "struct"}, "payload": change}


@cache
def _plain_examples(topic: str) -> list[dict[str, Any]]:
    return [
        json.loads(path.read_text()) for path in sorted((data_folder("schemas") / topic / "examples").glob("*.json"))
    ]


@st.composite
def json_values(draw: st.DrawFn, topic: str) -> bytes:
    """Return JSON of any shape, and what is nearly JSON."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(_SURPRISES))
    text = json.dumps(draw(changed_documents(topic)), ensure_ascii=draw(st.booleans()))
    value = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(value) - 1))
        value = value[:at] + draw(st.binary(max_size=2)) + value[at + 1 :]
    return value
