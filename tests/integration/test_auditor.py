"""Auditors on a real Kafka and Redis: killed again and again they find nothing in what scorers decide, and a fault that was put there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from services.codec.records import decode_as_newest, encode_record
from services.codec.schemas import topics
from services.runtime.catalogue import AUDITED, PARITY_MISMATCHES
from services.runtime.children import samples
from services.streams.sink import KafkaSink
from tests.integration.system import produce, read_all, scorers, services, traffic_of, wait_drained, wait_until

TOPICS = ("card-transactions", "card-decisions", "audit-events")
COUNT = 4_000


def counted(auditor: Any, metric: Any) -> float:
    return sum(samples(auditor.metrics(), metric).values())


def wait_audited(stack: Any) -> None:
    for topic in TOPICS:
        wait_drained(stack, 120, f"proact-auditor-{topic}", topic)


def explained(proact: list[str], stack: Any, asked: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PROACT_KAFKA_BOOTSTRAP_SERVERS": stack.kafka_address,
        "PROACT_LAKE_URL": "/nowhere",
    }
    return subprocess.run([*proact, "explain", asked], env=environment, capture_output=True, text=True, check=False)


def test_an_auditor_that_is_killed_finds_nothing_but_what_was_put_there(own_stack, proact, tmp_path: Path):
    stack, rng = own_stack(partitions=3), np.random.default_rng(7)
    with (
        scorers(stack, tmp_path) as [scorer],
        services(stack, tmp_path, ["auditor"], audit_share=1.0) as [auditor],
    ):
        for child in (scorer, auditor):
            child.wait_ready(90)
        for _ in range(4):
            produce(stack, traffic_of(COUNT // 4, seed=int(rng.integers(1 << 20))), rate=1_000)
            os.kill(auditor.process.pid, signal.SIGKILL)
            auditor.stop()
            auditor.start()
            auditor.wait_ready(90)
        wait_drained(stack)
        wait_audited(stack)
        assert counted(auditor, PARITY_MISMATCHES) == 0
        assert counted(auditor, AUDITED) > 0
        log = (tmp_path / "auditor-0.log").read_text()
        assert log.count('"died": true') >= 3
        assert "mismatch" not in log, "in no life"

        wrong = decode_as_newest(read_all(stack, "card-decisions")[-1][3] or b"")[1]
        before = counted(auditor, AUDITED)
        # Once more, by another hand: the card has a second decision.
        value = encode_record(topics()["card-decisions"].latest, wrong)
        sink = KafkaSink(stack.kafka_connection)
        sink.send("card-decisions", [wrong["card_id"].encode()], [value])
        sink.flush(10.0)
        sink.close()
        wait_until(lambda: counted(auditor, PARITY_MISMATCHES) == 1, 60, "the second decision is found")
        assert counted(auditor, AUDITED) == before

        place = f"{wrong['source_partition']}/{wrong['source_offset']}"
        log = (tmp_path / "auditor-0.log").read_text()
        assert f"proact explain {place}" in log
        assert str(uuid.UUID(bytes=wrong["transaction_id"])) not in log
        shown = explained(proact, stack, place)

    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout.strip().splitlines()[-1])["verdict"] == "EQUAL"
