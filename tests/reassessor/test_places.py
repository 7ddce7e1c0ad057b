"""Requests that point to transactions which are not there: waited for while they may come, refused when they cannot be, and seen meanwhile."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from services.codec.reassessments import REQUESTS
from services.codec.records import decode_record, encode_record
from services.codec.schemas import topics
from services.codec.transactions import TOPIC, encode_transactions
from services.core.columns import Text
from services.reassessor.processor import ReassessorProcessor
from services.runtime import catalogue as m
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.streams.memory_commits import partition_of
from services.streams.memory_places import MemoryPlaces
from services.worker.loop import Worker
from services.worker.places import PLACE_WAIT_MS
from services.worker.waiting import WAITS_LONG_S
from tests.generators import random_events, to_columns
from tests.worker.memory_system import KAFKA_TIMESTAMP_MS, SAFE, MemorySystem, released_model


class Asked:
    """A system whose transactions are decided, and requests to look at them again as a test changes them."""

    def __init__(self, events: int = 24) -> None:
        self.system = MemorySystem()
        columns = to_columns(random_events(1, 2 * events, cards=4, late_share=0))
        _, first = np.unique(columns.transaction_id, axis=0, return_index=True)
        self.system.produce(columns.take(np.sort(first)[:events]))
        worker, _ = self.system.worker()
        self.system.drain(worker)
        worker.close()
        self.places = [(p, o) for p in range(2) for o in range(self.system.log.end(TOPIC, p))]
        self.health, self.metrics = Health(self.system.clock, {}), MetricsRegistry(m.REASSESSOR_METRICS)

    def request(self, at: int, **changes: Any) -> bytes:
        """Return the request for the transaction at the at-th place, pointing elsewhere where a test says so."""
        partition, offset = self.places[at]
        stored = self.system.log.partition_log(TOPIC, partition)[offset]
        transaction = decode_record(stored.value or b"")[1]
        request = {
            "transaction_id": transaction["transaction_id"], "card_id": transaction["card_id"], "decided_at_ms": KAFKA_TIMESTAMP_MS,
            "action": "APPROVE", "score": 0.1, "fallback_tier": "SMALL_MODEL", "source_partition": partition, "source_offset": offset,
            "source_timestamp_ms": KAFKA_TIMESTAMP_MS, "transaction": stored.value,
        }  # fmt: skip
        return encode_record(topics()[REQUESTS].latest, request | changes)

    def ask(self, *requests: bytes, stamp_ms: int | None = None) -> None:
        stamp_ms = self.system.clock.now_ms() if stamp_ms is None else stamp_ms
        for request in requests:
            key = decode_record(request)[1]["card_id"].encode()
            self.system.log.append(REQUESTS, key, request, stamp_ms, partition_of(key, 2))

    def reassessor(self, name: str = "again") -> Worker:
        system = self.system
        self.health.conditions |= dict.fromkeys(
            ("kernels_compiled", "partitions_assigned", "grid_reachable", "log_reachable", "nothing_waits"), False
        )
        workers = replace(
            system.workers, topic=REQUESTS, places=MemoryPlaces(system.log), health=self.health, metrics=self.metrics
        )
        worker = workers.new(ReassessorProcessor(released_model(), SAFE), name, "the-reassessor").worker
        system.log.rebalance({name: (0, 1)})
        return worker

    def turn(self, worker: Worker, times: int = 8) -> None:
        for _ in range(times):
            worker.turn()

    def answers(self) -> tuple[list[tuple[int, int]], list[str]]:
        """Return the places that were assessed again, and the reasons of dead letters."""
        again = [(r["source_partition"], r["source_offset"]) for r in self.system.records("card-reassessments")]
        return sorted(again), [letter["reason"] for letter in self.system.records("dead-letters")]


NEVER = {
    "of another transaction": {"source_offset": 1},
    "a negative offset": {"source_offset": -1},
    "the lowest offset": {"source_offset": -(2**63)},
    "a partition that there is not": {"source_partition": 2},
    "a negative partition": {"source_partition": -3},
    "another id than the transaction's": {"transaction_id": bytes(16)},
}


@pytest.mark.parametrize("what", NEVER)
def test_what_can_never_be_is_refused_at_once_and_its_neighbours_are_assessed(what):
    asked = Asked()
    asked.ask(asked.request(1), asked.request(0, **NEVER[what]), asked.request(2))
    begun_s = asked.system.clock.monotonic_s()

    asked.turn(asked.reassessor())

    assert asked.answers() == ([asked.places[1], asked.places[2]], ["TRANSACTION_NOT_FOUND"])
    assert asked.system.clock.monotonic_s() == begun_s, "nobody waited"
    assert asked.metrics.value(m.DEAD_LETTERS, "TRANSACTION_NOT_FOUND") == 1


def test_what_lies_below_the_beginning_of_the_log_is_refused():
    asked = Asked()
    asked.ask(asked.request(0))
    asked.system.log.log_start[TOPIC, 0] = 1

    asked.turn(asked.reassessor())

    assert asked.answers() == ([], ["TRANSACTION_NOT_FOUND"])


def test_another_transaction_than_the_one_on_the_log_is_refused():
    asked = Asked()
    partition, offset = asked.places[0]
    stored = decode_record(asked.system.log.partition_log(TOPIC, partition)[offset].value or b"")[1]
    forged = encode_record(topics()[TOPIC].latest, stored | {"transaction_id": bytes(range(16))})
    asked.ask(asked.request(0, transaction=forged, transaction_id=bytes(range(16))))
    assert asked.system.log.partition_log(TOPIC, partition)[offset].value != forged

    asked.turn(asked.reassessor())

    assert asked.answers() == ([], ["TRANSACTION_NOT_FOUND"])


def waiting(asked: Asked, worker: Worker, seconds: float) -> list[dict[str, Any]]:
    """Let a worker wait; return what was to be seen at each look."""
    seen: list[dict[str, Any]] = []
    sleep = asked.system.log.sleep

    def look(timeout_s: float) -> None:
        sleep(timeout_s)
        lag = sum(asked.metrics.value(m.LAG, str(p)) for p in range(2))
        seen.append(
            {"at_s": asked.system.clock.monotonic_s(), "lag": lag, "ready": asked.health.conditions["nothing_waits"]}
        )
        if seen[-1]["at_s"] - seen[0]["at_s"] > seconds:
            worker.stop()

    asked.system.log.sleep = look
    asked.turn(worker)
    asked.system.log.sleep = sleep
    return seen


def test_what_may_still_come_is_waited_for_and_seen_to_wait_and_then_refused(caplog):
    asked = Asked()
    beyond = asked.system.log.end(TOPIC, 0) + 7
    asked.ask(asked.request(1), asked.request(0, source_partition=0, source_offset=beyond), asked.request(2))
    worker, begun_s = asked.reassessor(), asked.system.clock.monotonic_s()

    with caplog.at_level(logging.INFO, logger="proact"):
        seen = waiting(asked, worker, 10 * PLACE_WAIT_MS / 1_000)

    waited_s = asked.system.clock.monotonic_s() - begun_s
    assert PLACE_WAIT_MS / 1_000 <= waited_s < PLACE_WAIT_MS / 1_000 + 1
    assert asked.answers() == ([asked.places[1], asked.places[2]], ["TRANSACTION_NOT_FOUND"])
    assert {one["lag"] for one in seen[2:]} == {3}, "what waits within the worker is behind, too"
    assert all(
        one["ready"] == (one["at_s"] - begun_s <= WAITS_LONG_S + 0.5)
        for one in seen
        if abs(one["at_s"] - begun_s - WAITS_LONG_S) > 0.5
    )
    assert asked.health.conditions["nothing_waits"]
    assert {"a batch waits", "a batch waits for long"} <= {record.message for record in caplog.records}


def test_those_that_waited_behind_it_do_not_wait_as_long_again():
    asked = Asked()
    beyond = asked.system.log.end(TOPIC, 0)
    asked.ask(*[asked.request(i, source_partition=0, source_offset=beyond + i) for i in range(20)])
    worker, begun_s = asked.reassessor(), asked.system.clock.monotonic_s()

    asked.turn(worker)

    assert asked.answers() == ([], ["TRANSACTION_NOT_FOUND"] * 20)
    assert asked.system.clock.monotonic_s() - begun_s < PLACE_WAIT_MS / 1_000 + 1, "two batches, one wait"


def test_what_comes_in_time_is_assessed():
    asked = Asked()
    partition, offset = asked.places[-1]
    log = asked.system.log.partition_log(TOPIC, partition)
    late = log.pop()
    asked.system.log.append(TOPIC, late.key, late.value, late.timestamp_ms, partition)
    asked.ask(asked.request(len(asked.places) - 1))
    log.pop()
    sleep, begun_s = asked.system.log.sleep, asked.system.clock.monotonic_s()

    def comes(timeout_s: float) -> None:
        sleep(timeout_s)
        if asked.system.clock.monotonic_s() - begun_s > 20 and len(log) == offset:
            log.append(late)

    asked.system.log.sleep = comes
    asked.turn(asked.reassessor())

    assert asked.answers() == ([asked.places[-1]], [])


def test_what_is_on_the_log_and_not_folded_yet_is_waited_for_as_long_as_it_takes():
    asked = Asked()
    asked.ask(asked.request(0))
    meta = asked.system.grid.metas[TOPIC, 0]
    applied, meta.applied = meta.applied, 0
    sleep, begun_s = asked.system.log.sleep, asked.system.clock.monotonic_s()

    def folds(timeout_s: float) -> None:
        sleep(timeout_s)
        if asked.system.clock.monotonic_s() - begun_s > 5 * PLACE_WAIT_MS / 1_000:
            meta.applied = applied

    asked.system.log.sleep = folds
    asked.turn(asked.reassessor())

    assert asked.answers() == ([asked.places[0]], [])


def test_a_worker_that_takes_over_while_something_waits_answers_it_once():
    asked = Asked()
    beyond = asked.system.log.end(TOPIC, 0)
    asked.ask(asked.request(1), asked.request(0, source_partition=0, source_offset=beyond))
    first, sleep, begun_s = asked.reassessor("first"), asked.system.log.sleep, asked.system.clock.monotonic_s()
    moved: list[Worker] = []

    def move(timeout_s: float) -> None:
        sleep(timeout_s)
        if asked.system.clock.monotonic_s() - begun_s > 10 and not moved:
            moved.append(asked.reassessor("second"))

    asked.system.log.sleep = move
    asked.turn(first)
    assert asked.answers() == ([], [])
    asked.turn(moved[0])
    asked.turn(first)
    asked.turn(asked.reassessor("third"))

    assert asked.answers() == ([asked.places[1]], ["TRANSACTION_NOT_FOUND"])


def test_the_profile_of_a_card_is_looked_for_where_its_transactions_lie():
    """A card in a wrong partition: assessed again on the profile that its decisions were made on, and marked."""
    asked = Asked(events=2)
    log = asked.system.log
    columns = to_columns(random_events(4, 30, cards=1, late_share=0))
    _, first = np.unique(columns.transaction_id, axis=0, return_index=True)
    columns, key = columns.take(np.sort(first)[:12]), b"astray"
    times = columns.event_time_ms[0] + 1_000_003 * np.arange(12)
    columns = replace(columns, card_id=Text.of([key] * 12), event_time_ms=times)
    wrong = 1 - partition_of(key, 2)
    begin = log.end(TOPIC, wrong)
    for value in encode_transactions(columns):
        log.append(TOPIC, key, value, KAFKA_TIMESTAMP_MS, wrong)
    worker, _ = asked.system.worker()
    asked.system.drain(worker)
    worker.close()
    asked.places = [(wrong, begin + i) for i in range(12)]
    asked.ask(*[asked.request(i) for i in range(12)])

    asked.turn(asked.reassessor())

    decided = [d for d in asked.system.records("card-decisions") if d["card_id"].encode() == key]
    again = asked.system.records("card-reassessments")
    assert [one["features"][3] for one in again] == [one["features"][3] for one in decided]
    assert max(one["features"][3] for one in again) > 1, "the card has a past"
    assert all("WRONG_PARTITION" in one["degraded"] for one in (*again, *decided))
