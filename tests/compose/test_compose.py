"""docker-compose.yml, run for real: what goes in comes out, whatever happens to the containers."""

from __future__ import annotations

import json
import math
import threading
import time
from collections import Counter, defaultdict
from contextlib import contextmanager

import pytest
import redis

from services.codec.records import decode_record
from services.codec.transactions import TOPIC
from services.core.money import EXPONENTS
from services.core.policy import Action
from services.observer.questions import QUESTIONS
from services.registry import BY_NAME
from services.runtime.logs import transaction_token
from services.streams.sink import KafkaSink
from tests.containers import ROOT
from tests.integration.system import (
    check_everything,
    produce,
    read_all,
    traffic_of,
    wait_drained,
    wait_until,
    wait_until_busy,
)

OURS = (*BY_NAME, "evaluator", "monitor")
LATER = ("proact_quality", "proact_feature_", "proact_releases_beside")
"""What a system of a few minutes has not yet: labels of a week, an hour of decisions, a model on trial."""
CARD_NUMBER = b"4000056655665556"
BAD = {
    "EMPTY": (b"card-1", None),
    "BAD_FRAMING": (b"card-1", b'{"card_number": "' + CARD_NUMBER + b'"}'),
    "NULL_KEY": (None, b"\xc3\x01"),
}


@contextmanager
def load(system, count: int, seed: int, rate: float):
    """Produce in the background while the block does its worst; wait for the end of it all afterwards."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            produce(system, traffic_of(count, cards=2_000, seed=seed), rate)
        except BaseException as error:  # noqa: BLE001 - shown by the test's thread
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    thread.join(200)
    assert not thread.is_alive()
    assert not failures, failures
    wait_drained(system, 120)


def none_left(look, timeout_s: float) -> list:
    """Return what ``look`` still finds when the time is over, or nothing as soon as it finds nothing."""
    deadline = time.monotonic() + timeout_s
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(1)
    return found


def test_everything_is_healthy_within_a_minute(system):
    assert system.up_s < 60
    states = [json.loads(line) for line in system.compose("ps", "--all", "--format", "json").splitlines()]
    assert {s["Service"]: s["Health"] for s in states if s["Service"] != "topics"} | {
        "grafana": "healthy"
    } == dict.fromkeys(
        (
            "kafka",
            "redis",
            *OURS,
            "prometheus",
            "grafana",
        ),
        "healthy",
    )
    assert next(s["ExitCode"] for s in states if s["Service"] == "topics") == 0
    assert all(p["URL"] == "127.0.0.1" for s in states for p in s["Publishers"] or [] if p["PublishedPort"])


def test_a_hundred_thousand_transactions_are_decided_and_prometheus_counts_what_the_topics_hold(system):
    produce(system, traffic_of(100_000, cards=2_000))
    sink = KafkaSink(system.kafka_connection)
    sink.send(TOPIC, [key for key, _ in BAD.values()], [value for _, value in BAD.values()])
    assert sink.flush(10)
    sink.close()
    wait_drained(system, 120)

    counts = check_everything(system)

    assert counts == {"inputs": 100_003, "decided": 100_000, "refused": len(BAD)}
    wait_until(
        lambda: system.value('sum(proact_records_in_total{job="scorer"})') == 100_003, 30, "Prometheus has looked"
    )
    decisions = [decode_record(value)[1] for _, _, _, value in read_all(system, "card-decisions")]
    by_action = Counter(decision["action"] for decision in decisions)
    assert {a.labels["action"]: a.value for a in system.ask("sum by (action) (proact_decisions_total)")} == {
        action.name: by_action[action.name] for action in Action
    }
    refused = {a.labels["reason"]: a.value for a in system.ask("sum by (reason) (proact_dead_letters_total) > 0")}
    assert sum(refused.values()) == len(BAD)
    assert refused["EMPTY"] == 1
    alerts = len(read_all(system, "card-alerts"))
    assert alerts == system.value("sum(proact_alerts_total)") == 100_000 - by_action["APPROVE"]
    assert (
        system.value("sum(proact_scores_count)")
        == system.value("sum(proact_decision_latency_seconds_count)")
        == 100_000
    )
    ends = {a.labels["topic"]: a.value for a in system.ask("sum by (topic) (proact_topic_end_offset)")}
    assert ends[TOPIC] == 100_003
    # The end of every atomic commit takes an offset of its own in each partition that it wrote to.
    for topic, records in (("card-decisions", 100_000), ("card-alerts", alerts), ("dead-letters", len(BAD))):
        assert records < ends[topic] < records + 2_000
    check_money(system, {d["transaction_id"]: d["action"] for d in decisions})


def check_money(system, action_of: dict[bytes, str]) -> None:
    """Prometheus's sums by action and currency are those of the transactions."""
    minor: dict[tuple[str, str], int] = defaultdict(int)
    for _, _, _, value in read_all(system, TOPIC):
        if value and len(value) > 100:
            record = decode_record(value)[1]
            minor[action_of[record["transaction_id"]], record["billing_currency"]] += record["billing_amount_minor"]
    counted = {
        (a.labels["action"], a.labels["currency"]): a.value
        for a in system.ask("sum by (action, currency) (proact_billing_amount_total)")
    }
    assert counted.keys() == minor.keys()
    for (action, currency), amount in minor.items():
        assert math.isclose(counted[action, currency], amount / 10 ** EXPONENTS[currency], rel_tol=1e-9)


