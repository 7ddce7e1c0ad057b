"""Records in partitions that their keys do not belong to: refused where nobody would look for them, decided and marked where somebody waits."""

from __future__ import annotations

import binascii
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.checker.oracle import home_of
from services.codec.records import decode_record
from services.codec.reference import ACCOUNTS, CUSTOMERS, encode_account, encode_customer
from services.codec.terminal_events import TOPIC as TERMINALS
from services.codec.terminal_events import encode_terminal_events
from services.codec.transactions import TOPIC, encode_transactions
from services.core.columns import Text
from services.core.kernels import misplaced, partitions_of
from services.core.reference.layout import Account, Customer
from services.core.terminal.windows import terminal_events
from services.profiler.processor import ProfilerProcessor
from services.reference.processor import ReferenceProcessor
from services.runtime import catalogue as m
from services.runtime.metrics import MetricsRegistry
from services.scorer.processor import ScorerProcessor
from services.streams import Records
from services.worker.processor import LookedUp
from tests.generators import random_events, to_columns
from tests.worker.memory_system import KAFKA_TIMESTAMP_MS, SAFE, MemorySystem, nothing_known, released_model

PARTITIONS = 6


def crc32_partition(key: bytes, partitions: int = PARTITIONS) -> int:
    """Return the partition that librdkafka's default partitioner chooses."""
    return binascii.crc32(key) % partitions


def records_of(topic: str, keys: list[bytes], values: list[bytes | None], partitions: int = PARTITIONS) -> Records:
    """Return records as librdkafka's default partitioner would have spread them."""
    n, where = len(keys), np.array([crc32_partition(key) for key in keys])
    return Records(topic, where, np.arange(n), np.full(n, KAFKA_TIMESTAMP_MS), keys, values, partitions)


def home(keys: list[bytes]) -> list[int]:
    return partitions_of(Text.of(keys), PARTITIONS).tolist()


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=20), st.integers(1, 50))
def test_two_definitions_of_where_a_key_belongs_agree(keys: list[bytes], partitions: int):
    assert [home_of(key, partitions) for key in keys] == partitions_of(Text.of(keys), partitions).tolist()


@given(st.lists(st.tuples(st.binary(max_size=30), st.integers(0, 4)), min_size=1, max_size=20), st.integers(0, 5))
def test_what_is_misplaced_is_what_lies_elsewhere(rows: list[tuple[bytes, int]], partitions: int):
    found = misplaced(Text.of([key for key, _ in rows]), np.array([p for _, p in rows]), partitions)

    assert found.tolist() == [partitions > 0 and home_of(key, partitions) != p for key, p in rows]


def declines(processor, records: Records) -> tuple[dict[bytes, str], dict[bytes, bytes], list[dict]]:
    """Return what is refused and why, what is written, both by key, and what is logged."""
    n = len(records)
    prepared = processor.prepare(records, np.zeros(n, np.int64))
    outcome = processor.decide(prepared, [None] * len(prepared.cards), {}, np.ones(n, bool), KAFKA_TIMESTAMP_MS)
    letters = [decode_record(value)[1] for output in outcome.outputs for value in output.values]
    metrics = MetricsRegistry(m.PROFILER_METRICS)
    processor.measure(metrics, prepared, outcome, KAFKA_TIMESTAMP_MS)
    counted = metrics.value(m.DEAD_LETTERS, "WRONG_PARTITION")
    assert counted == sum(letter["reason"] == "WRONG_PARTITION" for letter in letters)
    written = {k: v for k, v in zip(prepared.cards, outcome.profiles, strict=True) if v is not None}
    return {letter["key"]: letter["reason"] for letter in letters}, written, list(outcome.notices)


def account(name: bytes) -> bytes:
    return encode_account(name.decode(), Account("EUR", 100, 0, "FROZEN", 1), 1)


def customer(name: bytes) -> bytes:
    return encode_customer(name.decode(), Customer("BE", None, None, "STANDARD", "EUR", None), 1)


@pytest.mark.parametrize(("topic", "encode"), [(ACCOUNTS, account), (CUSTOMERS, customer)])
@pytest.mark.parametrize("deleted", [False, True])
def test_reference_data_in_a_wrong_partition_are_refused_tombstones_too(topic, encode, deleted):
    keys = [b"key-%d" % i for i in range(60)]
    astray = {key for key, p in zip(keys, home(keys), strict=True) if crc32_partition(key) != p}
    assert 30 < len(astray) < 60

    refused, written, notices = declines(
        ReferenceProcessor(topic), records_of(topic, keys, [None if deleted else encode(key) for key in keys])
    )

    assert refused == dict.fromkeys(astray, "WRONG_PARTITION")
    assert written.keys() == (set() if deleted else set(keys) - astray)
    assert all("murmur2_random" in notice["remedy"] for notice in notices)


