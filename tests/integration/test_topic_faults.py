"""What befalls the topic, and the group, under a running scorer, on a real Kafka: it halts with a remedy, or goes on by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from services.codec.transactions import TOPIC
from services.runtime.children import ServiceChild
from services.streams.admin import KafkaAdmin
from tests.integration.system import produce, scorers, traffic_of, wait_drained, wait_saved, wait_until

PARTITIONS = {0, 1, 2}
BEYOND_THE_POLL_INTERVAL_S = 17.0


@pytest.fixture
def system(own_stack, tmp_path):
    """A stack and a scorer on it, which has worked something off."""
    stack = own_stack()
    with scorers(stack, tmp_path) as [scorer]:
        scorer.wait_ready(120)
        produce(stack, traffic_of(2_000))
        wait_drained(stack)
        wait_saved(stack)
        yield stack, scorer


@pytest.fixture
def run_proact(proact):
    def call(stack, *arguments: str) -> None:
        environment = {"PROACT_KAFKA_BOOTSTRAP_SERVERS": stack.kafka_address, "PROACT_REDIS_URL": stack.redis_url}
        subprocess.run([*proact, *arguments], env={**os.environ, **environment}, check=True, timeout=120)

    return call


def halted(scorer: ServiceChild, cause: str, remedy: str) -> bool:
    health = scorer.health() or {}
    found = health.get("halted", {})
    reported = all(cause in reason and remedy in reason for reason in found.values())
    return health.get("status") == 503 and {int(p) for p in found} == PARTITIONS and reported


def wait_halted(scorer: ServiceChild, cause: str, remedy: str) -> None:
    wait_until(lambda: halted(scorer, cause, remedy), 60, f"halted for {cause}: {scorer.health()}")
    assert scorer.process.poll() is None


def test_a_topic_that_is_deleted_and_made_again_halts_the_scorer_which_goes_on_when_it_is_rebuilt(system, run_proact):
    stack, scorer = system
    KafkaAdmin(stack.kafka_connection).delete_topic(TOPIC)
    wait_halted(scorer, "TOPIC_MISSING", "proact topics apply")
    stack.apply_topics({"partitions": 3})
    wait_halted(scorer, "TOPIC_RECREATED", "proact grid rebuild")

    run_proact(stack, "grid", "rebuild")
    wait_until(lambda: (scorer.health() or {}).get("status") == 200, 60, "the scorer goes on")
    produce(stack, traffic_of(1_000, seed=2))
    wait_drained(stack)
    assert scorer.process.poll() is None


def test_partitions_that_are_added_halt_the_scorer(system):
    stack, scorer = system
    KafkaAdmin(stack.kafka_connection).add_partitions(TOPIC, 5)

    wait_halted(scorer, "PARTITIONS_CHANGED", "proact grid rebuild")


def test_a_log_that_is_truncated_under_a_frozen_scorer_halts_it_when_it_wakes(system):
    stack, scorer = system
    os.kill(scorer.process.pid, signal.SIGSTOP)
    produce(stack, traffic_of(12_000, seed=2))
    admin = KafkaAdmin(stack.kafka_connection)
    admin.delete_records(TOPIC, {p: admin.extents(TOPIC)[TOPIC, p][1] for p in PARTITIONS})
    os.kill(scorer.process.pid, signal.SIGCONT)

    wait_halted(scorer, "RETENTION", "--accept-gap")


def test_a_scorer_that_was_frozen_beyond_the_poll_interval_joins_again_by_itself(system):
    stack, scorer = system
    os.kill(scorer.process.pid, signal.SIGSTOP)
    produce(stack, traffic_of(2_000, seed=2))
    time.sleep(BEYOND_THE_POLL_INTERVAL_S)
    os.kill(scorer.process.pid, signal.SIGCONT)

    wait_drained(stack, 90)
    wait_until(lambda: (scorer.health() or {}).get("status") == 200, 60, "the scorer is ready again")
    assert scorer.process.poll() is None
