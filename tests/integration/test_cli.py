"""The command line as its user meets it: help, mistakes, the stack, data in and out."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from services.stack.processes import free_port, port_taken
from tests.cli.running import run
from tests.integration.system import check_everything, scorers, wait_drained


def test_the_stack_comes_up_once_stays_up_and_goes_down(proact, tmp_path):
    ports = {
        "PROACT_KAFKA_PORT": str(free_port()),
        "PROACT_REDIS_PORT": str(free_port()),
        "PROACT_DATA_FOLDER": str(tmp_path / "d"),
    }
    try:
        assert run(proact, "stack", "status", **ports).returncode == 1
        assert run(proact, "stack", "up", **ports).returncode == 0
        before = json.loads(run(proact, "stack", "status", "--json", **ports).stdout)
        again = run(proact, "stack", "up", **ports)
        after = json.loads(run(proact, "stack", "status", "--json", **ports).stdout)
        assert again.returncode == 0
        assert before == after
        assert all(part["answers"] and part["pid"] for part in after.values())
    finally:
        down = run(proact, "stack", "down", **ports)
    assert "stopped Kafka and Redis" in down.stdout
    assert "nothing ran" in run(proact, "stack", "down", **ports).stdout
    assert not any(psutil.pid_exists(part["pid"]) for part in after.values())


def test_a_taken_port_is_reported_with_the_way_out(proact, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run(proact, "stack", "up", "--redis-port", port, "--data-folder", str(tmp_path / "d"))

    assert done.returncode == 1
    assert f"port {port} is taken" in done.stderr
    assert "--redis-port" in done.stderr


def test_a_stack_whose_second_port_is_taken_leaves_nothing_and_says_by_whom(proact, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        kafka, redis = str(taken.getsockname()[1]), free_port()
        flags = ["--data-folder", str(tmp_path / "d"), "--redis-port", str(redis), "--kafka-port", kafka]
        done = run(proact, "stack", "up", *flags)

    try:
        assert done.returncode == 1
        assert f"port {kafka} is taken by process {os.getpid()} (" in done.stderr
        assert not port_taken(redis)
        assert leftovers(tmp_path) == []
    finally:
        assert "nothing ran" in run(proact, "stack", "down", *flags).stdout


def test_a_stack_that_cannot_start_shows_the_end_of_its_log(proact, tmp_path):
    kafka, redis = str(free_port()), str(free_port())
    flags = ["--data-folder", str(tmp_path / "d"), "--kafka-port", kafka, "--redis-port", redis]
    properties = tmp_path / "d" / "kafka" / "server.properties"
    try:
        assert run(proact, "stack", "up", *flags).returncode == 0
        run(proact, "stack", "down", *flags)
        properties.write_text(properties.read_text() + "log.retention.hours=not-a-number\n")
        done = run(proact, "stack", "up", *flags)
        assert done.returncode == 1
        assert "kafka stopped while it started; the end of" in done.stderr
        assert "not-a-number" in done.stderr
        assert not port_taken(int(redis)), "what was started for it is stopped"
    finally:
        run(proact, "stack", "down", *flags)


def test_simulated_files_are_replayed_and_their_decisions_are_shown(proact, own_stack, tmp_path):
    stack, file = own_stack(), str(tmp_path / "traffic.parquet")
    where = {"PROACT_KAFKA_BOOTSTRAP_SERVERS": stack.kafka_address, "PROACT_REDIS_URL": stack.redis_url}
    made = run(proact, "simulate", "--cards", "200", "--days", "10", "--output", file, **where)
    assert made.returncode == 0, made.stderr
    with scorers(stack, tmp_path) as [scorer]:
        scorer.wait_ready()
        said = run(proact, "replay", file, "--limit", "1500", **where).stdout
        assert said.startswith("1,500 transactions, "), said
        assert said.endswith(" labels\n"), said
        assert run(proact, "replay", file, "--limit", "20", "--speed", "100000x", **where).returncode == 0
        live = run(proact, "simulate", "--cards", "500", "--days", "2", "--rate", "200", "--seconds", "2", **where)
        assert live.stdout.startswith("400 transactions"), live.stderr
        wait_drained(stack)
        watched = run(proact, "watch", "--seconds", "1", **where)
    assert watched.returncode == 0
    assert "lag=0" in watched.stderr

    shown = run(proact, "tail", "card-decisions", "--json", "--from-beginning", "--limit", "7", **where)
    records = [json.loads(line) for line in shown.stdout.splitlines()]
    assert len(records) == 7
    assert all(r["action"] in ("APPROVE", "CHALLENGE", "REVIEW", "BLOCK") for r in records)
    assert run(proact, "tail", "dead-letters", "--from-beginning", "--seconds", "1", **where).stdout == ""
    counts = check_everything(stack)
    assert counts["decided"] == 1_920


def leftovers(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = " ".join(process.info["cmdline"] or []) + str(
            (process.info["environ"] or {}).get("PROACT_DATA_FOLDER", "")
        )
        if str(folder) in words and process.pid != os.getpid():
            found.append(words[:200])
    return found


def test_the_demo_adds_up_and_leaves_nothing_behind(proact, tmp_path):
    done = run(proact, "demo", "--rate", "300", "--seconds", "4", timeout=200, PROACT_DATA_FOLDER=str(tmp_path))

    assert done.returncode == 0, done.stderr[-2_000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["transactions"] >= 200_000
    assert result["decisions"] + result["dead_letters"] == result["transactions"]
    assert sum(result["actions"].values()) == result["decisions"]
    assert result["alerts"] >= result["decisions"] - result["actions"]["APPROVE"]
    assert 0 < result["precision"] <= 1
    assert 0 < result["recall"] <= 1
    assert result["latency_ms"]["p50"] <= result["latency_ms"]["p99"]
    assert 0 < result["rule_change"]["took_s"] < 10
    assert "The latest alerts:" in done.stdout
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_stops_everything_that_it_started(proact, tmp_path, number):
    demo = subprocess.Popen(
        [*proact, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PROACT_DATA_FOLDER": str(tmp_path)},
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "demo" / "scorer.log").exists():
        assert demo.poll() is None, demo.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(4)
    demo.send_signal(number)
    _, reported = demo.communicate(timeout=60)

    assert demo.returncode == 130
    assert b"interrupted" in reported
    assert b"Traceback" not in reported
    assert leftovers(tmp_path) == []
