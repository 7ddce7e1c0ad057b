"""How many decisions a second the archiver keeps, on one core: a backlog in Kafka, from its start to the last row in the table."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import psutil

from services.codec.records import decode_record
from services.codec.transactions import TOPIC, encode_transactions
from services.core.fallback import SafeDefault
from services.inference.artifact import load_model
from services.inference.released import live_model
from services.offline.simulator.generate import simulate
from services.registry import process_of
from services.runtime import catalogue as m
from services.runtime.children import ServiceChild, samples
from services.runtime.settings import Settings
from services.scorer.processor import ScorerProcessor
from services.scorer.warm_up import nothing_known
from services.stack.embedded import EmbeddedStack
from services.stack.processes import free_port
from services.streams import Records
from services.streams.sink import KafkaSink

DECISIONS: Final = "card-decisions"
DISTINCT: Final = 20_000
"""So many decisions are made; they are sent again and again."""
INTERVAL_MS: Final = 1_000
"""The default would have the last rows of the backlog wait for ten seconds."""
_START_MS: Final = 1_767_225_600_000


@dataclass(frozen=True, slots=True)
class LakeRun:
    """One backlog, archived."""

    rows: int
    took_s: float
    cpu_s: float
    """Processor time of the archiver, from its start on: Python's imports are in it."""
    rss_mb: float
    lake_mb: float

    @property
    def a_second(self) -> float:
        """Rows a second."""
        return self.rows / self.took_s


def decisions(count: int) -> tuple[list[bytes | None], list[bytes | None]]:
    """Return keys and values of decisions as a scorer sends them, with their vectors and reasons."""
    traffic = simulate(1_000, count // 1_000 + 3, 3, _START_MS)
    columns = traffic.take(np.arange(count)).columns
    processor = ScorerProcessor(load_model(live_model()), SafeDefault(30.0, 300.0))
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    profiles: dict[bytes, bytes | None] = {}
    sent, cards = encode_transactions(columns), columns.card_id.tolist()
    now_ms = int(columns.event_time_ms.max())
    for begin in range(0, count, 2_000):
        some = slice(begin, min(count, begin + 2_000))
        n = some.stop - some.start
        records = Records(
            TOPIC, np.zeros(n, np.int64), np.arange(some.start, some.stop), np.full(n, now_ms), cards[some], sent[some]
        )
        prepared = processor.prepare(records, np.zeros(n, np.int64))
        held = [profiles.get(card) for card in prepared.cards]
        outcome = processor.decide(prepared, held, nothing_known(prepared), np.ones(n, bool), now_ms)
        profiles |= {c: p for c, p in zip(prepared.cards, outcome.profiles, strict=True) if p is not None}
        for output in outcome.outputs:
            if output.topic == DECISIONS:
                keys += output.keys
                values += output.values
    assert len(values) == count
    assert decode_record(values[0] or b"")[0].topic == DECISIONS
    return keys, values


def measure_lake(
    settings: Settings, folder: Path, records: int, runs: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Archive a backlog of decisions some times, each into a lake of its own. Raises ChildError, StackError, StreamsError."""
    progress(f"making {DISTINCT:,} decisions")
    keys, values = decisions(DISTINCT)
    stack = EmbeddedStack.of(folder, free_port(), free_port())
    found: list[LakeRun] = []
    try:
        stack.up(progress)
        stack.apply_topics({"partitions": 6, "decision_partitions": 2})
        sink = KafkaSink(stack.kafka_connection)
        for begin in range(0, records, DISTINCT):
            n = min(DISTINCT, records - begin)
            sink.send(DECISIONS, keys[:n], values[:n])
        sink.flush(120)
        sink.close()
        own = settings.connected_to(stack.kafka_connection, stack.grid_connection)
        for i in range(runs):
            found.append(_archive(own, folder, records, i))
            progress(f"run {i + 1}: {found[-1].a_second:,.0f} decisions a second on one core")
    finally:
        stack.down()
    return {
        "decisions": records,
        "decision_bytes": sum(len(value or b"") for value in values) / len(values),
        "decisions_a_second": median(one.a_second for one in found),
        "runs": [round(one.a_second) for one in found],
        "cpu_us_a_decision": median(1e6 * one.cpu_s / one.rows for one in found),
        "rss_mb": max(one.rss_mb for one in found),
        "lake_bytes_a_decision": median(1e6 * one.lake_mb / one.rows for one in found),
    }


def _archive(settings: Settings, folder: Path, records: int, run: int) -> LakeRun:
    """Let a new archiver, of a new group, on one core keep what is there."""
    lake = folder / f"lake-{run}"
    own = settings.with_values(
        lake_url=str(lake),
        archiver_group_id=f"bench-archiver-{run}",
        metrics_port=free_port(),
        lake_interval_ms=INTERVAL_MS,
    )
    core = min(os.sched_getaffinity(0))
    with ServiceChild(process_of("archiver"), own, folder / f"archiver-{run}.log") as child:
        psutil.Process(child.process.pid).cpu_affinity([core])
        began_s = None
        while (rows := _rows(child)) < records:
            # From the first commit on: starting takes as long however much there is to do.
            if began_s is None and rows:
                began_s, before, cpu = time.monotonic(), rows, _cpu_s(child)
            time.sleep(0.02)
        assert began_s is not None
        took_s = time.monotonic() - began_s
        process = psutil.Process(child.process.pid)
        size = sum(path.stat().st_size for path in lake.rglob("*.parquet"))
        return LakeRun(records - before, took_s, _cpu_s(child) - cpu, process.memory_info().rss / 2**20, size / 1e6)


def _rows(child: ServiceChild) -> int:
    return int(samples(child.metrics(), m.LAKE_ROWS).get((DECISIONS,), 0))


def _cpu_s(child: ServiceChild) -> float:
    times = psutil.Process(child.process.pid).cpu_times()
    return times.user + times.system
