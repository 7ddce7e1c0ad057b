"""The reference service without any store: three forms of a change, declines, and the newest record of a key."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from services.codec.records import decode_record, encode_record
from services.codec.reference import ACCOUNTS, CUSTOMERS, DELETED, decode_change, encode_account, encode_customer
from services.codec.schemas import topics
from services.core.reference.layout import Account, Customer, TravelNotice, open_accounts, open_customers
from services.core.validation import Reject
from services.paths import data_folder
from services.reference.processor import ReferenceProcessor
from services.streams import Records

AT_MS = 1_767_225_600_000
ACCOUNT = {
    "account_id": "account-1", "currency": "EUR", "available_balance_minor": 5_000, "credit_limit_minor": 100, "status": "ACTIVE",
    "opened_ms": AT_MS, "changed_at_ms": AT_MS,
}  # fmt: skip
CUSTOMER = json.loads((data_folder("schemas") / "customers" / "examples" / "with-instructions.json").read_text())
RECORDS = {ACCOUNTS: ACCOUNT, CUSTOMERS: CUSTOMER}
KEYS = {ACCOUNTS: b"account-1", CUSTOMERS: CUSTOMER["customer_id"].encode()}


def change(topic: str, op: str = "u", **more: Any) -> dict[str, Any]:
    return {"op": op, "before": None, "after": RECORDS[topic], "ts_ms": AT_MS} | more


def forms(topic: str, op: str = "u", **more: Any) -> list[bytes]:
    """Return the forms in which a change may come."""
    reported = change(topic, op, **more)
    envelope = topics()[topic].envelope
    assert envelope is not None
    plain = json.dumps(reported).encode(), json.dumps({"schema": {"type": "struct"}, "payload": reported}).encode()
    return [encode_record(envelope, reported), *plain]


@pytest.mark.parametrize("topic", [ACCOUNTS, CUSTOMERS])
def test_all_forms_of_a_change_come_to_the_same(topic: str):
    plain = encode_record(topics()[topic].latest, RECORDS[topic])
    held, status = decode_change(topic, KEYS[topic], plain)

    assert status == Reject.NONE
    assert len(held) >= 32
    for op in ("c", "u", "r"):
        assert [decode_change(topic, KEYS[topic], value) for value in forms(topic, op)] == [(held, Reject.NONE)] * 3
    deleted = [None, *forms(topic, "d", before=RECORDS[topic], after=None)]
    assert [decode_change(topic, KEYS[topic], value) for value in deleted] == [(DELETED, Reject.NONE)] * 4


def test_a_database_may_have_columns_that_are_of_no_interest():
    value = json.dumps(change(ACCOUNTS, after={**ACCOUNT, "branch": "Ghent"})).encode()

    assert decode_change(ACCOUNTS, KEYS[ACCOUNTS], value) == decode_change(ACCOUNTS, KEYS[ACCOUNTS], forms(ACCOUNTS)[0])


@pytest.mark.parametrize("topic", [ACCOUNTS, CUSTOMERS])
def test_what_json_leaves_out_is_what_the_schema_says(topic: str):
    defaults = {f["name"]: f["default"] for f in topics()[topic].latest.definition["fields"] if "default" in f}
    assert defaults
    for names in ([name] for name in defaults):
        left = {name: value for name, value in RECORDS[topic].items() if name not in names}
        whole = RECORDS[topic] | {name: defaults[name] for name in names}
        if {"home_latitude", "home_longitude"} & set(names):
            continue  # both or none
        plain = encode_record(topics()[topic].latest, whole)
        value = json.dumps(change(topic, after=left)).encode()
        assert decode_change(topic, KEYS[topic], value) == decode_change(topic, KEYS[topic], plain)
        assert decode_change(topic, KEYS[topic], value)[1] == Reject.NONE


def test_what_is_encoded_is_what_is_held():
    account = Account("EUR", -5, 10, "FROZEN", AT_MS)
    customer = Customer("BE", None, None, "STUDENT", "EUR", None, 7, (1, 2), ("FR",), (TravelNotice("JP", 1, 2),))

    assert decode_change(ACCOUNTS, b"a", encode_account("a", account, 3)) == (account.sealed(), Reject.NONE)
    assert decode_change(CUSTOMERS, b"c", encode_customer("c", customer, 3)) == (customer.sealed(), Reject.NONE)


@pytest.mark.parametrize(
    ("topic", "value", "reason"),
    [
        (ACCOUNTS, b"", Reject.BAD_FRAMING),
        (ACCOUNTS, b"\xc3\x01" + bytes(8), Reject.UNKNOWN_FINGERPRINT),
        (ACCOUNTS, encode_record(topics()[CUSTOMERS].latest, CUSTOMER), Reject.WRONG_SCHEMA),
        (ACCOUNTS, encode_record(topics()[ACCOUNTS].latest, ACCOUNT)[:-1], Reject.MALFORMED),
        (ACCOUNTS, encode_record(topics()[ACCOUNTS].latest, ACCOUNT) + b"x", Reject.MALFORMED),
        (ACCOUNTS, b"{" + b"x" * 200_000, Reject.TOO_LARGE),
        (ACCOUNTS, b'{"op": "u", "after": ' + b"[" * 60_000 + b"]" * 60_000 + b"}", Reject.MALFORMED),
        (ACCOUNTS, json.dumps(change(ACCOUNTS, "u", after=None)).encode(), Reject.MALFORMED),
        (ACCOUNTS, json.dumps(change(ACCOUNTS, after={**ACCOUNT, "opened_ms": "then"})).encode(), Reject.MALFORMED),
        (ACCOUNTS, b'{"payload": 7}', Reject.MALFORMED),
        (ACCOUNTS, json.dumps(change(ACCOUNTS, after={**ACCOUNT, "account_id": "\ud800"})).encode(), Reject.INVALID_UTF8),
        (ACCOUNTS, b'{"op": "u\xff"}', Reject.INVALID_UTF8),
        (ACCOUNTS, b'{"op": "u", "op": "d"}', Reject.MALFORMED),
        (ACCOUNTS, json.dumps(change(ACCOUNTS, op="t")).encode(), Reject.MALFORMED),
        (ACCOUNTS, json.dumps(change(ACCOUNTS, op=["u"])).encode(), Reject.MALFORMED),
        (CUSTOMERS, json.dumps(change(CUSTOMERS, after={**CUSTOMER, "home_latitude": float("nan")})).encode(), Reject.MALFORMED),
        (CUSTOMERS, json.dumps(change(CUSTOMERS, after={**CUSTOMER, "home_latitude": 10**400})).encode(), Reject.MALFORMED),
        (ACCOUNTS, b"{}", Reject.MALFORMED),
        (ACCOUNTS, json.dumps(change(ACCOUNTS, after={**ACCOUNT, "account_id": "other"})).encode(), Reject.KEY_MISMATCH),
        (ACCOUNTS, json.dumps(change(ACCOUNTS, after={**ACCOUNT, "currency": "ABC"})).encode(), Reject.UNKNOWN_CURRENCY),
        (ACCOUNTS, json.dumps(change(ACCOUNTS, after={**ACCOUNT, "credit_limit_minor": -1})).encode(), Reject.INVALID_AMOUNT),
        (CUSTOMERS, json.dumps(change(CUSTOMERS, after={**CUSTOMER, "home_country": "QQ"})).encode(), Reject.UNKNOWN_COUNTRY),
        (CUSTOMERS, json.dumps(change(CUSTOMERS, after={**CUSTOMER, "home_latitude": 91.0})).encode(), Reject.INVALID_POSITION),
        (CUSTOMERS, json.dumps(change(CUSTOMERS, after={**CUSTOMER, "blocked_categories": list(range(65))})).encode(), Reject.TOO_LARGE),
        (CUSTOMERS, json.dumps(change(CUSTOMERS, after={**CUSTOMER, "blocked_categories": [-1]})).encode(), Reject.INVALID_CATEGORY),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_for_its_reason(topic: str, value: bytes, reason: Reject):
    assert decode_change(topic, KEYS[topic], value) == (DELETED, reason)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_records_are_refused_or_another_record_and_never_an_error(seed: int):
    rng = np.random.default_rng(seed)
    for topic in (ACCOUNTS, CUSTOMERS):
        for whole in (encode_record(topics()[topic].latest, RECORDS[topic]), *forms(topic)):
            for _ in range(300):
                damaged = bytearray(whole)
                for at in rng.integers(0, len(whole), rng.integers(1, 4)):
                    damaged[at] = int(rng.integers(256))
                held, status = decode_change(topic, KEYS[topic], bytes(damaged[: rng.integers(1, len(whole) + 1)]))
                assert (held == DELETED) or status == Reject.NONE


def balance(amount: int, number: int = 1) -> bytes:
    return encode_account(f"account-{number}", Account("EUR", amount, 0, "ACTIVE", AT_MS), AT_MS)


def work(keys: list[bytes | None], values: list[bytes | None], stored: dict[bytes, bytes] | None = None):
    """Return what a batch writes, and its outcome."""
    processor, n = ReferenceProcessor(ACCOUNTS), len(keys)
    zeros = np.zeros(n, np.int64)
    records = Records(ACCOUNTS, zeros, np.arange(n), zeros + AT_MS, keys, values)
    prepared = processor.prepare(records, np.zeros(n, np.int64))
    profiles = [(stored or {}).get(key) for key in prepared.cards]
    outcome = processor.decide(prepared, profiles, {}, np.ones(n, bool), AT_MS)
    written = {k: v for k, v in zip(prepared.cards, outcome.profiles, strict=True) if v is not None}
    return written, outcome


def test_the_newest_record_of_a_key_is_what_is_held():
    keys = [b"account-1", b"account-2", b"account-1", b"account-2", b"account-3"]
    written, outcome = work(keys, [balance(1), balance(2, 2), balance(3), None, balance(4, 3)])

    assert open_accounts([written[b"account-1"]]).spendable_minor.tolist() == [3]
    assert open_accounts([written[b"account-3"]]).spendable_minor.tolist() == [4]
    assert b"account-2" not in written, "it was not there before"
    assert outcome.decided == 5


def test_only_what_differs_is_written():
    held = decode_change(ACCOUNTS, b"account-1", balance(1))[0]
    stored = {b"account-1": held, b"account-2": held}

    written, _ = work([b"account-1", b"account-2", b"account-3"], [balance(1), None, None], stored)

    assert written == {b"account-2": DELETED}


def test_bad_records_become_dead_letters_among_good_neighbours():
    keys = [None, b"account-1", b"4111111111111111", b"account-1", b"account-2"]
    bad_card = encode_account("4111111111111111", Account("EUR", 1, 0, "ACTIVE", AT_MS), AT_MS)

    written, outcome = work(keys, [balance(1), balance(7), bad_card, b"bad", balance(9, 2)])

    letters = [decode_record(value or b"")[1] for value in outcome.outputs[0].values]
    assert [letter["reason"] for letter in letters] == ["NULL_KEY", "CARD_NUMBER", "BAD_FRAMING"]
    assert b"4111111111111111" not in b"".join(v or b"" for v in outcome.outputs[0].values)
    assert {k: int(open_accounts([v]).spendable_minor[0]) for k, v in written.items()} == {
        b"account-1": 7,
        b"account-2": 9,
    }
    assert outcome.refused.tolist() == [0, 0, 0]
    assert (outcome.decided, len(outcome.notices)) == (2, 3)


def test_a_customer_keeps_its_instructions():
    held = decode_change(CUSTOMERS, KEYS[CUSTOMERS], encode_record(topics()[CUSTOMERS].latest, CUSTOMER))[0]

    assert open_customers([held]).counts.tolist() == [[1, 1, 1]]
