"""What is said of stores that are away or refuse: where, what helps, again while it lasts, and no secret."""

from __future__ import annotations

import logging
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
import redis

from services.grid import GridAwayError, GridRefusedError, GridUnavailableError
from services.grid.connection import GridConnection, place_of
from services.grid.memory import GridMemory, MemoryGrid
from services.grid.redis import RedisGrid, refused
from services.runtime.clock import ManualClock
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.remedies import with_remedy
from services.stack.processes import free_port
from services.stack.redis import find_redis
from services.streams import KafkaAwayError
from services.streams.connection import KafkaConnection
from services.streams.memory import MemoryLog, MemorySource
from services.streams.publishers import KafkaAtomicProducer
from services.worker.membership import TRY_AFTER_S_MAX, GroupMembership
from services.worker.outages import TELL_EVERY_S, AbandonedError, Outages

CANARY, USER, ADMIN = "c4n4ry", "c4n4rx", "right"
AWAY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def guarded_redis() -> Iterator[int]:
    """A Redis that wants a password, and whose user may do nothing; returns its port."""
    port = free_port()
    options = ["--port", str(port), "--requirepass", ADMIN, "--save", ""]
    process = subprocess.Popen([find_redis(), *options], stdout=subprocess.DEVNULL)
    try:
        until_s = time.monotonic() + 20
        while time.monotonic() < until_s:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        admin = redis.Redis(port=port, password=ADMIN)
        admin.execute_command("ACL", "SETUSER", USER, "on", f">{CANARY}", "-@all")
        yield port
    finally:
        process.terminate()
        process.wait(20)


def test_a_redis_that_wants_a_password_is_named_with_the_setting_in_one_line(guarded_redis):
    with pytest.raises(GridRefusedError) as no_password:
        RedisGrid(GridConnection.of(f"redis://127.0.0.1:{guarded_redis}/0")).check()

    said = with_remedy(no_password.value)
    assert said.startswith(f"Redis at 127.0.0.1:{guarded_redis} wants a password: set PROACT_REDIS_PASSWORD")


@pytest.mark.parametrize("login", [f"{USER}:wrong-{CANARY}", f":wrong-{CANARY}", f"{USER}:{CANARY}"])
def test_a_redis_that_refuses_is_named_without_user_and_password(guarded_redis, login):
    with pytest.raises(GridRefusedError) as no:
        RedisGrid(GridConnection.of(f"redis://{login}@127.0.0.1:{guarded_redis}/0")).check()

    said = with_remedy(no.value)
    assert f"Redis at 127.0.0.1:{guarded_redis}" in said
    assert "PROACT_REDIS_URL" in said
    assert CANARY not in said
    assert USER not in said


def test_what_redis_says_of_a_user_is_not_repeated():
    newer = redis.exceptions.NoPermissionError(f"User {USER} has no permissions to run the 'info' command")

    assert USER not in refused(newer, "host:6379")


def test_a_redis_that_is_away_is_named_and_what_helps():
    with pytest.raises(GridAwayError) as away:
        RedisGrid(GridConnection.of(f"redis://{USER}:{CANARY}@{AWAY}/0")).check()

    said = with_remedy(away.value)
    assert said.startswith(f"Redis at {AWAY} does not answer")
    assert "proact stack up" in said
    assert "PROACT_REDIS_URL" in said
    assert CANARY not in said


@pytest.mark.parametrize(
    ("url", "place"),
    [
        (f"redis://{USER}:{CANARY}@host/0", "host:6379"), (f"rediss://:{CANARY}@[::1]:7000/0?x={CANARY}", "[::1]:7000"),
        ("unix:///run/redis.sock", "/run/redis.sock"),
    ],
)  # fmt: skip
def test_of_an_address_the_place_alone_is_reported(url, place):
    assert place_of(url) == place


def test_a_producer_that_cannot_be_opened_says_that_kafka_does_not_answer_and_nothing_of_a_commit():
    with pytest.raises(KafkaAwayError) as away:
        KafkaAtomicProducer(KafkaConnection(AWAY), "topic", "name")

    said = with_remedy(away.value)
    assert said.startswith(f"Kafka at {AWAY} does not answer")
    assert "proact stack up" in said
    assert "PROACT_KAFKA_BOOTSTRAP_SERVERS" in said
    assert "commit" not in said


def outages(clock: ManualClock) -> Outages:
    source = MemorySource(MemoryLog(1), "topic", "worker")
    return Outages(source, clock, Health(clock), MetricsRegistry())


class Away(MemoryGrid):
    def __init__(self) -> None:
        super().__init__(GridMemory(), "worker")
        self.error: GridUnavailableError | None = GridAwayError("Redis at host:6379 does not answer")

    def check(self) -> None:
        if self.error is not None:
            raise self.error


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_store_that_is_away_from_the_start_is_reported_at_once_and_now_and_again_while_it_lasts(caplog):
    clock, grid = ManualClock(), Away()
    waits = outages(clock)
    for _ in range(int(2.5 * TELL_EVERY_S)):
        waits.probe(grid, idle=False)
        clock.sleep(1.0)
    assert lines(caplog) == ["a store is away"] * 3
    assert "proact stack up" in caplog.records[-1].fields["error"]

    grid.error = None
    waits.probe(grid, idle=False)
    grid.error = GridAwayError("Redis at host:6379 does not answer")
    waits.probe(grid, idle=False)
    assert lines(caplog) == ["a store is away"] * 4, "the next outage is news"


def test_what_is_waited_for_is_reported_now_and_again(caplog, monkeypatch):
    clock, tries = ManualClock(), iter(range(int(2.5 * TELL_EVERY_S)))
    waits = outages(clock)
    monkeypatch.setattr(waits, "keep_membership", lambda _: clock.sleep(1.0))

    def call() -> None:
        if next(tries, None) is not None:
            raise KafkaAwayError("Kafka at host:9092 does not answer")

    waits.wait_out("kafka", call)

    assert lines(caplog) == ["waits for kafka"] * 3
    assert "PROACT_KAFKA_BOOTSTRAP_SERVERS" in caplog.records[0].fields["error"]


def test_a_worker_that_redis_does_not_take_says_so_now_and_again(caplog):
    clock, grid = ManualClock(), Away()
    grid.error = GridRefusedError("Redis at host:6379 wants a password")
    attendance = GroupMembership(MemorySource(MemoryLog(1), "topic", "worker"), grid, clock, Health(clock))

    attendance.begin()
    for _ in range(int(2.5 * TELL_EVERY_S)):
        assert not attendance.turn()
        clock.sleep(1.0)

    assert TRY_AFTER_S_MAX < TELL_EVERY_S
    reported_again = [line for line in lines(caplog) if line.startswith("still out of its group")]
    assert len(reported_again) == 2
    assert "wants a password" in caplog.records[-1].fields["reason"]


def test_an_outage_that_is_given_up_is_no_endless_wait():
    waits = outages(ManualClock())
    waits.stop()

    def call() -> None:
        raise KafkaAwayError("away")

    with pytest.raises(AbandonedError):
        waits.wait_out("kafka", call)
