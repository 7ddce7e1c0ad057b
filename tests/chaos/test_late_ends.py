"""The fact that the publisher is built around, on Kafka and on its model: the end of a commit that was sent twice may come late."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.stack.embedded import EmbeddedStack
from services.stack.kafka import EmbeddedKafka
from services.stack.processes import free_port
from services.stack.redis import EmbeddedRedis
from services.streams import Output, StreamsError
from services.streams.atomic import AtomicProducer
from services.streams.connection import KafkaConnection
from services.streams.kafka import KafkaSource
from services.streams.memory import MemoryLog, MemorySource
from services.streams.memory_publishers import MemoryAtomicProducer
from services.streams.publishers import KafkaAtomicProducer
from services.streams.reader import KafkaReader
from tests.chaos.proxy import END_TXN, HOLD
from tests.chaos.system import ProxyProcess

IN, OUT = "card-transactions", "card-decisions"


@dataclass
class Late:
    """A producer whose next end of a commit is carried twice: once now, and once more when it is released."""

    producer: Callable[[], AtomicProducer]
    hold: Callable[[], None]
    release: Callable[[], None]
    visible: Callable[[], list[bytes | None]]
    member: Callable[[], Any]


def in_memory() -> Iterator[Late]:
    log, held, holding = MemoryLog(1), [], []
    source = MemorySource(log, IN)
    log.rebalance({"member": (0,)})
    source.poll(1, 0.0)

    def wire(name: str, request: Callable[[], object]) -> object:
        if name == "end_commit" and holding:
            holding.clear()
            held.append(request)
        return request()

    def release() -> None:
        with suppress(StreamsError):  # nobody hears the answer
            held.pop()()

    yield Late(
        lambda: MemoryAtomicProducer(log, IN, "name", wire), lambda: holding.append(True), release,
        lambda: [record.value for record in log.visible(OUT, 0)], source.group_metadata,
    )  # fmt: skip


def on_kafka(folder: Path) -> Iterator[Late]:
    door, reported = free_port(), free_port()
    stack = EmbeddedStack(EmbeddedKafka(folder, free_port(), [(door, reported)]), EmbeddedRedis(folder, free_port()))
    proxy = None
    try:
        stack.kafka.up(lambda _: None)
        stack.apply_topics({"partitions": 1})
        proxy = ProxyProcess(folder / "proxy.log")
        proxy.order("link", name="k", port=reported, upstream=door, kafka=True)
        source = KafkaSource(stack.kafka_connection, "group", IN)
        deadline_s = time.monotonic() + 20
        while not source.assignment.partitions:
            assert time.monotonic() < deadline_s
            source.poll(1, 0.1)
        yield Late(
            lambda: KafkaAtomicProducer(KafkaConnection(f"127.0.0.1:{reported}"), IN, "name"),
            lambda: proxy.order("rule", name="k", what=HOLD, keys=[END_TXN], count=1),
            lambda: proxy.order("release", name="k"),
            lambda: read(stack.kafka_connection),
            source.group_metadata,
        )
        source.close()
    finally:
        if proxy is not None:
            proxy.close()
        stack.kafka.down()


def read(kafka: KafkaConnection) -> list[bytes | None]:
    reader, found, quiet_s = KafkaReader(kafka, [OUT], from_beginning=True), [], time.monotonic() + 1.0
    while time.monotonic() < quiet_s:
        for records in reader.read(0.2):
            found += records.values
    reader.close()
    return found


@pytest.fixture(params=["memory", "kafka"])
def late(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Late]:
    yield from in_memory() if request.param == "memory" else on_kafka(tmp_path)


def commit_with_a_late_end(late: Late, producer: AtomicProducer) -> None:
    late.hold()
    producer.begin()
    producer.queue(Output(OUT, [b"key"], [b"first"]))
    producer.flush()
    producer.add_offsets({0: 1}, late.member())
    for _ in range(3):
        with suppress(StreamsError):  # the client gives up on the answer, and sends it again when it is asked to
            producer.commit()
            return


def test_a_late_end_ends_the_next_commit_of_the_same_producer_half_done(late: Late):
    producer = late.producer()
    commit_with_a_late_end(late, producer)
    assert late.visible() == [b"first"]
    producer.begin()
    producer.queue(Output(OUT, [b"key"], [b"second"]))
    producer.flush()

    late.release()

    assert late.visible() == [b"first", b"second"], "nobody has ended the second commit"


def test_a_new_producer_of_the_same_name_makes_it_harmless(late: Late):
    commit_with_a_late_end(late, late.producer())
    producer = late.producer()
    producer.begin()
    producer.queue(Output(OUT, [b"key"], [b"second"]))
    producer.flush()

    late.release()

    assert late.visible() == [b"first"]
    producer.add_offsets({0: 2}, late.member())
    producer.commit()
    assert late.visible() == [b"first", b"second"]
