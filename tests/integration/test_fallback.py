"""The fallback on a real Kafka and a real Redis: decisions go on without Redis, and without the model, and are assessed again afterwards."""

from __future__ import annotations

import subprocess
from collections import Counter

import numpy as np

from services.codec.reassessments import REQUESTS
from services.codec.records import decode_record
from services.inference.released import live_model
from services.offline.replay.reference import send_reference
from services.offline.simulator.reference import simulate_reference
from services.runtime.settings import SETTINGS
from services.streams.sink import KafkaSink
from tests.integration.system import (
    START_MS,
    judged,
    produce,
    read_all,
    services,
    traffic_of,
    wait_drained,
    wait_until,
)

PARTITIONS = 3
SERVICES = ("scorer", "profiler", "reference", "reassessor")
PATIENT = {"lookup_timeout_ms": 5_000}
"""What is there is found, however slow the machine; what is away refuses the connection at once."""


def records(stack, topic: str) -> list[dict]:
    return [decode_record(value or b"")[1] for _, _, _, value in read_all(stack, topic)]


def at_rest(stack) -> None:
    wait_drained(stack)
    wait_drained(stack, group="proact-profiler", topic="terminal-events")
    wait_drained(stack, group="proact-reassessor", topic=REQUESTS)


def test_without_redis_decisions_go_on_by_the_fallback_and_are_assessed_again_when_it_is_back(
    own_stack, tmp_path, proact
):
    stack, traffic = own_stack(PARTITIONS), traffic_of(6_000, seed=4)
    first, second, third = (traffic.take(np.arange(at, at + 2_000)) for at in (0, 2_000, 4_000))
    with services(stack, tmp_path, SERVICES, without_profiles="fallback", **PATIENT) as children:
        for child in children:
            child.wait_ready(90)
        sink = KafkaSink(stack.kafka_connection)
        send_reference(sink, simulate_reference(traffic.columns, traffic.scenario == 0, 4), START_MS)
        assert sink.flush(10)
        sink.close()
        for topic in ("accounts", "customers"):
            wait_drained(stack, group=f"proact-reference-{topic}", topic=topic)
        produce(stack, first)
        at_rest(stack)
        stack.redis.down()
        produce(stack, second)
        wait_drained(stack, timeout_s=30)  # it is decided on, and Redis is away
        assert records(stack, "card-reassessments") == []
        stack.redis.up(lambda _: None)
        produce(stack, third)
        at_rest(stack)
        wait_until(lambda: (children[0].health() or {}).get("status") == 200, 30, "the scorer is ready again")

    decisions, again = records(stack, "card-decisions"), records(stack, "card-reassessments")
    tiers = Counter(decision["fallback_tier"] for decision in decisions)
    assert len(decisions) == 6_000
    assert tiers["SAFE_DEFAULT"] >= 1_900
    assert tiers["CHAMPION"] >= 3_900
    assert len(again) == 6_000 - tiers["CHAMPION"]
    assert all(one["fallback_tier"] == "CHAMPION" and "PROFILE_MISSED" not in one["degraded"] for one in again)
    for service, count in (
        ("scorer", PARTITIONS),
        ("reassessor", SETTINGS["decision_partitions"].default),
        ("router", PARTITIONS),
    ):
        connection = ["--kafka-bootstrap-servers", stack.kafka_address, "--redis-url", stack.redis_url]
        said = [*proact, "grid", "status", "--service", service, "--json", *connection]
        shown = subprocess.run(said, capture_output=True, text=True, check=False, timeout=60)
        assert (shown.returncode, shown.stdout.count('"partition"')) == (0, count), shown.stderr
    verdict = judged(stack)
    assert verdict["anomalies"] == {}
    assert verdict["reassessed"] == verdict["below_champion"] == len(again)


def test_a_release_that_cannot_be_used_leaves_the_small_booster_until_it_is_mended(own_stack, tmp_path):
    stack, traffic = own_stack(PARTITIONS), traffic_of(2_000, seed=6)
    release = tmp_path / "release"
    release.mkdir()
    for path in live_model().iterdir():
        (release / path.name).write_bytes(path.read_bytes())
    whole = (release / "champion.json").read_bytes()
    (release / "champion.json").write_bytes(whole[:-1])
    changes = {"model_path": str(release), **PATIENT}
    with services(stack, tmp_path, ("scorer", "profiler", "reassessor"), **changes) as [scorer, _, reassessor]:
        wait_until(lambda: (scorer.health() or {}).get("partitions") == [0, 1, 2], 120, "the scorer owns everything")
        assert (scorer.health() or {})["status"] == 503
        produce(stack, traffic.take(np.arange(1_000)))
        wait_drained(stack)
        (release / "champion.json").write_bytes(whole)
        scorer.wait_ready(30)
        reassessor.wait_ready(30)
        produce(stack, traffic.take(np.arange(1_000, 2_000)))
        at_rest(stack)

    decisions = records(stack, "card-decisions")
    assert Counter(d["fallback_tier"] for d in decisions) == {"SMALL_MODEL": 1_000, "CHAMPION": 1_000}
    assert all(("MODEL_MISSED" in d["degraded"]) == (d["fallback_tier"] == "SMALL_MODEL") for d in decisions)
    assert Counter(d["decided_fallback_tier"] for d in records(stack, "card-reassessments")) == {"SMALL_MODEL": 1_000}
    assert judged(stack)["anomalies"] == {}
