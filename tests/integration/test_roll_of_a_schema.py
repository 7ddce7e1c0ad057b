"""A schema grows by a version under load, on a real Kafka and a real Redis: scorers that know it take over, then producers write it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from services.codec.records import decode_record
from services.codec.transactions import TOPIC
from services.core.columns import TransactionColumns
from services.registry import process_of
from services.runtime.children import ServiceChild
from services.streams.sink import KafkaSink
from tests.codec.growing import encoded_as_first, encoded_as_newest, environment_reading, grown_folder, reading
from tests.integration.system import read_all, settings_for, traffic_of, wait_drained, wait_saved, wait_until

RECORDS = 12_000


@contextmanager
def scorer(stack, log: Path, environment: dict[str, str]) -> Iterator[ServiceChild]:
    child = ServiceChild(process_of("scorer"), settings_for(stack, batch_records_max=300), log, environment)
    try:
        child.start()
        yield child
    finally:
        child.stop()


def send(stack, columns: TransactionColumns, newest: np.ndarray) -> None:
    old, new = encoded_as_first(columns), encoded_as_newest(columns)
    sink = KafkaSink(stack.kafka_connection)
    values = [new[i] if is_new else old[i] for i, is_new in enumerate(newest.tolist())]
    sink.send(TOPIC, columns.card_id.tolist(), values)
    sink.flush(60)
    sink.close()


def test_a_version_is_rolled_out_under_load_and_nothing_is_refused_lost_or_decided_otherwise(own_stack, tmp_path):
    stack, columns = own_stack(), traffic_of(RECORDS).columns
    parts = [columns.take(np.arange(at, at + RECORDS // 3)) for at in range(0, RECORDS, RECORDS // 3)]
    schemas = grown_folder(tmp_path, TOPIC, written_version=1)
    knows = environment_reading(schemas, tmp_path / "knows")
    with reading(schemas):
        first, both, second = (np.arange(RECORDS // 3) % 2 < share for share in (0, 1, 2))
        with scorer(stack, tmp_path / "old.log", {}) as old:
            old.wait_ready(120)
            send(stack, parts[0], first)
            with scorer(stack, tmp_path / "new.log", knows) as new:
                new.wait_ready(120)
                assert old.stop() == 0
                send(stack, parts[1], both)
                wait_until(lambda: len((new.health() or {}).get("partitions", [])) == 3, 60, "the new one has all")
                send(stack, parts[2], second)
                wait_drained(stack)
                wait_saved(stack)
        decided = [decode_record(value or b"")[1] for _, _, _, value in read_all(stack, "card-decisions")]
        log = read_all(stack, TOPIC)
        assert len({value[:10] for _, _, _, value in log if value}) == 2
        assert read_all(stack, "dead-letters") == []
        assert sorted((d["source_partition"], d["source_offset"]) for d in decided) == [one[:2] for one in log]

    def proact(*words: str) -> str:
        command = [sys.executable, "-m", "services.cli.main", *words]
        connection = ["--kafka-bootstrap-servers", stack.kafka_address, "--redis-url", stack.redis_url]
        ran = subprocess.run(
            [*command, *connection], env=os.environ | knows, capture_output=True, text=True, check=False, timeout=120
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    assert proact("grid", "verify").count("equal") == 3
    verdict = json.loads(proact("check").splitlines()[0])
    assert (verdict["verdict"], verdict["transactions"], verdict["decided"]) == ("ok", RECORDS, RECORDS)
