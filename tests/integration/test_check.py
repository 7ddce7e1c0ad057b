"""`proact check` and `proact grid status` on a system that is not at rest, on a real Kafka and a real Redis: who is missing is named."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from services.codec.reassessments import REQUESTS
from services.codec.reference import ACCOUNTS
from services.codec.transactions import TOPIC
from services.grid.keys import meta_key
from services.offline.replay.producer import Pace, TransactionProducer
from services.offline.replay.reference import send_reference
from services.offline.simulator.reference import simulate_reference
from services.offline.simulator.traffic import Traffic
from services.registry import process_of
from services.runtime.children import ServiceChild
from services.runtime.clock import SystemClock
from services.streams.admin import KafkaAdmin
from services.streams.sink import KafkaSink
from tests.integration.system import (
    START_MS,
    produce,
    services,
    settings_for,
    traffic_of,
    wait_drained,
    wait_saved,
    wait_until,
)

GROUPS = {
    TOPIC: "proact-scorer", "terminal-events": "proact-profiler", "fraud-labels": "proact-router",
    ACCOUNTS: "proact-reference-accounts", "customers": "proact-reference-customers", REQUESTS: "proact-reassessor",
}  # fmt: skip


class Operator:
    """Runs commands against one stack."""

    def __init__(self, proact: list[str], stack: Any) -> None:
        self._proact, self.stack = proact, stack
        self.admin = KafkaAdmin(stack.kafka_connection)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        own = {"PROACT_KAFKA_BOOTSTRAP_SERVERS": self.stack.kafka_address, "PROACT_REDIS_URL": self.stack.redis_url}
        done = subprocess.run(
            [*self._proact, *arguments], env={**os.environ, **own}, capture_output=True, text=True, check=False, timeout=300
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def check(self) -> tuple[int, dict[str, Any]]:
        done = self._run("check")
        return done.returncode, json.loads(done.stdout)

    def states(self, service: str) -> tuple[set[str], int, set[int]]:
        """Return the partitions' states, how many records wait in all, and the members of the group, as reported."""
        lines = self._run("grid", "status", "--service", service, "--json").stdout.splitlines()
        rows = [json.loads(line) for line in lines]
        return {r["state"] for r in rows}, sum(r["waiting"] for r in rows), {r["members"] for r in rows}

    def said(self, service: str) -> str:
        return self._run("grid", "status", "--service", service).stdout.splitlines()[-1]

    def gone(self, topic: str) -> None:
        """Wait until the group has no member: one that was killed stays in it for a session."""
        wait_until(lambda: self.admin.members(GROUPS[topic]) == 0, 30, f"nobody works {topic} off")


def drained(stack: Any, topics: Iterable[str]) -> None:
    for topic in topics:
        wait_drained(stack, group=GROUPS[topic], topic=topic)
        if topic not in ("fraud-labels", REQUESTS):
            wait_saved(stack, GROUPS[topic], topic)


def decide_without_model(operator: Operator, folder: Path, part: Traffic) -> None:
    """Decide by a scorer that has no model: a request to assess again comes of each transaction."""
    with services(operator.stack, folder, ["scorer"], model_path=str(folder / "none")):
        produce(operator.stack, part)
        drained(operator.stack, [TOPIC])


def test_services_that_never_ran_are_named_and_are_no_fault(own_stack, tmp_path, proact):
    operator = Operator(proact, own_stack())
    decide_without_model(operator, tmp_path, traffic_of(500))

    code, found = operator.check()

    assert (code, found["verdict"]) == (0, "ok"), found
    assert found["never_ran"] == {REQUESTS: 500, "terminal-events": found["terminal_events"]}


def test_a_run_under_traffic_is_not_at_rest_and_says_what_moves(own_stack, tmp_path, proact):
    stack, traffic = own_stack(), traffic_of(9_000, cards=600)
    operator, stop = Operator(proact, stack), threading.Event()

    def send() -> None:
        sink = KafkaSink(stack.kafka_connection)
        producer = TransactionProducer(sink, SystemClock())
        for at in range(0, 9_000, 25):
            if not stop.is_set():
                producer.send(traffic.take(np.arange(at, at + 25)), Pace.at_rate(25, 100), flush_s=60)
        sink.close()

    with services(stack, tmp_path, ["scorer"]) as [scorer]:
        scorer.wait_ready(90)
        sender = threading.Thread(target=send)
        sender.start()
        wait_until(
            lambda: (operator.admin.group_lag(TOPIC, "proact-scorer") or 0) < sum_of_ends(operator),
            60,
            "it is decided on",
        )
        code, found = operator.check()
        assert sender.is_alive()
        stop.set()
        sender.join()
        assert (code, found["verdict"]) == (3, "not_at_rest"), found
        [one] = [one for one in found["not_at_rest"] if one["topic"] == TOPIC]
        assert one["state"] == "moving"
        assert one["arrived"] > 0
        drained(stack, [TOPIC])
        code, found = operator.check()

    assert (code, found["verdict"]) == (0, "ok"), found


