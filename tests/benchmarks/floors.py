"""The floors: what the parts that nobody can do without cost a record, each measured alone in the same run as the whole."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from services.codec.transactions import decode_transactions, encode_transactions
from services.core.card.layout import CARD
from services.core.features import FEATURES
from services.core.vacuous import require_positive
from services.grid import GridRead, GridWrite, LogIdentity
from services.grid.connection import GridConnection
from services.grid.redis import RedisGrid
from services.inference.artifact import ReleasedModel
from services.offline.simulator.traffic import Traffic
from services.streams.connection import KafkaConnection
from services.streams.kafka import KafkaSource
from services.streams.sink import KafkaSink
from tests.benchmarks.bench_system import TOPIC, Subject, bench_system

BATCH: Final = 4_000
DECISION_BYTES: Final = 550
PROFILE_BYTES: Final = 1_000
READ: Final = 200_000


def _us(work: Callable[[], Any], count: int, repeats: int = 15) -> float:
    """Return the median microseconds a record."""
    work()
    took = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        took.append(time.perf_counter() - begin)
    return round(1e6 * require_positive("the time of a part", float(np.median(took))) / count, 2)


def measure_floors(subject: Subject, folder: Path, model: ReleasedModel, traffic: Traffic) -> dict[str, float]:
    """Return microseconds a record of wall time, of one thread and nobody else at work, of each part, and their sum."""
    columns = traffic.columns.take(np.arange(BATCH))
    values: list[bytes | None] = list(encode_transactions(columns))
    vectors = np.random.default_rng(1).uniform(0, 50, (BATCH, len(FEATURES)))
    floors = {
        "decode_numba": _us(lambda: decode_transactions(values), BATCH),
        "score_numba": _us(lambda: model.champion.predict(vectors), BATCH),
    }
    with bench_system(subject, folder) as system:
        system.send(traffic.take(np.arange(min(READ, len(traffic)))))
        floors["consume_librdkafka"] = _consume(system.stack.kafka_connection, min(READ, len(traffic)))
        floors["produce_librdkafka"] = _produce(system.stack.kafka_connection)
        floors |= _redis(system.stack.grid_connection)
    return floors | {"sum": round(sum(floors.values()), 2)}


def _consume(kafka: KafkaConnection, count: int) -> float:
    source = KafkaSource(kafka, "floor", TOPIC)
    while not source.assignment.partitions:
        source.poll(1, 0.1)
    source.start(dict.fromkeys(source.assignment.partitions, 0))
    seen, begin = len(source.poll(1, 5.0)), time.perf_counter()
    while seen < count:
        seen += len(source.poll(BATCH, 1.0))
    took = time.perf_counter() - begin
    source.close()
    return round(1e6 * took / count, 2)


def _produce(kafka: KafkaConnection) -> float:
    sink = KafkaSink(kafka)
    keys: list[bytes | None] = [b"card-%06d" % i for i in range(BATCH)]
    values: list[bytes | None] = [b"x" * DECISION_BYTES] * BATCH

    def send() -> None:
        sink.send("card-decisions", keys, values)
        sink.flush(10)

    took = _us(send, BATCH)
    sink.close()
    return took


def _redis(connection: GridConnection) -> dict[str, float]:
    grid = RedisGrid(connection)
    claim = grid.claim("floor", 0, LogIdentity("floor", 1, CARD.version))
    cards, profiles = [b"card-%06d" % i for i in range(BATCH)], [b"x" * PROFILE_BYTES] * BATCH
    applied: list[int | None] = [None]

    def apply() -> None:
        target = (applied[0] or 0) + 1
        grid.apply("floor", [GridWrite(claim, applied[0], target, cards, profiles)])
        applied[0] = target

    return {
        "write_redis": _us(apply, BATCH),
        "read_redis": _us(lambda: grid.read("floor", [GridRead(claim, applied[0], cards)]), BATCH),
    }
