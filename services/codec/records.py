"""Avro single objects one by one, with fastavro: the reference, for everything off the hot path."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from functools import cache
from typing import Any

import fastavro
from fastavro.schema import parse_schema

from services.codec.schemas import HEADER_BYTES, Schema, schemas_by_header, topics


class UndecodableError(ValueError):
    """Bytes that are not one record of a schema in ``schemas/``."""


def encode_record(schema: Schema, record: Mapping[str, Any]) -> bytes:
    """Return the framed bytes of one record.

    Raises:
        ValueError, TypeError: the record does not fit the schema.
    """
    out = io.BytesIO()
    out.write(schema.header)
    fastavro.schemaless_writer(out, schema.parsed, record, strict=True)
    return out.getvalue()


def encode_written(topic: str, record: Mapping[str, Any]) -> bytes:
    """Return the framed bytes of a record of a topic's newest schema, as the version that producers write.

    Raises:
        ValueError, TypeError: the record does not fit the newest schema.
    """
    newest, written = topics()[topic].latest, topics()[topic].written
    value = encode_record(newest, record)
    if written is newest:
        return value
    out = io.BytesIO()
    out.write(written.header)
    fastavro.schemaless_writer(out, written.parsed, record)  # leaves out what this version does not know
    return out.getvalue()


def decode_record(value: bytes) -> tuple[Schema, dict[str, Any]]:
    """Return the schema and the fields of one framed record, as its own schema has them.

    Raises:
        UndecodableError: the framing is unknown, or the body is not exactly one record of its schema.
    """
    return _decode(value, as_newest=False)


def decode_as_newest(value: bytes) -> tuple[Schema, dict[str, Any]]:
    """Return the schema that wrote one framed record, and its fields as the newest version of that schema has them.

    Raises:
        UndecodableError: as :func:`decode_record`; or Avro's rules do not resolve it.
    """
    return _decode(value, as_newest=True)


def _decode(value: bytes, *, as_newest: bool) -> tuple[Schema, dict[str, Any]]:
    schema = schemas_by_header().get(value[:HEADER_BYTES])
    if schema is None:
        raise UndecodableError("unknown framing or fingerprint")
    body = io.BytesIO(value[HEADER_BYTES:])
    try:
        record = fastavro.schemaless_reader(body, schema.parsed, _newest(schema.header) if as_newest else None)
    except Exception as error:  # fastavro raises many kinds for damaged bytes
        raise UndecodableError(f"not a record of {schema.topic} v{schema.version}: {type(error).__name__}") from error
    if body.read(1):
        raise UndecodableError("bytes follow the record")
    assert isinstance(record, dict)
    return schema, record


@cache
def _newest(header: bytes) -> Any:
    """Return the schema, parsed, as which what a schema wrote is read; None: as its own."""
    schema = schemas_by_header()[header]
    topic = topics()[schema.topic]
    if not schema.is_envelope:
        return None if schema is topic.latest else topic.latest.parsed
    assert topic.envelope is not None
    definition = copy.deepcopy(topic.envelope.definition)
    for field in definition["fields"]:
        if isinstance(
            field["type"], list
        ):  # what was and what is: an envelope says the topic's record where it is used first
            field["type"] = [
                topic.latest.definition
                if isinstance(one, dict) and one["name"] == topic.latest.definition["name"]
                else one
                for one in field["type"]
            ]
    return parse_schema(definition)
