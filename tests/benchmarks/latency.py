"""Latency of an open loop: from the moment that a record was due until an independent reader of committed records has its decision.

The sender sends what is due, whether earlier records were answered or not, and a record that it sends late counts from when it was due: so
no wait is omitted because another one was going on. Sender and observer are processes of their own, so that neither holds the other up, and
share the machine's monotonic clock.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

import numpy as np
from hdrh.histogram import HdrHistogram

from services.codec.program import FIXED
from services.codec.schemas import HEADER_BYTES
from services.codec.transactions import encode_transactions
from services.core.columns import type_i64
from services.core.vacuous import require_finite, require_positive
from services.observer.tally import decision_reader
from services.offline.simulator.traffic import Traffic
from services.runtime.children import ChildError
from services.runtime.garbage_collection import tune_garbage_collection
from services.streams.connection import KafkaConnection
from services.streams.reader import KafkaReader
from services.subprocesses import end_with_parent
from tests.benchmarks.sending import linger_ms, run_sender

WARM_UP_S: Final = 5.0
"""At each rate, so long nothing counts."""
PATIENCE_S: Final = 30.0
"""How long decisions are waited for when everything has been sent."""
PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9, "p9999": 99.99}
SUMMED: Final = ("stages", "stages_above_20_ms")
"""What is said of all runs together."""
LATENCY_US_MAX: Final = 600_000_000
_ID_BYTES: Final = 16


def _observe(address: str, pipe: Connection) -> None:
    """Note when which transaction's decision arrives, as it is asked to: the observer's process."""
    program = decision_reader().program
    assert program.names[:2] == ("decision_id", "transaction_id")
    assert [int(o) for o in program.table[:2, 0]] == [FIXED, FIXED]
    begin = HEADER_BYTES + _ID_BYTES
    reader = KafkaReader(KafkaConnection(address), ["card-decisions"], from_beginning=False)
    pipe.send("ready")
    tune_garbage_collection()
    while (wanted := pipe.recv()) is not None:
        count, deadline_ns = wanted
        arrived, ids, seen = [], [], 0
        while seen < count and time.monotonic_ns() < deadline_ns:
            for records in reader.read(0.02):
                now_ns = time.monotonic_ns()
                arrived.append(np.full(len(records), now_ns))
                ids.append(b"".join([(value or b"")[begin : begin + _ID_BYTES] for value in records.values]))
                seen += len(records)
        pipe.send((np.concatenate(arrived or [np.empty(0, np.int64)]), b"".join(ids)))
    reader.close()


@dataclass(slots=True)
class OpenLoop:
    """A sender and an observer of one system; what was sent is sent once."""

    traffic: Traffic
    sender: Connection
    observer: Connection
    sent: int = 0

    def run(self, rate: float, seconds: float) -> dict[str, Any]:
        """Send at a rate, and return the percentiles of the latency in milliseconds, after a while of warming up.

        Raises:
            ChildError: not everything was answered, or the sender or the observer ended.
        """
        count, first = int(rate * (WARM_UP_S + seconds)), self.sent
        if first + count > len(self.traffic):
            raise ChildError(f"there are only {len(self.traffic) - first} transactions left, not {count}")
        begin_ns = time.monotonic_ns() + 200_000_000
        with _alive():
            self.observer.send((count, begin_ns + int(1e9 * (count / rate + PATIENCE_S))))
            self.sender.send((first, first + count, rate, begin_ns))
            self.sent += count
            late_ms = self.sender.recv()
            arrived, ids = self.observer.recv()
        if len(arrived) < count:
            raise ChildError(f"{len(arrived)} of {count} transactions were decided on at {rate:.0f} a second")
        took_us = self.latencies_us(first, rate, begin_ns, arrived, ids)
        return {
            **percentiles_ms(took_us[int(rate * WARM_UP_S) :]),
            "rate_per_s": round(rate),
            "sent_late_ms_max": round(late_ms, 1),
            "sender_linger_ms": linger_ms(rate),
        }

    def latencies_us(self, first: int, rate: float, begin_ns: int, arrived: type_i64, ids: bytes) -> type_i64:
        """Return how long each transaction took, in the order in which they were due."""
        count = len(arrived)
        kind = np.dtype((np.void, _ID_BYTES))
        sent = self.traffic.columns.transaction_id[first : first + count].copy().view(kind).reshape(-1)
        order = np.argsort(sent)
        place = order[np.searchsorted(sent[order], np.frombuffer(ids, kind))]
        due_ns = begin_ns + (place * 1e9 / rate).astype(np.int64)
        took_us: type_i64 = np.full(count, -1, np.int64)
        took_us[place] = (arrived - due_ns) // 1_000
        if (took_us < 0).any():
            raise ChildError("a transaction was decided on twice, or before it was due")
        return took_us


def percentiles_ms(took_us: type_i64) -> dict[str, float]:
    """Return percentiles and the maximum of some durations, as an HdrHistogram of three digits keeps them. Raises VacuousError."""
    require_finite("latencies", took_us)
    histogram = HdrHistogram(1, LATENCY_US_MAX, 3)
    values, counts = np.unique(np.maximum(took_us, 1), return_counts=True)
    for value, times in zip(values.tolist(), counts.tolist(), strict=True):
        histogram.record_value(value, times)
    found = {name: histogram.get_value_at_percentile(percentile) for name, percentile in PERCENTILES.items()}
    return {name: round(value / 1000, 2) for name, value in {**found, "max": histogram.get_max_value()}.items()}


def median_of(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians of what some runs at one rate found, each percentile's by itself, and the percentiles of every run."""
    for name in (*PERCENTILES, "max"):
        require_finite(f"the runs' {name}", [run[name] for run in runs])
    reported = {name: round(float(np.median([run[name] for run in runs])), 2) for name in (*PERCENTILES, "max")}
    late_ms = max(run["sent_late_ms_max"] for run in runs)
    sums = {name: sum(run[name] for run in runs) for name in SUMMED}
    require_positive("the stages that the scorer's metrics tell of", sums["stages"])
    every = {"sent_late_ms_max": late_ms, "runs": [[run[name] for name in PERCENTILES] for run in runs]}
    return runs[0] | reported | sums | every


@contextmanager
def _alive() -> Iterator[None]:
    """Turn the silence of a process that ended into a ChildError; it has reported why itself."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise ChildError("the sender or the observer of the open loop ended before it was done") from error


def _tied(parent: int, target: Callable[[str, Connection], None], address: str, pipe: Connection) -> None:
    end_with_parent(parent)
    target(address, pipe)


@contextmanager
def open_loop(address: str, traffic: Traffic) -> Iterator[OpenLoop]:
    """Start a sender and an observer; stop them whatever happens. Raises ChildError."""
    spawn = multiprocessing.get_context("spawn")
    (mine, senders), (watch, observers) = spawn.Pipe(), spawn.Pipe()
    processes = [
        spawn.Process(target=_tied, args=(os.getpid(), target, address, theirs), daemon=True)
        for target, theirs in ((run_sender, senders), (_observe, observers))
    ]
    for process, theirs in zip(processes, (senders, observers), strict=True):
        process.start()
        theirs.close()  # else nobody would hear of a process that ended
    try:
        with _alive():
            mine.send((traffic.columns.card_id.tolist(), encode_transactions(traffic.columns)))
            watch.recv()
        yield OpenLoop(traffic, mine, watch)
    finally:
        for pipe in (mine, watch):
            with suppress(OSError):
                pipe.send(None)
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()
