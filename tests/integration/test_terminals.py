"""Scorer, profiler and router on a real Kafka and a real Redis: one log of each terminal, folded once, read by decisions."""

from __future__ import annotations

import subprocess
import uuid

import numpy as np

from services.codec.records import decode_record, encode_record
from services.codec.schemas import topics
from services.codec.terminal_events import LABELS, TOPIC
from services.core.features import FEATURE_NAMES
from services.core.offline import compute_offline
from services.core.profiles import DAY_MS
from services.core.terminal.features import TERMINAL_COLUMNS
from services.core.terminal.windows import label_events
from services.offline.replay.labels import LabelFeed, simulated_truth
from services.offline.simulator.generate import simulate
from services.offline.simulator.traffic import Traffic, draw_labels
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
    wait_saved,
    wait_until,
)

SERVICES = ("scorer", "profiler", "router")


def drained(stack) -> None:
    wait_drained(stack)
    wait_drained(stack, group="proact-router", topic=LABELS)
    wait_drained(stack, group="proact-profiler", topic=TOPIC)


def parts_of(traffic: Traffic, days: int) -> list[Traffic]:
    part = (traffic.columns.event_time_ms - START_MS) // (days * DAY_MS)
    return [traffic.take(np.flatnonzero(part == number)) for number in np.unique(part)]


def test_decisions_see_what_is_known_of_their_terminal_as_training_does(own_stack, tmp_path):
    stack, traffic = own_stack(), simulate(150, 45, 5, START_MS)
    drawn = draw_labels(traffic, np.random.default_rng(5))
    labels = label_events(traffic.columns, drawn.rows, traffic.scenario[drawn.rows] > 0, drawn.known_at_ms)
    sink = KafkaSink(stack.kafka_connection)
    feed = LabelFeed(sink, simulated_truth(traffic, 5))

    with services(stack, tmp_path, SERVICES) as children:
        for child in children:
            child.wait_ready()
        for part in parts_of(traffic, 5):  # what is folded is never more than five days behind
            end_ms = int(part.columns.event_time_ms[-1])
            feed.send_until(end_ms)
            assert sink.flush(10)
            drained(stack)
            produce(stack, part)
            drained(stack)
    sink.close()

    online = {r["transaction_id"]: r for r in map(decoded, read_all(stack, "card-decisions"))}
    found = np.array([online[bytes(i)]["features"] for i in traffic.columns.transaction_id])
    expected = compute_offline(traffic.columns, labels).vectors
    seen = ~np.isnan(found[:, TERMINAL_COLUMNS[0]])
    settled = seen & (traffic.columns.event_time_ms >= START_MS + 8 * DAY_MS)
    # A label that comes within the five days of a part counts here for all of the part: those rows are distinguished by their risk.
    same = (found[:, TERMINAL_COLUMNS] == expected[:, TERMINAL_COLUMNS]) | (
        np.isnan(found[:, TERMINAL_COLUMNS]) & np.isnan(expected[:, TERMINAL_COLUMNS])
    )
    counts = [
        FEATURE_NAMES.index(f"terminal_known_{what}_{days}d") for what in ("count", "mean") for days in (1, 7, 30)
    ]
    np.testing.assert_array_equal(found[np.ix_(settled, counts)], expected[np.ix_(settled, counts)])
    assert same[settled].all(axis=1).mean() > 0.99
    assert settled.mean() > 0.7
    assert all(
        r["terminal_behind_ms"] is not None for i, r in online.items() if "TERMINAL_UNKNOWN" not in r["degraded"]
    )
    assert judged(stack)["verdict"] == "ok"


def decoded(record) -> dict:
    return decode_record(record[3] or b"")[1]


def test_a_profiler_and_a_router_that_are_killed_lose_nothing_and_fold_nothing_twice(own_stack, tmp_path):
    stack, traffic = own_stack(), traffic_of(12_000, cards=400)

    with services(stack, tmp_path, SERVICES) as children:
        for child in children:
            child.wait_ready()
        produce(stack, traffic.take(np.arange(6_000)), labelled=True)
        for child in children[1:]:
            child.process.kill()
            child.process.wait()
            child.start()
        produce(stack, traffic.take(np.arange(6_000, 12_000)), rate=4_000, labelled=True)
        drained(stack)
        wait_saved(stack)
        wait_saved(stack, "proact-profiler", "terminal-events")
        verdict = judged(stack)

    assert verdict["verdict"] == "ok", verdict
    assert verdict["terminal_events"] >= 12_000
    assert verdict["terminals"] > 100


def test_a_label_without_its_terminal_or_its_key_is_a_dead_letter(own_stack, tmp_path):
    stack, sink = own_stack(), None
    with services(stack, tmp_path, ["router"]) as [router]:
        router.wait_ready()
        sink = KafkaSink(stack.kafka_connection)
        label = {
            "transaction_id": bytes(16), "card_id": "card", "terminal_id": "", "event_time_ms": START_MS, "is_fraud": True,
            "scenario": None, "known_at_ms": START_MS + DAY_MS, "source": "ANALYST",
        }  # fmt: skip
        good = label | {"terminal_id": "terminal-1"}
        key = str(uuid.UUID(int=0)).encode()
        sent = [(key, label), (b"somebody-else", good), (None, good), (key, good)]
        sink.send(LABELS, [k for k, _ in sent], [encode_record(topics()[LABELS].latest, one) for _, one in sent])
        assert sink.flush(10)
        wait_until(lambda: read_all(stack, TOPIC, 0.3), 30, "the good one is routed")
        wait_drained(stack, group="proact-router", topic=LABELS)

    letters = list(map(decoded, read_all(stack, "dead-letters")))
    [event] = map(decoded, read_all(stack, TOPIC))
    assert {letter["source_topic"] for letter in letters} == {LABELS}
    assert sorted(letter["reason"] for letter in letters) == ["INVALID_IDENTIFIER", "KEY_MISMATCH", "NULL_KEY"]
    assert (event["kind"], event["terminal_id"], event["is_fraud"]) == ("LABEL", "terminal-1", True)


def test_the_terminals_profiles_are_rebuilt_and_verified_from_their_log(own_stack, tmp_path, proact):
    stack, traffic = own_stack(), traffic_of(3_000, cards=200)
    with services(stack, tmp_path, ["scorer", "profiler"]) as children:
        for child in children:
            child.wait_ready()
        produce(stack, traffic)
        wait_drained(stack)
        wait_drained(stack, group="proact-profiler", topic=TOPIC)

    def grid(*command: str) -> subprocess.CompletedProcess[str]:
        connection = ["--kafka-bootstrap-servers", stack.kafka_address, "--redis-url", stack.redis_url]
        said = [*proact, "grid", command[0], "--service", "profiler", *command[1:], *connection]
        return subprocess.run(said, capture_output=True, text=True, check=False, timeout=120)

    assert grid("verify").returncode == 0
    rebuilt = grid("rebuild", "--partition", "0")
    assert rebuilt.returncode == 0, rebuilt.stderr
    verified = grid("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert verified.stdout.count("equal") == SETTINGS["terminal_partitions"].default
    assert judged(stack)["verdict"] == "ok"
