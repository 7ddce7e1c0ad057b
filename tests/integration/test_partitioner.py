"""What comes from producers with librdkafka's default partitioner, which is not Java's: refused where nobody would look, else decided and marked."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from confluent_kafka import Producer

from services.codec.records import decode_record, encode_record
from services.codec.reference import ACCOUNTS, CUSTOMERS, encode_account, encode_customer
from services.codec.schemas import topics
from services.codec.transactions import TOPIC, encode_transactions
from services.core.reference.layout import Account, Customer
from tests.integration.system import START_MS, judged, read_all, services, traffic_of, wait_drained, wait_saved

COUNT, PARTITIONS = 200, 6
FROZEN = Account("EUR", 10**9, 0, "FROZEN", START_MS)
CUSTOMER = Customer("BE", None, None, "STANDARD", "EUR", None)


def send(stack, topic: str, keys, values, **settings) -> None:
    """Send with a plain client, which knows nothing of ours."""
    producer, errors = Producer({"bootstrap.servers": stack.kafka_address, "log_level": 0, **settings}), []
    for key, value in zip(keys, values, strict=True):
        producer.produce(topic, value, key, on_delivery=lambda error, _: errors.append(error) if error else None)
    assert producer.flush(30) == 0
    assert not errors


def announce(stack, columns, **settings) -> None:
    accounts, customers = sorted(set(columns.account_id.tolist())), sorted(set(columns.customer_id.tolist()))
    send(stack, ACCOUNTS, accounts, [encode_account(a.decode(), FROZEN, START_MS) for a in accounts], **settings)
    send(stack, CUSTOMERS, customers, [encode_customer(c.decode(), CUSTOMER, START_MS) for c in customers], **settings)
    for topic in (ACCOUNTS, CUSTOMERS):
        wait_drained(stack, group=f"proact-reference-{topic}", topic=topic)
        wait_saved(stack, group=f"proact-reference-{topic}", topic=topic)


def records(stack, topic: str) -> list[dict]:
    return [decode_record(value or b"")[1] for *_, value in read_all(stack, topic)]


def decide(stack, columns, **settings) -> list[dict]:
    """Return the decisions on transactions sent with these settings."""
    before = {(p, o) for p, o, *_ in read_all(stack, "card-decisions")}
    send(stack, TOPIC, columns.card_id.tolist(), encode_transactions(columns), **settings)
    wait_drained(stack)
    wait_saved(stack)
    decided = [(p, o, value) for p, o, _, value in read_all(stack, "card-decisions")]
    return [decode_record(value or b"")[1] for p, o, value in decided if (p, o) not in before]


@pytest.fixture
def columns():
    return traffic_of(COUNT, cards=COUNT).columns


def test_transactions_on_frozen_accounts_are_not_approved_without_a_mark(own_stack, tmp_path, columns):
    stack = own_stack(PARTITIONS)
    with services(stack, tmp_path, ["scorer", "reference"]) as children:
        for child in children:
            child.wait_ready()
        announce(stack, columns)

        by_default = decide(stack, columns)

        assert len(by_default) == COUNT
        # Nobody folds terminals here, which every decision says: it is no mark of what this is about.
        silent = [d for d in by_default if d["action"] == "APPROVE" and set(d["degraded"]) <= {"TERMINAL_UNKNOWN"}]
        assert not silent, (
            f"{len(silent)} of {COUNT} approved on frozen accounts, and no mark says that they were not seen"
        )
        marks = Counter(mark for d in by_default for mark in d["degraded"])
        assert marks["WRONG_PARTITION"] > COUNT / 2
        assert marks["REFERENCE_UNKNOWN"] > COUNT / 2
        letters = records(stack, "dead-letters")
        assert Counter(letter["reason"] for letter in letters).keys() == {"WRONG_PARTITION"}
        assert {letter["source_topic"] for letter in letters} == {ACCOUNTS, CUSTOMERS}
        refused = {d["account_id"].encode() for d in by_default if not d["declines"]}
        assert refused == {letter["key"] for letter in letters if letter["source_topic"] == ACCOUNTS}, (
            "exactly these were not seen"
        )

        # The setting that the dead letters' log lines, the alert and the runbook name mends it.
        announce(stack, columns, partitioner="murmur2_random")
        again = decide(stack, columns, partitioner="murmur2_random")

        assert {d["action"] for d in again} == {"BLOCK"}
        assert {code["code"] for d in again for code in d["declines"]} == {"ACCOUNT_NOT_ACTIVE"}
        assert not any({"WRONG_PARTITION", "REFERENCE_UNKNOWN"} & set(d["degraded"]) for d in again)
        verdict = judged(stack)
    assert verdict["verdict"] == "ok", verdict
    log = (tmp_path / "reference-1.log").read_text()
    assert "murmur2_random" in log


def test_requests_that_point_nowhere_are_answered_and_hold_nobody_up(own_stack, tmp_path, columns):
    stack = own_stack(PARTITIONS)
    with services(stack, tmp_path, ["scorer", "reassessor"]) as children:
        for child in children:
            child.wait_ready()
        decisions = decide(stack, columns, partitioner="murmur2_random")
        values = {(p, o): value for p, o, _, value in read_all(stack, TOPIC)}
        good, other = decisions[:2]

        def request(of: dict, **changes) -> bytes:
            named = ("transaction_id", "card_id", "source_partition", "source_offset", "source_timestamp_ms")
            reported = {name: of[name] for name in named} | {
                "decided_at_ms": of["decided_at_ms"], "action": of["action"], "score": of["score"], "fallback_tier": "SMALL_MODEL",
                "transaction": values[of["source_partition"], of["source_offset"]],
            }  # fmt: skip
            return encode_record(topics()["card-reassessment-requests"].latest, reported | changes)

        nowhere = [
            request(good, source_offset=10**9), request(good, source_offset=-5), request(good, source_partition=77),
            request(good, source_partition=other["source_partition"], source_offset=other["source_offset"]),
        ]  # fmt: skip
        producer = Producer({"bootstrap.servers": stack.kafka_address, "log_level": 0})
        hour_ago_ms = (time.time_ns() // 10**6) - 3_600_000  # so that nobody waits half a minute for the first one
        for value in [*nowhere, request(good)]:
            producer.produce("card-reassessment-requests", value, good["card_id"].encode(), 0, timestamp=hour_ago_ms)
        assert producer.flush(10) == 0

        wait_drained(stack, 30, "proact-reassessor", "card-reassessment-requests")

        assert Counter(letter["reason"] for letter in records(stack, "dead-letters")) == {"TRANSACTION_NOT_FOUND": 4}
        again = records(stack, "card-reassessments")
        assert [(r["source_partition"], r["source_offset"]) for r in again] == [
            (good["source_partition"], good["source_offset"])
        ]