def test_prometheus_answers_every_question_of_the_readme(system):
    def unanswered() -> list[str]:
        # Nothing being wrong is no series.
        return [q.text for q in QUESTIONS if not system.ask(q.query) and q.text != "What is wrong?"]

    assert none_left(unanswered, 60) == []


def test_every_panel_of_every_dashboard_shows_data(system):
    queries = {
        (panel["title"], target["expr"].replace("$__rate_interval", "1m").replace("$__range", "1h"))
        for file in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
        for panel in json.loads(file.read_text())["panels"]
        for target in panel["targets"]
        if not any(name in target["expr"] for name in LATER)
    }

    def empty() -> list[tuple[str, str]]:
        return [(title, query) for title, query in sorted(queries) if not system.ask(query)]

    assert len(queries) > 50
    assert none_left(empty, 60) == []


def test_logs_are_json_name_transactions_by_tokens_and_hold_no_card_number(system):
    lines = system.logs("scorer")
    parsed = [json.loads(line) for line in lines]
    refused = [line for line in parsed if line["message"] == "record refused"]

    assert {line["reason"] for line in refused} <= BAD.keys() | {"MALFORMED", "TRAILING_BYTES"}
    assert len(refused) == len(BAD)
    assert CARD_NUMBER.decode() not in "".join(lines)
    ids = [decode_record(value)[1]["transaction_id"] for _, _, _, value in read_all(system, "card-decisions")[:50]]
    assert not any(i.hex() in line for line in lines for i in ids)
    assert all(line.get("transaction") != transaction_token(ids[0]) for line in parsed)


@pytest.mark.parametrize(
    ("what", "command"),
    [
        ("write to its file system", ["python", "-c", "open('/opt/proact/x', 'w')"]),
        ("write to a system folder", ["sh", "-c", "echo x > /etc/passwd"]),
        ("run what it writes", ["sh", "-c", "cp /bin/true /tmp/x && chmod +x /tmp/x && /tmp/x"]),
        ("become root", ["python", "-c", "import os; os.setuid(0)"]),
        ("become root by a file that would make one", ["su", "-s", "/bin/sh", "root", "-c", "id"]),
        ("open a raw socket", ["python", "-c", "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)"]),
        ("find a compiler", ["sh", "-c", "command -v cc || command -v gcc || command -v clang || command -v ld || command -v make"]),
        ("install something", ["python", "-m", "pip", "--version"]),
        ("reach Docker", ["sh", "-c", "test -e /var/run/docker.sock"]),
    ],
)  # fmt: skip
def test_in_a_scorers_container_nobody_can(system, what, command):
    done = system.in_scorer(*command)

    assert done.returncode != 0, f"{what}: {done.stdout}"


