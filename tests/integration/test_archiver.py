"""Archivers on a real Kafka and Redis: kill -9 at any moment, and each record is in its table once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np

from services.lake.queries import Lake
from tests.integration.system import produce, scorers, services, traffic_of, wait_drained, wait_until

TOPICS = ("card-transactions", "card-decisions", "fraud-labels", "card-reassessments", "rule-sets")
COUNT = 40_000


def checked(proact: list[str], stack, folder: Path) -> dict:
    environment = os.environ | {
        "PROACT_KAFKA_BOOTSTRAP_SERVERS": stack.kafka_address,
        "PROACT_REDIS_URL": str(stack.redis_url),
        "PROACT_LAKE_URL": str(folder),
    }
    done = subprocess.run([*proact, "lake", "check"], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def rows(folder: Path, table: str) -> int:
    return Lake(str(folder), TOPICS).query(f"SELECT count(*) AS n FROM {table}").to_pylist()[0]["n"]


def test_archivers_that_are_killed_again_and_again_keep_each_record_once(own_stack, proact, tmp_path: Path):
    stack, folder, rng = own_stack(partitions=3), tmp_path / "lake", np.random.default_rng(7)
    settings = {"lake_url": str(folder), "lake_interval_ms": 200}
    with (
        scorers(stack, tmp_path) as [scorer],
        services(stack, tmp_path, ["router", "archiver", "archiver"], **settings) as [router, *archivers],
    ):
        for child in (scorer, router, *archivers):
            child.wait_ready(60)
        produce(stack, traffic_of(COUNT), rate=4_000, labelled=True)
        for _ in range(8):
            victim = archivers[int(rng.integers(0, 2))]
            time.sleep(float(rng.uniform(0.05, 0.8)))
            os.kill(victim.process.pid, signal.SIGKILL)
            victim.stop()
            victim.start()
        wait_drained(stack)
        for topic in TOPICS:
            wait_drained(stack, 120, f"proact-archiver-{topic}", topic)

        found = checked(proact, stack, folder)

    assert found["verdict"] == "ok", found
    assert found["tables"]["card-transactions"]["compared"] == COUNT
    assert found["tables"]["card-decisions"]["compared"] == COUNT
    assert found["tables"]["fraud-labels"]["compared"] > 0
    assert rows(folder, "card_decisions") == COUNT


def test_records_are_in_their_table_within_the_interval_and_those_that_come_later_are_added(
    own_stack, proact, tmp_path: Path
):
    stack, folder = own_stack(partitions=3), tmp_path / "lake"
    traffic = traffic_of(2_000)
    with services(stack, tmp_path, ["archiver"], lake_url=str(folder), lake_interval_ms=500) as [archiver]:
        archiver.wait_ready(60)
        produce(stack, traffic.take(np.arange(1_000)))
        wait_until(lambda: rows(folder, "card_transactions") == 1_000, 20, "the first are in the table")
    produce(stack, traffic.take(np.arange(1_000, 2_000)))
    with services(stack, tmp_path, ["archiver"], lake_url=str(folder), lake_interval_ms=500):
        wait_until(lambda: rows(folder, "card_transactions") == 2_000, 60, "the others are, too")

    assert checked(proact, stack, folder)["tables"]["card-transactions"]["compared"] == 2_000
