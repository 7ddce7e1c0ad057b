"""`proact check` and `proact grid status` on a system that is not at rest, on a real Kafka and a real Redis: who is missing is named."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from typing import Any

import numpy as np
import redis

from services.codec.reassessments import REQUESTS
from services.codec.reference import ACCOUNTS
from services.codec.transactions import TOPIC
from services.grid.keys import meta_key
from services.replay.reference import send_reference
from services.runtime.children import ServiceChild
from services.simulator.reference import simulate_reference
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
OTHERS = ("profiler", "router", "reference")


class Operator:
    """Runs commands against one stack."""

    def __init__(self, proact: list[str], stack: Any) -> None:
        self._proact, self.stack = proact, stack
        self.admin = KafkaAdmin(stack.kafka_address)

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
        """Return the partitions' states, how many records wait in all, and the members of the group, as told."""
        lines = self._run("grid", "status", "--service", service, "--json").stdout.splitlines()
        rows = [json.loads(line) for line in lines]
        return {r["state"] for r in rows}, sum(r["waiting"] for r in rows), {r["members"] for r in rows}

    def said(self, service: str) -> str:
        return self._run("grid", "status", "--service", service).stdout.splitlines()[-1]

    def gone(self, topic: str) -> None:
        """Wait until the group has no member: one that was killed stays in it for a session."""
        wait_until(lambda: self.admin.members(GROUPS[topic]) == 0, 30, f"nobody works {topic} off")


def drained(stack: Any, *but: str) -> None:
    for topic, group in GROUPS.items():
        if topic not in but:
            wait_drained(stack, group=group, topic=topic)
            if topic not in ("fraud-labels", REQUESTS):
                wait_saved(stack, group, topic)


def test_who_is_missing_is_named_and_what_moves_is_told(own_stack, tmp_path, proact):
    stack, traffic = own_stack(), traffic_of(9_000, cards=600)
    operator, parts = Operator(proact, stack), [traffic.take(np.arange(at, at + 500)) for at in range(0, 3_000, 500)]
    sink = KafkaSink(stack.kafka_address)
    known = simulate_reference(traffic.columns, traffic.scenario == 0, 4)

    def announce() -> None:
        send_reference(sink, known, START_MS)
        assert sink.flush(10)

    # A scorer alone: what nobody ever ran for is told, and is no fault.
    with services(stack, tmp_path / "alone", ["scorer"]) as [scorer]:
        scorer.wait_ready(90)
        produce(stack, parts[0])
        wait_drained(stack)
        wait_saved(stack)
    code, found = operator.check()
    assert (code, found["verdict"]) == (0, "ok"), found
    assert found["never_ran"][REQUESTS] > 0, "nobody knew the terminals"

    names = ("scorer", "reassessor", *OTHERS)
    children = {name: ServiceChild(f"services.{name}", settings_for(stack), tmp_path / f"{name}.log") for name in names}
    try:
        # A reassessor that waits for others is there, and works nothing off.
        for name in ("scorer", "reassessor"):
            children[name].start()
            children[name].wait_ready(90)
        code, found = operator.check()
        assert (code, found["verdict"]) == (3, "not_at_rest"), found
        assert [(one["service"], one["state"]) for one in found["not_at_rest"]] == [("reassessor", "idle")]

        for name in OTHERS:
            children[name].start()
            children[name].wait_ready(90)
        announce()
        produce(stack, parts[1], labelled=True)
        drained(stack)
        code, found = operator.check()
        assert (code, found["verdict"]) == (0, "ok"), found
        for service in ("scorer", "profiler", "router", "accounts", "customers", "reassessor"):
            assert operator.states(service) == ({"current"}, 0, {1}), service

        # Under a producer.
        rest = traffic.take(np.arange(3_000, 9_000))
        sender = threading.Thread(target=produce, args=(stack, rest, 150), kwargs={"labelled": True})
        sender.start()
        code, found = operator.check()
        assert sender.is_alive()
        assert (code, found["verdict"]) == (3, "not_at_rest"), found
        assert "moving" in {one["state"] for one in found["not_at_rest"] if one["topic"] == TOPIC}
        sender.join()

        # With one of them stopped.
        stopped = {"profiler": "terminal-events", "router": "fraud-labels", "reference": ACCOUNTS, "scorer": TOPIC}
        for (name, topic), part in zip(stopped.items(), parts[2:], strict=True):
            children[name].stop()
            operator.gone(topic)
            announce()
            produce(stack, part, labelled=True)
            drained(stack, topic, *(("customers",) if name == "reference" else ()))
            code, found = operator.check()
            assert (code, found["verdict"]) == (3, "not_at_rest"), found
            missing = {one["topic"]: one for one in found["not_at_rest"]}
            assert {one["service"] for one in missing.values()} == {name}
            assert f"start it with `proact {name}`" in missing[topic]["says"]
            service = topic if name == "reference" else name
            states, waiting, members = operator.states(service)
            assert "waiting" in states or "behind" in states
            assert (waiting, members) == (missing[topic]["waiting"], {0})
            assert f"start it with `proact {name}`" in operator.said(service)
            children[name].start()
            children[name].wait_ready(90)
            drained(stack)
        code, found = operator.check()
        assert (code, found["verdict"]) == (0, "ok"), found
    finally:
        for child in children.values():
            child.stop()
        sink.close()


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
