"""A real system under test: scorer processes on a real Kafka and Redis, and a checker that reads everything back."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import redis

from services.checker.evidence import gather
from services.checker.scoring import Scoring, released_folders
from services.checker.verdict import Checker
from services.codec.records import decode_record
from services.codec.transactions import TOPIC, decode_transactions
from services.core.card.layout import CARD
from services.core.offline import compute_offline
from services.core.profiles import open_profiles
from services.core.terminal.features import TERMINAL_COLUMNS
from services.grid.redis import RedisGrid
from services.offline.replay.labels import LabelFeed, Truth, simulated_truth
from services.offline.replay.producer import Pace, TransactionProducer
from services.offline.simulator.generate import simulate
from services.offline.simulator.traffic import Traffic
from services.registry import process_of
from services.runtime.children import ServiceChild
from services.runtime.clock import SystemClock
from services.runtime.settings import Settings, resolve_settings
from services.stack.embedded import EmbeddedStack
from services.stack.processes import free_port
from services.streams.admin import KafkaAdmin
from services.streams.reader import KafkaReader
from services.streams.sink import KafkaSink
from tests.chaos.watchers import where_of

START_MS = 1_767_225_600_000


def settings_for(stack: EmbeddedStack, **changes: Any) -> Settings:
    settings = resolve_settings(
        {"kafka_bootstrap_servers": stack.kafka_address, "redis_url": stack.redis_url, "log_format": "json"}, {}
    )
    return settings.with_values(metrics_port=free_port(), **changes)


@contextmanager
def scorers(stack: EmbeddedStack, folder: Path, count: int = 1, **changes: Any):
    """Run scorer processes; the caller waits until they are ready."""
    with services(stack, folder, ["scorer"] * count, **changes) as children:
        yield children


@contextmanager
def services(stack: EmbeddedStack, folder: Path, names: Iterable[str], **changes: Any):
    """Run a process of each named service; the caller waits until they are ready."""
    children = [
        ServiceChild(process_of(name), settings_for(stack, **changes), folder / f"{name}-{i}.log")
        for i, name in enumerate(names)
    ]
    try:
        for child in children:
            child.start()
        yield children
    finally:
        for child in children:
            child.stop()


def traffic_of(count: int, cards: int = 300, seed: int = 5) -> Traffic:
    traffic = simulate(cards, int(count / cards) + 3, seed, START_MS)
    assert len(traffic) >= count
    return traffic.take(np.arange(count))


def produce(stack: EmbeddedStack, traffic: Traffic, rate: float | None = None, *, labelled: bool = False) -> int:
    """Send transactions, and what becomes known of them meanwhile; return how many labels there were."""
    sink = KafkaSink(stack.kafka_connection)
    pace = Pace(None) if rate is None else Pace.at_rate(len(traffic), rate)
    labels = LabelFeed(sink, simulated_truth(traffic, 5) if labelled else Truth.nothing())
    TransactionProducer(sink, SystemClock()).send(traffic, pace, labels=labels, flush_s=60)
    sink.close()
    return labels.sent


def wait_drained(
    stack: EmbeddedStack, timeout_s: float = 60.0, group: str = "proact-scorer", topic: str = TOPIC
) -> None:
    admin, deadline = KafkaAdmin(stack.kafka_connection), time.monotonic() + timeout_s
    while (lag := admin.group_lag(topic, group)) != 0:
        assert time.monotonic() < deadline, f"lag {lag} after {timeout_s} s"
        time.sleep(0.2)


def wait_saved(stack: EmbeddedStack, group: str = "proact-scorer", topic: str = TOPIC) -> None:
    """Wait until the grid holds what is committed: it is written once an interval."""
    admin, grid = KafkaAdmin(stack.kafka_connection), RedisGrid(stack.grid_connection)
    partitions = range(admin.partitions()[topic])

    def behind() -> list[int]:
        committed = admin.committed(topic, group, partitions)
        return [s.partition for s in grid.status(topic, partitions) if (s.applied or 0) < committed.get(s.partition, 0)]

    wait_until(lambda: not behind(), 30, f"the grid holds {topic}")


def wait_until_busy(stack: EmbeddedStack, total: int) -> None:
    """Wait until a part of what was produced is committed; fail if most of it is, since then a fault could hit nobody."""
    admin, deadline = KafkaAdmin(stack.kafka_connection), time.monotonic() + 60
    while (lag := admin.group_lag(TOPIC, "proact-scorer")) is None or lag >= total - 1_000:
        assert time.monotonic() < deadline, "nothing is decided"
        time.sleep(0.02)
    assert lag > total // 3, f"{lag} of {total} left: the work is nearly done already"


def wait_until(condition: Any, timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


def read_all(
    stack: EmbeddedStack, topic: str, quiet_s: float = 1.0
) -> list[tuple[int, int, bytes | None, bytes | None]]:
    """Return (partition, offset, key, value) of every record of a topic."""
    reader, found, quiet = KafkaReader(stack.kafka_connection, [topic], from_beginning=True), [], time.monotonic()
    while time.monotonic() - quiet < quiet_s:
        for records in reader.read(0.2):
            found += zip(records.partition.tolist(), records.offset.tolist(), records.keys, records.values, strict=True)
            quiet = time.monotonic()
    reader.close()
    return sorted(found, key=lambda r: r[:2])  # type: ignore[arg-type, return-value]


def check_everything(stack: EmbeddedStack) -> dict[str, int]:
    """Check every record: answered once, features those of the offline code, profiles those of the log."""
    inputs = read_all(stack, TOPIC)
    decisions: Counter[tuple[int, int]] = Counter()
    vectors: dict[tuple[int, int], list[float]] = {}
    for _, _, key, value in read_all(stack, "card-decisions"):
        record = decode_record(value or b"")[1]
        position = record["source_partition"], record["source_offset"]
        assert key == record["card_id"].encode()
        decisions[position] += 1
        vectors[position] = record["features"]
    letters = _decoded(read_all(stack, "dead-letters"))
    elsewhere = [(r["source_topic"], r["reason"], r["source_offset"]) for r in letters if r["source_topic"] != TOPIC]
    assert not elsewhere, (
        f"what services make of each other's records is no dead letter: {Counter(e[:2] for e in elsewhere)}, {elsewhere[:8]}"
    )
    refused = Counter((r["source_partition"], r["source_offset"]) for r in letters)
    positions = {(p, o) for p, o, _, _ in inputs}
    assert decisions.keys() | refused.keys() == positions, "lost or invented"
    twice = {position: count for position, count in (decisions + refused).items() if count != 1}
    assert not twice, f"{len(twice)} records were answered more than once, such as {list(twice.items())[:3]}"
    _check_fold(stack, inputs, vectors)
    return {"inputs": len(inputs), "decided": len(decisions), "refused": len(refused)}


def judged(stack: EmbeddedStack) -> dict[str, Any]:
    """Return the checker's verdict on everything that is there."""
    own = settings_for(stack)
    groups = (own.group_id, own.router_group_id)
    evidence = gather(where_of(own), groups, lambda _: None)
    return Checker(evidence, Scoring(released_folders()), repeats=False).judge(lambda _: None).as_json()


