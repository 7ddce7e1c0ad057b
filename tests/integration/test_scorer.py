"""Scorer processes on a real Kafka and a real Redis: bad input, crashes, hand-overs, outages, stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from dataclasses import replace

import numpy as np
import psutil
import pytest

from services.codec.schemas import MAGIC, topics
from services.codec.transactions import TOPIC, encode_transactions
from services.core.columns import Text
from services.stack.processes import free_port
from services.streams.sink import KafkaSink
from tests.integration.system import (
    check_everything,
    produce,
    read_all,
    scorers,
    traffic_of,
    wait_drained,
    wait_until,
    wait_until_busy,
)


def test_bad_records_become_dead_letters_among_decided_neighbours(own_stack, tmp_path):
    stack, traffic = own_stack(), traffic_of(600)
    good = encode_transactions(traffic.columns)
    keys: list[bytes | None] = list(traffic.columns.card_id.tolist())
    values: list[bytes | None] = list(good)
    bad: dict[int, tuple[bytes | None, bytes | None]] = {
        10: (keys[10], b""),
        50: (keys[50], None),
        51: (keys[51], good[51][: len(good[51]) // 2]),
        52: (keys[52], np.random.default_rng(1).bytes(300)),
        100: (keys[100], good[100] + b"\x00"),
        101: (keys[101], MAGIC + b"whoknows" + good[101][10:]),
        200: (keys[200], topics()["card-alerts"].latest.header + good[200][10:]),
        201: (
            keys[201],
            good[201].replace(b"terminal-", b"\xff\xffrminal-").replace(b"merchant-", b"\xff\xfferchant-"),
        ),
        300: (None, good[300]),
        301: (b"card-of-somebody-else", good[301]),
        400: (keys[400], good[400] + b"x" * 20_000),
        599: (keys[599], b'{"card_number": "4111111111111111"}'),
    }
    for at, (key, value) in bad.items():
        keys[at], values[at] = key, value
    sink = KafkaSink(stack.kafka_connection)
    sink.send(TOPIC, keys, values)
    assert sink.flush(10)
    sink.close()

    with scorers(stack, tmp_path) as [scorer]:
        scorer.wait_ready()
        wait_drained(stack)
        port = scorer.settings.metrics_port
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            exposed = answer.read().decode()

    counts = check_everything(stack)
    assert counts == {"inputs": 600, "decided": 588, "refused": 12}
    assert (
        sum(float(line.split()[-1]) for line in exposed.splitlines() if line.startswith("proact_dead_letters_total{"))
        == 12
    )
    letters = b"".join(value or b"" for _, _, _, value in read_all(stack, "dead-letters"))
    assert b"4111111111111111" not in letters
    assert exposed.count("\n") < 1_000, "labels must come from closed lists"


def test_a_scorer_that_is_killed_under_load_loses_nothing_and_repeats_nothing(own_stack, tmp_path):
    stack = own_stack()
    produce(stack, traffic_of(90_000))
    with scorers(stack, tmp_path, batch_records_max=500) as [first]:
        first.wait_ready()
        wait_until_busy(stack, 90_000)
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
    with scorers(stack, tmp_path) as [second]:
        second.wait_ready(90)
        wait_drained(stack)

    counts = check_everything(stack)

    assert counts["decided"] == 90_000


def test_partitions_move_between_scorers_under_load_without_skipping_a_record(own_stack, tmp_path):
    stack = own_stack()
    with scorers(stack, tmp_path, batch_records_max=300) as [first]:
        first.wait_ready()
        produce(stack, traffic_of(20_000, seed=1))
        with scorers(stack, tmp_path / "second", batch_records_max=300) as [second]:
            wait_until(
                lambda: (second.health() or {}).get("partitions") or [], 60, "the second scorer owns a partition"
            )
            produce(stack, traffic_of(20_000, seed=2), rate=10_000)
            assert second.stop() == 0
        wait_until(lambda: len((first.health() or {}).get("partitions", [])) == 3, 30, "the first has all again")
        wait_drained(stack)

    assert check_everything(stack)["decided"] == 40_000


def test_redis_away_pauses_the_scorer_which_stays_alive_and_goes_on(own_stack, tmp_path):
    stack = own_stack()
    with scorers(stack, tmp_path, batch_records_max=500, grid_timeout_ms=500) as [scorer]:
        scorer.wait_ready()
        produce(stack, traffic_of(2_000, seed=1))
        wait_drained(stack)
        stack.redis.down()
        produce(stack, traffic_of(3_000, seed=2))
        wait_until(lambda: (scorer.health() or {}).get("status") == 503, 15, "not ready")
        time.sleep(8)  # beyond the session timeout: it must still be in its group
        health = scorer.health() or {}
        assert (health["live"], health["ready"]["grid_reachable"], health["partitions"]) == (True, False, [0, 1, 2])
        stack.redis.up(lambda _: None)
        wait_drained(stack)
        wait_until(lambda: (scorer.health() or {}).get("status") == 200, 15, "ready again")
        assert scorer.process.poll() is None

    assert check_everything(stack)["decided"] == 5_000
    assert "waits for redis" in (tmp_path / "scorer-0.log").read_text()


def test_kafka_away_is_waited_out(own_stack, tmp_path):
    stack = own_stack()
    produce(stack, traffic_of(90_000, seed=1))
    with scorers(stack, tmp_path, batch_records_max=500) as [scorer]:
        scorer.wait_ready()
        wait_until_busy(stack, 90_000)
        stack.kafka.down()
        time.sleep(5)
        assert scorer.process.poll() is None
        wait_until(lambda: (scorer.health() or {}).get("status") == 503, 15, "not ready")
        assert (scorer.health() or {})["live"]
        stack.kafka.up(lambda _: None)
        produce(stack, traffic_of(1_000, seed=2))
        wait_drained(stack, 90)

    assert check_everything(stack)["decided"] == 91_000


@pytest.mark.long  # it is about time, so it needs the machine for itself
@pytest.mark.parametrize("outage", [None, "redis", "kafka"])
def test_sigterm_ends_a_busy_scorer_cleanly_within_five_seconds(own_stack, tmp_path, outage):
    stack = own_stack()
    produce(stack, traffic_of(60_000))
    with scorers(stack, tmp_path, batch_records_max=500) as [scorer]:
        scorer.wait_ready()
        wait_until_busy(stack, 60_000)
        if outage:
            getattr(stack, outage).down()
            time.sleep(6 if outage == "kafka" else 1)  # into the wait for a commit that nobody answers, and beyond
        begin = time.monotonic()
        code = scorer.stop(20)
        took = time.monotonic() - begin
        log = (tmp_path / "scorer-0.log").read_text()

    assert code == 0, log[-2_000:]
    assert took < 5.5, log[-2_000:]
    assert "Traceback" not in log


def test_a_card_number_never_reaches_logs_metrics_or_topics(own_stack, tmp_path):
    stack, traffic = own_stack(), traffic_of(50)
    pan = b"4000056655665556"
    columns = traffic.columns
    poisoned = replace(columns, merchant_id=Text.constant(pan, 50))
    sink = KafkaSink(stack.kafka_connection)
    sink.send(TOPIC, columns.card_id.tolist(), encode_transactions(poisoned))
    sink.send(TOPIC, [pan] * 5, [b"pan=" + pan] * 5)
    assert sink.flush(10)
    sink.close()
    with scorers(stack, tmp_path) as [scorer]:
        scorer.wait_ready()
        wait_drained(stack)
        with urllib.request.urlopen(f"http://127.0.0.1:{scorer.settings.metrics_port}/metrics") as answer:
            metrics = answer.read()

    written = [r for t in ("card-decisions", "card-alerts", "dead-letters") for r in read_all(stack, t)]
    assert len(written) == 55
    assert not any(pan in (key or b"") + (value or b"") for _, _, key, value in written)
    assert pan not in metrics + (tmp_path / "scorer-0.log").read_bytes()


def test_several_workers_run_under_one_supervisor_that_starts_a_dead_one_again(own_stack, tmp_path, proact):
    stack = own_stack(4)
    base = free_port()
    environment = {"PROACT_KAFKA_BOOTSTRAP_SERVERS": stack.kafka_address, "PROACT_REDIS_URL": stack.redis_url}
    log = (tmp_path / "supervisor.log").open("wb")
    supervisor = subprocess.Popen(
        [*proact, "scorer", "--workers", "2", "--metrics-port", str(base)], env={**os.environ, **environment},
        stderr=log, stdout=log,
    )  # fmt: skip
    try:

        def ready(port: int) -> list[int]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
                    return json.load(answer)["partitions"]
            except OSError:
                return []

        wait_until(lambda: len(ready(base)) == len(ready(base + 1)) == 2, 60, "both workers own two partitions")
        victim = next(
            c for c in psutil.Process(supervisor.pid).children() if c.environ()["PROACT_METRICS_PORT"] == str(base + 1)
        )
        victim.kill()
        produce(stack, traffic_of(3_000))
        wait_drained(stack)
        wait_until(lambda: len(ready(base)) == len(ready(base + 1)) == 2, 60, "the dead one is back")
    finally:
        supervisor.send_signal(signal.SIGTERM)
        code = supervisor.wait(20)
        log.close()

    assert code == 0
    assert check_everything(stack)["decided"] == 3_000
