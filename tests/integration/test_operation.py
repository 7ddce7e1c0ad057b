"""What an operator does: look, verify, rebuild, resume, check, redrive; on a real Kafka and a real Redis."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
import redis

from services.codec.transactions import TOPIC, encode_transactions
from services.streams.admin import KafkaAdmin
from services.streams.sink import KafkaSink
from tests.integration.system import (
    check_everything,
    produce,
    read_all,
    scorers,
    settings_for,
    traffic_of,
    wait_drained,
    wait_until,
    wait_until_busy,
)


@pytest.fixture
def run(proact, own_stack):
    stack = own_stack()

    def call(*arguments: str, code: int = 0) -> str:
        environment = {"PROACT_KAFKA_BOOTSTRAP_SERVERS": stack.kafka_address, "PROACT_REDIS_URL": stack.redis_url}
        done = subprocess.run(
            [*proact, *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    call.stack = stack
    return call


def decide(stack, folder, count: int, seed: int, **changes) -> None:
    produce(stack, traffic_of(count, seed=seed))
    with scorers(stack, folder / str(seed), **changes) as [scorer]:
        scorer.wait_ready()
        wait_drained(stack)


def rows(run, code: int = 0) -> list[dict]:
    return [
        json.loads(line) for line in run("grid", "status", "--json", code=code).splitlines() if line.startswith("{")
    ]


def test_a_damaged_profile_is_found_and_its_partition_rebuilt_while_the_others_stay(run, tmp_path):
    decide(run.stack, tmp_path, 3_000, 1)
    assert {row["state"] for row in rows(run)} == {"current"}
    assert run("grid", "verify").count("equal") == 3
    verdict = json.loads(run("check").splitlines()[0])
    assert (verdict["verdict"], verdict["transactions"], verdict["decided"]) == ("ok", 3_000, 3_000)

    client = redis.Redis.from_url(run.stack.redis_url)
    key = f"{{{TOPIC}:1}}:profiles"
    card, other = client.hkeys(key)[:2]
    client.hset(key, card, client.hget(key, other))

    assert "1 differ" in run("grid", "verify", code=1)
    broken = json.loads(run("check", code=1).splitlines()[0])
    assert broken["anomalies"].keys() == {"divergent-state"}
    assert "partition 1" in run("grid", "rebuild", "--partition", "1")
    assert run("grid", "verify").count("equal") == 3
    assert json.loads(run("check").splitlines()[0])["verdict"] == "ok"
    decide(run.stack, tmp_path, 1_000, 2)
    assert check_everything(run.stack)["decided"] == 4_000


def test_who_looks_at_a_busy_scorer_sees_where_it_is_and_no_halt(run, tmp_path):
    produce(run.stack, traffic_of(400_000, cards=3_000))
    with scorers(run.stack, tmp_path) as [scorer]:
        scorer.wait_ready()
        wait_until_busy(run.stack, 400_000)
        seen = [sum(row["committed"] or 0 for row in rows(run)) for _ in range(2)]

    assert 0 < seen[0] < seen[1] < 400_000, "nobody waits until the work is done"


def test_lost_offsets_halt_until_somebody_accepts_what_the_grid_says(run, tmp_path):
    stack = run.stack
    decide(stack, tmp_path, 2_000, 1)
    KafkaAdmin(stack.kafka_connection).delete_group("proact-scorer")
    halted = rows(run, code=1)
    assert all("OFFSETS_MISSING" in row["reason"] and "accept-applied" in row["remedy"] for row in halted)
    produce(stack, traffic_of(1_000, seed=2))
    with scorers(stack, tmp_path / "halted") as [scorer]:
        wait_until(lambda: len((scorer.health() or {}).get("halted", {})) == 3, 60, "all partitions are halted")
        assert scorer.health()["status"] == 503
    assert len(read_all(stack, "card-decisions")) == 2_000
    assert "stays as it is" in run("grid", "rebuild", code=1)
    assert "still halted" in run("grid", "resume")

    assert "committed offset set to" in run("grid", "resume", "--accept-applied")
    decide(stack, tmp_path, 500, 3)

    assert check_everything(stack)["decided"] == 3_500


def test_a_gap_in_the_log_halts_until_somebody_accepts_it(run, tmp_path):
    stack = run.stack
    decide(stack, tmp_path, 2_000, 1)
    produce(stack, traffic_of(2_000, seed=2))
    admin = KafkaAdmin(stack.kafka_connection)
    end = admin.extents(TOPIC)[TOPIC, 0][1]
    admin.delete_records(TOPIC, {0: end - 100})
    with scorers(stack, tmp_path / "halted") as [scorer]:
        wait_until(
            lambda: "RETENTION" in json.dumps((scorer.health() or {}).get("halted")), 60, "one partition is halted"
        )
        wait_until(
            lambda: [row["state"] for row in rows(run, code=1)] == ["halted", "current", "current"], 30, "others go on"
        )

    assert "stays as it is" in run("grid", "rebuild", "--partition", "0", code=1)
    assert f"committed offset set to {end - 100:,}" in run("grid", "resume", "--partition", "0", "--accept-gap")
    decide(stack, tmp_path, 1_000, 3)

    assert {row["state"] for row in rows(run)} == {"current"}
    assert run("grid", "verify").count("equal") == 3


def test_a_resumed_partition_goes_on_without_a_restart(run, tmp_path):
    stack = run.stack
    with scorers(stack, tmp_path) as [scorer]:
        scorer.wait_ready()
        bad = [b"rubbish %d" % i for i in range(3_000)]
        sink = KafkaSink(stack.kafka_connection)
        sink.send(TOPIC, [b"card-1"] * len(bad), bad)
        assert sink.flush(10)
        sink.close()
        wait_until(lambda: (scorer.health() or {}).get("halted"), 30, "the breaker opens")
        assert "breaker" in json.dumps(scorer.health()["halted"])
        assert len(read_all(stack, "dead-letters")) < 1_000
        [halted] = [row for row in rows(run, code=1) if row["reason"]]
        produce(stack, traffic_of(2_000, seed=4))
        wait_until(lambda: len(read_all(stack, "card-decisions")) > 500, 30, "the other partitions go on")
        run("grid", "resume", "--partition", str(halted["partition"]))
        wait_drained(stack)
        wait_until(lambda: (scorer.health() or {}).get("status") == 200, 10, "all partitions run")

    assert check_everything(stack) == {"inputs": 5_000, "decided": 2_000, "refused": 3_000}


def test_dead_letters_are_sent_again_once_each(run, tmp_path):
    stack, traffic = run.stack, traffic_of(300)
    good = encode_transactions(traffic.columns)
    keys = traffic.columns.card_id.tolist()
    sink = KafkaSink(stack.kafka_connection)
    sink.send(TOPIC, keys, [value + b"\x00" if i < 20 else value for i, value in enumerate(good)])
    sink.send(TOPIC, [b"card-1"], [b"pan=4111111111111111"])
    assert sink.flush(10)
    sink.close()
    with scorers(stack, tmp_path / "first") as [scorer]:
        scorer.wait_ready()
        wait_drained(stack)
    counted = json.loads(run("dead-letters", "redrive", "--dry-run").splitlines()[0])
    assert counted == {"dry_run": True, "sent": {"TRAILING_BYTES": 20}, "passed_over": {"masked": 1}}
    assert json.loads(run("dead-letters", "redrive").splitlines()[0])["sent"] == {"TRAILING_BYTES": 20}
    assert json.loads(run("dead-letters", "redrive").splitlines()[0])["sent"] == {}
    with scorers(stack, tmp_path / "second") as [scorer]:
        scorer.wait_ready()
        wait_until(lambda: len(read_all(stack, "dead-letters")) == 41, 30, "they are refused again")

    assert json.loads(run("check").splitlines()[0])["verdict"] == "ok"


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_scorer_refuses_to_start_on_a_redis_that_drops_keys(run, policy):
    redis.Redis.from_url(run.stack.redis_url).config_set("maxmemory-policy", policy)

    said = run("scorer", "--metrics-port", str(settings_for(run.stack).metrics_port), code=1)

    assert "noeviction" in said


def test_the_lowest_latency_is_to_be_had_at_least_once(run, tmp_path):
    decide(run.stack, tmp_path, 3_000, 1, guarantee="at_least_once")

    assert check_everything(run.stack)["decided"] == 3_000
    assert json.loads(run("check", "--guarantee", "at_least_once").splitlines()[0])["verdict"] == "ok"
