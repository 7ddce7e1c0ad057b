"""Avro single objects one by one, with fastavro: the reference, for everything off the hot path."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import fastavro

from services.codec.schemas import HEADER_BYTES, Schema, schemas_by_header


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


def decode_record(value: bytes) -> tuple[Schema, dict[str, Any]]:
    """Return the schema and the fields of one framed record.

    Raises:
        UndecodableError: the framing is unknown, or the body is not exactly one record of its schema.
    """
    schema = schemas_by_header().get(value[:HEADER_BYTES])
    if schema is None:
        raise UndecodableError("unknown framing or fingerprint")
    body = io.BytesIO(value[HEADER_BYTES:])
    try:
        record = fastavro.schemaless_reader(body, schema.parsed, None)
    except Exception as error:  # fastavro raises many kinds for damaged bytes
        raise UndecodableError(f"not a record of {schema.topic} v{schema.version}: {type(error).__name__}") from error
    if body.read(1):
        raise UndecodableError("bytes follow the record")
    assert isinstance(record, dict)
    return schema, record