def test_every_container_of_ours_is_locked_down_and_limited(system):
    for service in OURS:
        for container in system.containers(service):
            found = system.inspect(container)
            host = found["HostConfig"]
            assert found["Config"]["User"] == "10001:10001"
            assert host["ReadonlyRootfs"]
            assert host["CapDrop"] == ["ALL"]
            assert not host["CapAdd"]
            assert "no-new-privileges:true" in host["SecurityOpt"]
            assert host["Memory"] > 0
            assert host["NanoCpus"] > 0
            assert host["PidsLimit"] > 0
    for service in ("kafka", "redis", "prometheus"):
        host = system.inspect(system.containers(service)[0])["HostConfig"]
        assert host["CapDrop"] == ["ALL"]
        assert host["Memory"] > 0


def test_the_command_line_works_in_a_container(system):
    seen = system.in_scorer("proact", "tail", "card-alerts", "--from-beginning", "--limit", "3", "--json")
    lacking = system.in_scorer("proact", "stack", "status")

    assert len([json.loads(line) for line in seen.stdout.splitlines()]) == 3, seen.stderr
    assert lacking.returncode == 1
    assert "lacks" in lacking.stderr
    assert "Traceback" not in lacking.stderr


def test_scorers_are_killed_scaled_and_rolled_under_load_and_nothing_is_lost(system):
    with load(system, 60_000, seed=11, rate=2_000):
        system.scale(3)
        wait_until(lambda: system.value('count(up{job="scorer"} == 1)') == 3, 30, "Prometheus finds three scorers")
        victim = system.containers("scorer")[0]
        system.run("docker", "kill", victim)
        wait_until(
            lambda: system.value("sum(proact_partitions{job='scorer', state='running'})") == 6,
            30,
            "its partitions are taken over",
        )
        system.run("docker", "start", victim)
        system.scale(3)
        rolled = {name: set(system.containers(name)) for name in OURS}
        system.run("deploy/roll")
        assert not [name for name in OURS if rolled[name] & set(system.containers(name))]
        system.scale(1)

    assert check_everything(system)["decided"] == 160_000
    assert len(system.containers("scorer")) == 1


@pytest.mark.parametrize("store", ["redis", "kafka"])
def test_a_store_restarts_under_load_and_nothing_is_lost(system, store):
    before = check_everything(system)["decided"]
    with load(system, 20_000, seed=12 if store == "redis" else 13, rate=2_000):
        wait_until(lambda: system.value('sum(proact_records_in_total{job="scorer"})') > 0, 20, "Prometheus answers")
        time.sleep(2)
        system.compose("restart", "--timeout", "10", store)
    system.up()

    assert check_everything(system)["decided"] == before + 20_000
    assert all(system.inspect(c)["RestartCount"] == 0 for c in system.containers("scorer")), "a scorer died of it"


def profiles_of(system) -> int:
    client = redis.Redis.from_url(system.redis_url)
    return sum(client.hlen(key) for key in client.keys("*:profiles"))


def test_down_and_up_keep_everything_and_it_goes_on(system):
    before = check_everything(system)["decided"]
    profiles = profiles_of(system)
    assert profiles > 1_000
    counted = system.value("max_over_time(sum(proact_topic_end_offset{topic='card-decisions'})[10m:5s])")

    system.compose("down")
    system.up()

    assert profiles_of(system) == profiles
    produce(system, traffic_of(5_000, cards=2_000, seed=14))
    wait_drained(system, 60)
    assert check_everything(system)["decided"] == before + 5_000
    kept = system.value("max_over_time(sum(proact_topic_end_offset{topic='card-decisions'})[30m:5s])")
    assert kept >= counted > 0, "Prometheus remembers"


def test_a_scorer_that_is_stopped_ends_by_itself(system):
    produce(system, traffic_of(90_000, cards=2_000, seed=15))
    wait_until_busy(system, 90_000)
    [scorer] = system.containers("scorer")
    system.compose("stop", "--timeout", "15", "scorer")
    state = system.inspect(scorer)["State"]
    system.up()
    wait_drained(system, 60)

    assert state["ExitCode"] == 0, "137 is a kill"
    assert check_everything(system)["decided"] >= 90_000
