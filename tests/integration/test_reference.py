"""The reference service on a real Kafka and a real Redis: what was announced last is what the grid holds, whatever dies."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace

import numpy as np
import redis

from services.codec.records import decode_record
from services.codec.reference import ACCOUNTS, CUSTOMERS, encode_account, encode_customer
from services.core.columns import Text
from services.core.kernels import partitions_of
from services.core.offline import compute_offline
from services.core.reference.features import REFERENCE_COLUMNS
from services.core.reference.layout import Account, Customer, open_accounts, open_customers
from services.grid import Lookup
from services.grid.keys import profiles_key
from services.grid.redis import RedisGrid
from services.offline.replay.reference import send_reference
from services.offline.simulator.reference import simulate_reference
from services.streams.sink import KafkaSink
from tests.integration.system import START_MS, judged, produce, read_all, services, traffic_of, wait_drained, wait_saved

PARTITIONS = 3
CUSTOMER = Customer("BE", None, None, "STANDARD", "EUR", 5_000)


def held(stack, topic: str, keys: list[bytes]) -> list[bytes | None]:
    """Return what the grid holds of each key."""
    home, grid = partitions_of(Text.of(keys), PARTITIONS).tolist(), RedisGrid(stack.grid_connection)
    found = grid.look_up([Lookup(topic, p, [key]) for p, key in zip(home, keys, strict=True)])
    return [one.profiles[0] for one in found]


def drained(stack) -> None:
    for topic in (ACCOUNTS, CUSTOMERS):
        wait_drained(stack, group=f"proact-reference-{topic}", topic=topic)
        wait_saved(stack, group=f"proact-reference-{topic}", topic=topic)


def balance(number: int, amount: int) -> bytes:
    return encode_account(f"account-{number}", Account("EUR", amount, 0, "ACTIVE", START_MS), START_MS)


def test_what_was_announced_last_is_held_whatever_dies(own_stack, tmp_path, proact):
    stack, rng = own_stack(PARTITIONS), np.random.default_rng(3)
    sink = KafkaSink(stack.kafka_connection)
    names = [b"account-%d" % i for i in range(200)]
    last = {}
    with services(stack, tmp_path, ["reference"] * 2) as children:
        children[0].wait_ready()
        sink.send(CUSTOMERS, [b"customer-1"], [encode_customer("customer-1", CUSTOMER, START_MS)])
        sink.send(ACCOUNTS, [b"account-1"], [b"bad"])
        for turn in range(20):
            numbers = rng.permutation(200)[:100].tolist()
            amounts = rng.integers(0, 10**6, 100).tolist()
            sink.send(
                ACCOUNTS, [names[i] for i in numbers], [balance(i, a) for i, a in zip(numbers, amounts, strict=True)]
            )
            last |= dict(zip(numbers, amounts, strict=True))
            assert sink.flush(10)
            if turn == 10:
                children[0].process.kill()
                children[0].process.wait()
                children[0].start()
        change = {"op": "d", "before": None, "after": None, "ts_ms": START_MS}
        sink.send(ACCOUNTS, [b"account-0", b"account-1"], [json.dumps(change).encode(), None])
        assert sink.flush(10)
        sink.close()
        last |= {0: None, 1: None}
        drained(stack)
        for child in children:
            child.wait_ready()

    accounts = open_accounts(held(stack, ACCOUNTS, [names[i] for i in last]))
    found = np.where(accounts.known, accounts.spendable_minor, -1).tolist()
    assert found == [-1 if amount is None else amount for amount in last.values()]
    assert open_customers(held(stack, CUSTOMERS, [b"customer-1"])).limit_per_transaction_minor.tolist() == [5_000]
    letters = [decode_record(value or b"")[1] for _, _, _, value in read_all(stack, "dead-letters")]
    assert [letter["reason"] for letter in letters] == ["BAD_FRAMING"]
    for service in (ACCOUNTS, CUSTOMERS):
        connection = ["--kafka-bootstrap-servers", stack.kafka_address, "--redis-url", stack.redis_url]
        said = subprocess.run(
            [*proact, "grid", "verify", "--service", service, *connection],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert said.returncode == 0, said.stdout + said.stderr
    assert judged(stack)["anomalies"].keys() == {"vacuous"}, "nothing but that no transaction was sent"
    client = redis.Redis.from_url(stack.redis_url)
    partition, name = next(
        (p, n)
        for p, n in zip(partitions_of(Text.of(names), PARTITIONS).tolist(), names, strict=True)
        if last[names.index(n)]
    )
    client.hset(profiles_key(ACCOUNTS, partition), name, Account("EUR", 1, 1, "CLOSED", START_MS).sealed())
    assert "divergent-state" in judged(stack)["anomalies"], "the checker sees another balance"


def test_decisions_see_the_account_as_it_is_now(own_stack, tmp_path):
    stack, traffic = own_stack(PARTITIONS), traffic_of(3_000, cards=150)
    reference = simulate_reference(traffic.columns, traffic.scenario == 0, 5)
    sink = KafkaSink(stack.kafka_connection)
    half = len(traffic) // 2
    with services(stack, tmp_path, ["scorer", "reference"]) as children:
        for child in children:
            child.wait_ready()
        send_reference(sink, reference, START_MS)
        assert sink.flush(10)
        drained(stack)
        produce(stack, traffic.take(np.arange(half)))
        wait_drained(stack)
        frozen = reference.account_ids[:75]
        send = [
            encode_account(name.decode(), replace(account, status="FROZEN"), START_MS)
            for name, account in zip(frozen, reference.accounts, strict=False)
        ]
        sink.send(ACCOUNTS, frozen, send)
        assert sink.flush(10)
        drained(stack)
        produce(stack, traffic.take(np.arange(half, len(traffic))))
        wait_drained(stack)
        wait_saved(stack)
        verdict = judged(stack)
    sink.close()

    assert verdict["verdict"] == "ok", verdict
    decisions = {
        r["transaction_id"]: r for r in (decode_record(v or b"")[1] for *_, v in read_all(stack, "card-decisions"))
    }
    rows = reference.rows_of(traffic.columns)
    vectors = compute_offline(traffic.columns, None, rows).vectors
    for i, identifier in enumerate(traffic.columns.transaction_id):
        one = decisions[bytes(identifier)]
        found = np.array(one["features"])[REFERENCE_COLUMNS]
        np.testing.assert_array_equal(found, vectors[i, REFERENCE_COLUMNS])
        codes = {decline["code"] for decline in one["declines"]}
        now_frozen = i >= half and one["account_id"].encode() in set(frozen)
        was_frozen = reference.accounts[rows.account[i]].status == "FROZEN"
        assert ("ACCOUNT_NOT_ACTIVE" in codes) == (now_frozen or was_frozen)
        assert (one["action"] == "BLOCK" and one["decided_by"] in ("ACCOUNT", "CUSTOMER")) or not codes