def sum_of_ends(operator: Operator) -> int:
    return sum(end for _, end in operator.admin.extents(TOPIC).values())


STOPPED = {
    "scorer": TOPIC, "profiler": "terminal-events", "router": "fraud-labels", "reference": ACCOUNTS, "reassessor": REQUESTS,
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name not in ("scorer", "reassessor"))) for name in STOPPED]
)
def test_a_service_that_was_stopped_is_named_with_what_waits_for_it(own_stack, tmp_path, proact, name: str):
    stack, traffic, topic = own_stack(), traffic_of(2_000, cards=150), STOPPED[name]
    operator, known = Operator(proact, stack), simulate_reference(traffic.columns, traffic.scenario == 0, 4)

    def happen(rows: range, children: dict[str, ServiceChild]) -> None:
        """Let something come that this service works off."""
        part = traffic.take(np.arange(rows.start, rows.stop))
        if name == "reference":
            sink = KafkaSink(stack.kafka_connection)
            send_reference(sink, known, START_MS)
            assert sink.flush(30)
            sink.close()
        if name == "reassessor":
            decide_without_model(operator, tmp_path / str(rows.start), part)
        elif "scorer" in children:
            produce(stack, part, labelled=True)

    children = {
        one: ServiceChild(process_of(one), settings_for(stack), tmp_path / f"{one}.log")
        for one in ({name} if name == "reassessor" else {"scorer", name})
    }
    worked = [topic, "customers"] if name == "reference" else [topic]
    try:
        for child in children.values():
            child.start()
        for child in children.values():
            child.wait_ready(120)
        happen(range(1_000), children)
        drained(stack, [*worked, *([TOPIC] if "scorer" in children else [])])
        code, found = operator.check()
        assert (code, found["verdict"]) == (0, "ok"), found
        children[name].stop()
        for one in worked:
            operator.gone(one)
        happen(range(1_000, 2_000), children)
        if name != "scorer" and "scorer" in children:
            drained(stack, [TOPIC])
        code, found = operator.check()
        assert (code, found["verdict"]) == (3, "not_at_rest"), found
        missing = {one["topic"]: one for one in found["not_at_rest"]}
        assert {(one["service"], one["state"]) for one in missing.values()} == {(name, "missing")}
        assert f"start it with `proact {name}`" in missing[topic]["says"]
        service = topic if name == "reference" else name
        states, waiting, members = operator.states(service)
        assert "waiting" in states or "behind" in states
        assert waiting == missing[topic]["waiting"] > 0
        assert members == {0}
        assert f"start it with `proact {name}`" in operator.said(service)
        children[name].start()
        children[name].wait_ready(120)
        drained(stack, worked)
        assert operator.check()[0] == 0
        states, waiting, members = operator.states(service)
        assert states <= {"current", "empty"}
        assert (waiting, members) == (0, {1})
    finally:
        for child in children.values():
            child.stop()


def test_a_partition_that_is_halted_is_broken_with_its_reason_and_remedy(own_stack, tmp_path, proact):
    stack = own_stack()
    operator = Operator(proact, stack)
    with services(stack, tmp_path, ["scorer"]) as [scorer]:
        scorer.wait_ready(90)
        produce(stack, traffic_of(500))
        wait_drained(stack)
        wait_saved(stack)
    redis.Redis.from_url(stack.redis_url).hset(meta_key(TOPIC, 0), "halted", "somebody looks at it")
    produce(stack, traffic_of(500, seed=2))
    with services(stack, tmp_path / "again", ["scorer"]) as [scorer]:
        wait_until(lambda: (scorer.health() or {}).get("halted"), 60, "it is halted")
        code, found = operator.check()

    assert (code, found["verdict"]) == (1, "broken")
    [witness] = found["anomalies"]["halted"]["witnesses"]
    assert "card-transactions 0: MARKED: somebody looks at it" in witness
    assert "proact grid resume" in witness


def test_what_seems_to_wait_and_is_no_record_does_not_wait(own_stack, tmp_path, proact):
    """The marks of atomic commits take offsets, too."""
    stack = own_stack()
    operator = Operator(proact, stack)
    with services(stack, tmp_path, ["scorer", "profiler"]) as children:
        for child in children:
            child.wait_ready(90)
        produce(stack, traffic_of(500))
        wait_drained(stack)
        wait_drained(stack, group="proact-profiler", topic="terminal-events")
        wait_saved(stack, "proact-profiler", "terminal-events")
        children[1].process.kill()
        children[1].process.wait()
    operator.gone("terminal-events")
    # Set back the committed offset and what the grid says to before the last mark.
    admin = operator.admin
    extents = admin.extents("terminal-events")
    before = {p: end - 1 for (_, p), (_, end) in extents.items() if end}
    admin.commit("terminal-events", "proact-profiler", before)
    client = redis.Redis.from_url(stack.redis_url)
    for p, at in before.items():
        client.hset(meta_key("terminal-events", p), "applied", at)

    assert operator.states("profiler")[:2] == ({"current"}, 0)
    assert operator.check()[0] == 0
