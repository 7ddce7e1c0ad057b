"""Accounts and customers as they are announced, plainly or as Debezium tells changes, into what the grid holds of them.

A value is an Avro record of the topic's schema, one of its envelope (``envelope.avsc``), or the JSON of Debezium's own converter with or
without its schema part; a null value deletes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from services.codec.json_values import UnfitError, fit, read_object
from services.codec.records import UndecodableError, decode_as_newest, encode_written
from services.codec.schemas import HEADER_BYTES, schemas_by_header, topics
from services.core.reference.layout import Account, BadReferenceError, Customer, TravelNotice
from services.core.validation import Reject

ACCOUNTS: Final = "accounts"
CUSTOMERS: Final = "customers"
KEY_FIELDS: Final = {ACCOUNTS: "account_id", CUSTOMERS: "customer_id"}
DELETED: Final = b""
"""What the grid holds of a key that was deleted."""
_DELETE: Final = "d"
"""The operation of an envelope after which nothing is there."""

_REJECTS: Final = {
    "currency": Reject.UNKNOWN_CURRENCY, "home_country": Reject.UNKNOWN_COUNTRY, "blocked_countries": Reject.UNKNOWN_COUNTRY,
    "travel_notices.country": Reject.UNKNOWN_COUNTRY, "blocked_categories": Reject.INVALID_CATEGORY,
    "home_latitude": Reject.INVALID_POSITION, "opened_ms": Reject.INVALID_TIME, "travel_notices.until_ms": Reject.INVALID_TIME,
    "too many instructions": Reject.TOO_LARGE, "available_balance_minor": Reject.INVALID_AMOUNT,
    "credit_limit_minor": Reject.INVALID_AMOUNT, "limits": Reject.INVALID_AMOUNT,
}  # fmt: skip
"""What a field that cannot be makes of its record; any other is MALFORMED."""


def _account(record: Mapping[str, Any]) -> bytes:
    names = ("currency", "available_balance_minor", "credit_limit_minor", "status", "opened_ms")
    return Account(**{name: record[name] for name in names}).sealed()


def _customer(record: Mapping[str, Any]) -> bytes:
    names = (
        "home_country", "home_latitude", "home_longitude", "segment", "currency", "limit_per_transaction_minor",
        "limit_per_day_minor", "blocked_categories", "blocked_countries",
    )  # fmt: skip
    notices = tuple(TravelNotice(n["country"], n["from_ms"], n["until_ms"]) for n in record["travel_notices"])
    return Customer(**{name: record[name] for name in names}, travel_notices=notices).sealed()


_SEALED: Final[Mapping[str, Callable[[Mapping[str, Any]], bytes]]] = {ACCOUNTS: _account, CUSTOMERS: _customer}


def decode_change(topic: str, key: bytes, value: bytes | None) -> tuple[bytes, Reject]:
    """Return what the grid holds of a key from this record on, and NONE; or nothing, and why the record is refused."""
    if value is None:
        return DELETED, Reject.NONE
    if len(value) > topics()[topic].record_bytes_max:
        return DELETED, Reject.TOO_LARGE
    record, status = _from_json(topic, value) if value.startswith(b"{") else _from_avro(topic, value)
    if status != Reject.NONE or record is None:
        return DELETED, status
    if record[KEY_FIELDS[topic]].encode() != key:
        return DELETED, Reject.KEY_MISMATCH
    try:
        return _SEALED[topic](record), Reject.NONE
    except BadReferenceError as error:
        return DELETED, _REJECTS.get(str(error), Reject.MALFORMED)


Read = tuple[dict[str, Any] | None, Reject]
"""The fields of a record, none for a delete; or why it cannot be read."""


def _from_avro(topic: str, value: bytes) -> Read:
    if len(value) < HEADER_BYTES:
        return None, Reject.BAD_FRAMING
    schema = schemas_by_header().get(value[:HEADER_BYTES])
    if schema is None:
        return None, Reject.UNKNOWN_FINGERPRINT
    if schema.topic != topic:
        return None, Reject.WRONG_SCHEMA
    try:
        record = decode_as_newest(value)[1]
    except UndecodableError as error:
        return None, Reject.INVALID_UTF8 if isinstance(error.__cause__, UnicodeDecodeError) else Reject.MALFORMED
    if not schema.is_envelope:
        return record, Reject.NONE
    if record["op"] == _DELETE:
        return None, Reject.NONE
    return (record["after"], Reject.NONE) if record["after"] is not None else (None, Reject.MALFORMED)


def _from_json(topic: str, value: bytes) -> Read:
    """Read a change as Debezium's own converter writes it, whose schema part says nothing that ours does not."""
    try:
        record = read_object(value)
        change = record.get("payload", record)
        if not isinstance(change, dict):
            return None, Reject.MALFORMED
        if fit(_operation(topic), change.get("op")) == _DELETE:
            return None, Reject.NONE
        return fit(topics()[topic].latest.definition, change.get("after")), Reject.NONE
    except UnfitError as error:
        return None, error.reason


@cache
def _operation(topic: str) -> Any:
    """Return the type of what was done."""
    envelope = topics()[topic].envelope
    assert envelope is not None
    return next(field["type"] for field in envelope.definition["fields"] if field["name"] == "op")


def encode_account(account_id: str, account: Account, changed_at_ms: int) -> bytes:
    """Return the record that says what is known of an account."""
    fields = {name: getattr(account, name) for name in account.__slots__}
    return encode_written(ACCOUNTS, {"account_id": account_id, **fields, "changed_at_ms": changed_at_ms})


def encode_customer(customer_id: str, customer: Customer, changed_at_ms: int) -> bytes:
    """Return the record that says what is known of a customer."""
    fields = {name: getattr(customer, name) for name in customer.__slots__}
    fields |= {
        "travel_notices": [{name: getattr(n, name) for name in n.__slots__} for n in customer.travel_notices],
        "blocked_categories": list(customer.blocked_categories),
        "blocked_countries": list(customer.blocked_countries),
    }
    record = {"customer_id": customer_id, **fields, "changed_at_ms": changed_at_ms}
    return encode_written(CUSTOMERS, record)
