"""Throughput of a backlog and latency of an open loop, with Kafka, Redis, load and observer on the same machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from services.measure.session import Session, running_session
from services.observer.tally import DECISIONS
from services.replay.producer import Pace, TransactionProducer
from services.runtime.children import ChildError, ServiceChild
from services.runtime.clock import SystemClock
from services.runtime.config import Settings
from services.simulator.generate import simulate
from services.simulator.traffic import Traffic
from services.stack.embedded import EmbeddedStack
from services.stack.processes import free_port
from services.stack.temporary import temporary_stack
from services.streams.admin import KafkaAdmin
from services.streams.reader import KafkaReader
from services.streams.sink import KafkaSink

START_MS: Final = 1_767_225_600_000
TOPIC: Final = "card-transactions"
DRAIN_TIMEOUT_S: Final = 300.0
WARM_UP_S: Final = 5


def traffic_of(count: int, cards: int, seed: int) -> Traffic:
    """Return ``count`` transactions of ``cards`` cards."""
    days = int(1.2 * count / (1.5 * cards)) + 3
    traffic = simulate(cards, days, seed, START_MS)
    if len(traffic) < count:
        raise ValueError(f"{cards} cards made only {len(traffic)} transactions")
    return traffic.take(np.arange(count))


def cpu_seconds(pid: int | None) -> float:
    """Return the CPU time that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def measure_backlog(
    settings: Settings,
    folder: Path,
    progress: Callable[[str], None],
    traffic: Traffic,
) -> dict[str, Any]:
    """Let one scorer work off a backlog; return its throughput and the CPU microseconds a record of every process.

    The rate is taken between the 10 % and the 90 % point of the decisions, by the time that Kafka stamped them with.
    Nobody reads while it runs.
    """
    with temporary_stack(folder, progress, settings.partitions) as stack:
        sink = KafkaSink(stack.kafka_address)
        TransactionProducer(sink, SystemClock()).send(traffic, Pace(None))
        sink.close()
        own = settings.with_values(
            kafka_bootstrap_servers=stack.kafka_address,
            redis_url=stack.redis_url,
            metrics_port=free_port(),
            log_format="json",
        )
        before = {"kafka": cpu_seconds(stack.kafka.pid), "redis": cpu_seconds(stack.redis.pid)}
        with ServiceChild("services.scorer", own, folder / "scorer.log") as scorer:
            _wait_drained(stack, own, scorer)
            used = {
                "scorer": cpu_seconds(scorer.process.pid),
                "kafka": cpu_seconds(stack.kafka.pid) - before["kafka"],
                "redis": cpu_seconds(stack.redis.pid) - before["redis"],
            }
        stamps = _decision_stamps(stack, len(traffic))
    early, late = np.quantile(stamps, [0.1, 0.9])
    return {
        "throughput_per_s": round(0.8 * len(stamps) / ((late - early) / 1000.0)),
        "cpu_us_per_record": {name: round(1e6 * seconds / len(traffic), 1) for name, seconds in used.items()},
    }


def _wait_drained(stack: EmbeddedStack, settings: Settings, scorer: ServiceChild) -> None:
    scorer.wait_ready()
    admin, deadline_s = KafkaAdmin(stack.kafka_address), time.monotonic() + DRAIN_TIMEOUT_S
    while admin.group_lag(TOPIC, settings.group_id) != 0:
        if scorer.process.poll() is not None or time.monotonic() > deadline_s:
            raise ChildError(f"the backlog was not worked off; lag {admin.group_lag(TOPIC, settings.group_id)}")
        time.sleep(0.5)


def _decision_stamps(stack: EmbeddedStack, count: int) -> np.ndarray:
    reader = KafkaReader(stack.kafka_address, [DECISIONS], from_beginning=True)
    stamps, seen, deadline_s = [], 0, time.monotonic() + DRAIN_TIMEOUT_S
    while seen < count and time.monotonic() < deadline_s:
        for records in reader.read(1.0):
            stamps.append(records.timestamp_ms)
            seen += len(records)
    reader.close()
    return np.sort(np.concatenate(stamps))


def measure_latency(session: Session, traffic: Traffic, rate: float) -> dict[str, float]:
    """Return latency percentiles in milliseconds at a rate: from the moment a record was due to its decision's arrival.

    The first ``WARM_UP_S`` seconds do not count.
    """
    sink = KafkaSink(session.settings.kafka_bootstrap_servers)
    producer = TransactionProducer(sink, SystemClock())
    expected = session.answered + len(traffic)
    sender = threading.Thread(target=lambda: producer.send(traffic, Pace.at_rate(len(traffic), rate)), daemon=True)
    before = len(session.tally.latencies_ms)
    sender.start()
    if not session.observe_until(expected, 60.0 + len(traffic) / rate):
        raise ChildError(f"{session.answered} of {expected} records were answered")
    sender.join()
    sink.close()
    latencies = np.concatenate(session.tally.latencies_ms[before:])[int(WARM_UP_S * rate) :]
    p50, p99, p999 = np.percentile(latencies, [50, 99, 99.9])
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1), "p999": round(float(p999), 1)}


GUARANTEES: Final = ("exactly_once", "at_least_once")


def run_bench(
    settings: Settings,
    folder: Path,
    progress: Callable[[str], None],
    *,
    records: int,
    cards: int,
    rate: float,
    seconds: int,
    runs: int,
) -> dict[str, Any]:
    """Measure everything ``runs`` times with either guarantee, in turn; return medians, and how the guarantees compare."""
    progress(f"simulating {records:,} transactions of {cards:,} cards")
    backlog, live = traffic_of(records, cards, 5), traffic_of(int(rate * (seconds + WARM_UP_S)), cards, 6)
    measured: dict[str, list[dict[str, Any]]] = {guarantee: [] for guarantee in GUARANTEES}
    for run in range(runs):
        for guarantee in GUARANTEES:
            own = settings.with_values(guarantee=guarantee)
            found = measure_backlog(own, folder, lambda _: None, backlog)
            with running_session(own, folder, lambda _: None, keep_ids=True) as session:
                found["latency_ms"] = measure_latency(session, live, rate)
            measured[guarantee].append(found)
            progress(f"{guarantee}, {run + 1} of {runs}: {found}")
    medians = {guarantee: _medians(found, rate) for guarantee, found in measured.items()}
    exact, cheap = (medians[guarantee] for guarantee in GUARANTEES)
    latency = f"latency_ms_{rate:.0f}"
    return {
        "transactions": records,
        "cards": cards,
        "runs": runs,
        **medians,
        "exactly_once_to_at_least_once": {
            "throughput": round(exact["throughput_per_s"] / cheap["throughput_per_s"], 2),
            **{p: round(exact[latency][p] / cheap[latency][p], 2) for p in ("p50", "p99")},
        },
    }


def _medians(found: list[dict[str, Any]], rate: float) -> dict[str, Any]:
    """Return the median of every figure of some runs."""

    def median(values: list[float]) -> float:
        return round(float(np.median(values)), 1)

    return {
        "throughput_per_s": round(median([f["throughput_per_s"] for f in found])),
        "cpu_us_per_record": {
            part: median([f["cpu_us_per_record"][part] for f in found]) for part in ("scorer", "kafka", "redis")
        },
        f"latency_ms_{rate:.0f}": {p: median([f["latency_ms"][p] for f in found]) for p in ("p50", "p99", "p999")},
    }