def _decoded(records: Iterable[tuple[int, int, bytes | None, bytes | None]]) -> list[dict[str, Any]]:
    return [decode_record(value or b"")[1] for _, _, _, value in records]


def _check_fold(stack: EmbeddedStack, inputs: list, vectors: dict[tuple[int, int], list[float]]) -> None:
    """Recompute every vector from the log, bit for bit, and compare what the grid remembers of each card."""
    client = redis.Redis.from_url(stack.redis_url)
    for partition in {p for p, _, _, _ in inputs}:
        mine = [r for r in inputs if r[0] == partition and r[:2] in vectors]
        columns, rows, _ = decode_transactions([r[3] for r in mine])
        assert len(rows) == len(mine)
        offline = compute_offline(columns).vectors
        online = np.array([vectors[r[:2]] for r in mine])
        online[:, TERMINAL_COLUMNS] = np.nan  # read of others: recorded, not to be had again
        np.testing.assert_array_equal(online.view(np.int64), offline.view(np.int64))
        last = max(o for p, o, _, _ in inputs if p == partition)
        tag = f"{{{TOPIC}:{partition}}}"
        assert int(client.hget(f"{tag}:meta", "applied")) == last + 1  # type: ignore[arg-type]
        cards = columns.card_id.tolist()
        for card in set(cards):
            blob = client.hget(f"{tag}:profiles", card)  # type: ignore[arg-type]
            profile = open_profiles([blob], CARD)  # type: ignore[list-item]
            assert 0 < profile.count[0] <= cards.count(card)
            assert profile.last_offset[0] in {r[1] for r, c in zip(mine, cards, strict=True) if c == card}
    client.close()