def test_terminal_events_in_a_wrong_partition_are_refused():
    columns = to_columns(random_events(1, 60))
    keys, values = columns.terminal_id.tolist(), encode_terminal_events(terminal_events(columns))
    astray = {key for key, p in zip(keys, home(keys), strict=True) if crc32_partition(key) != p}
    assert 0 < len(astray) < len(set(keys))

    refused, written, _ = declines(ProfilerProcessor(), records_of(TERMINALS, keys, list(values)))

    assert refused == dict.fromkeys(astray, "WRONG_PARTITION")
    assert written.keys() == set(keys) - astray


def test_a_worse_fault_is_named_first_and_where_nobody_knows_how_many_partitions_there_are_nothing_is_refused():
    keys = [b"key-%d" % i for i in range(20)]
    records = records_of(ACCOUNTS, keys, [b"rubbish"] * 20)

    assert set(declines(ReferenceProcessor(ACCOUNTS), records)[0].values()) == {"BAD_FRAMING"}
    assert not declines(ReferenceProcessor(ACCOUNTS), records_of(ACCOUNTS, keys, list(map(account, keys)), 0))[0]


# -- transactions ------------------------------------------------------------------------------------------------------------


def misplaced_system() -> tuple[MemorySystem, set[bytes]]:
    """Return a system whose transactions came with librdkafka's default partitioner, and the cards that are in a wrong partition."""
    system = MemorySystem()
    columns = to_columns(random_events(1, 80, cards=12))
    for key, value in zip(columns.card_id.tolist(), encode_transactions(columns), strict=True):
        system.log.append(TOPIC, key, value, KAFKA_TIMESTAMP_MS, crc32_partition(key, 2))
    cards = set(columns.card_id.tolist())
    return system, {card for card in cards if crc32_partition(card, 2) != home_of(card, 2)}


@pytest.mark.parametrize("without_profiles", ["wait", "fallback"])
def test_a_transaction_in_a_wrong_partition_is_decided_and_says_so(without_profiles):
    system, astray = misplaced_system()
    assert astray
    worker, _ = system.worker(without_profiles=without_profiles)
    worker.turn()  # takes the partitions over
    system.grid.available = without_profiles == "wait"
    for _ in range(3):
        worker.turn()
    system.grid.available = True
    system.drain(worker)

    decisions = system.records("card-decisions")
    assert len(decisions) == 80
    assert not system.records("dead-letters")
    for decision in decisions:
        assert ("WRONG_PARTITION" in decision["degraded"]) == (decision["card_id"].encode() in astray)


def decided(found_of) -> list[list[str]]:
    """Return the marks of decisions on what is found of accounts and customers."""
    columns = to_columns(random_events(1, 20))
    n, processor = len(columns), ScorerProcessor(released_model(), SAFE)
    zeros = np.zeros(n, np.int64)
    records = Records(
        TOPIC,
        zeros,
        np.arange(n),
        zeros + KAFKA_TIMESTAMP_MS,
        columns.card_id.tolist(),
        encode_transactions(columns),
        1,
    )
    prepared = processor.prepare(records, np.zeros(n, np.int64))
    found = found_of(nothing_known(prepared))
    outcome = processor.decide(prepared, [None] * len(prepared.cards), found, np.ones(n, bool), KAFKA_TIMESTAMP_MS)
    [sent] = [output for output in outcome.outputs if output.topic == "card-decisions"]
    return [decode_record(value)[1]["degraded"] for value in sent.values]


@pytest.mark.parametrize("topic", [ACCOUNTS, CUSTOMERS])
def test_who_is_not_known_although_others_were_announced_is_marked(topic):
    def announced(found: dict[str, LookedUp]) -> dict[str, LookedUp]:
        return found | {topic: replace(found[topic], applied=np.full(len(found[topic].profiles), 7))}

    assert all("REFERENCE_UNKNOWN" in marks for marks in decided(announced))
    assert not any("REFERENCE_UNKNOWN" in marks for marks in decided(lambda found: found)), "nobody announces anything"
