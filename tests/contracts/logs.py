"""A topic with a member of a group on it, in memory or in Kafka, for the contract of logs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message

from services.streams import Output, PlaceReader, Publisher, Records, Source
from services.streams.admin import KafkaAdmin, TopicPlan
from services.streams.atomic import AtomicPublisher
from services.streams.connection import KafkaConnection
from services.streams.events import ErrorEvent
from services.streams.kafka import KafkaSource
from services.streams.memory import MemoryLog, MemorySource
from services.streams.memory_commits import partition_of
from services.streams.memory_places import MemoryPlaces
from services.streams.memory_publishers import MemoryAtomicProducer, MemoryPublisher
from services.streams.places import KafkaPlaces
from services.streams.publishers import KafkaAtomicProducer, RepeatingPublisher
from services.streams.reader import KafkaReader
from services.streams.sink import KafkaSink

PARTITIONS = 2


@dataclass
class Log:
    """A topic with a member of a group on it, whichever the backend."""

    topic: str
    source: Any
    publisher: Callable[..., Publisher]
    """Makes a publisher: of a name for atomic commits, of None for at least once."""
    send: Callable[[int], None]
    answers: Callable[[], list[bytes | None]]
    """What a reader of committed records sees of the topic ``{topic}-out``."""
    places: Callable[[], PlaceReader]
    """Makes a reader of single records."""
    deliver: Callable[..., None]
    """Lets the source's consumer deliver an error event with the next poll: its name, and whether it is fatal."""
    memory: MemoryLog | None = None
    client: Any = None
    """The client of Kafka's that the source began with."""


class Delivering:
    """A consumer that delivers error events of a test's choice before anything else."""

    def __init__(self, consumer: Any) -> None:
        self._consumer, self.events = consumer, deque[Message]()

    def poll(self, timeout_s: float) -> Message | None:
        return self.events.popleft() if self.events else self._consumer.poll(timeout_s)

    def consume(self, count: int, timeout_s: float) -> list[Message]:
        return [self.events.popleft()] if self.events else self._consumer.consume(count, timeout_s)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


class DeliveringClients:
    """Makes the clients of a source, which a test may have deliver error events."""

    def __init__(self) -> None:
        self.made: list[Delivering] = []

    def __call__(self, settings: dict[str, Any]) -> Any:
        self.made.append(Delivering(Consumer(settings)))
        return self.made[-1]

    def deliver(self, topic: str, name: str, *, fatal: bool = False) -> None:
        """Let the present one deliver an error event."""
        error = KafkaError(getattr(KafkaError, name), "as a test wants it", fatal=fatal)
        self.made[-1].events.append(Message(topic, 0, 3, error=error))


def memory_log(topic: str) -> Log:
    memory = MemoryLog(PARTITIONS)
    source = MemorySource(memory, topic)
    memory.rebalance({"member": tuple(range(PARTITIONS))})

    def publisher(name: str | None = None, source: MemorySource = source) -> Publisher:
        if name is None:
            return MemoryPublisher(memory, source)
        return AtomicPublisher(
            name, partial(MemoryAtomicProducer, memory, source.topic), source.group_metadata, time.monotonic
        )

    def send(count: int) -> None:
        for i in range(count):
            key = b"key-%d" % (i % 5)
            memory.append(topic, key, b"%d" % i, 0, partition_of(key, PARTITIONS))

    def answers() -> list[bytes | None]:
        return [r.value for p in range(PARTITIONS) for r in memory.visible(f"{topic}-out", p)]

    def tell(name: str, *, fatal: bool = False) -> None:
        source.deliver(ErrorEvent(name, "as a test wants it", fatal, 0, 3))

    return Log(topic, source, publisher, send, answers, lambda: MemoryPlaces(memory), tell, memory)


def kafka_log(topic: str, kafka: KafkaConnection) -> Log:
    KafkaAdmin(kafka).apply([TopicPlan(name, PARTITIONS, 1, 131_072) for name in (topic, f"{topic}-out")])
    clients = DeliveringClients()
    source, sink = KafkaSource(kafka, f"group-{topic}", topic, make_client=clients), KafkaSink(kafka)

    def publisher(name: str | None = None, source: KafkaSource = source) -> Publisher:
        if name is None:
            return RepeatingPublisher(kafka, source)
        return AtomicPublisher(
            name, partial(KafkaAtomicProducer, kafka, source.topic), source.group_metadata, time.monotonic
        )

    def send(count: int) -> None:
        sink.send(topic, [b"key-%d" % (i % 5) for i in range(count)], [b"%d" % i for i in range(count)])
        assert sink.flush(10)

    def answers() -> list[bytes | None]:
        reader, found = KafkaReader(kafka, [f"{topic}-out"], from_beginning=True), []
        quiet_at = time.monotonic() + 1.0
        while time.monotonic() < quiet_at:
            for records in reader.read(0.2):
                found += records.values
                quiet_at = time.monotonic() + 1.0
        reader.close()
        return found

    tell = partial(clients.deliver, topic)
    return Log(topic, source, publisher, send, answers, lambda: KafkaPlaces(kafka), tell, client=clients.made[-1])


def until_assigned(source: Source, count: int = PARTITIONS) -> None:
    deadline = time.monotonic() + 15
    while len(source.assignment.partitions) != count:
        assert time.monotonic() < deadline, "no assignment"
        source.poll(10, 0.2)


def drain(source: Source, count: int) -> list[Records]:
    batches, deadline = [], time.monotonic() + 15
    while sum(map(len, batches)) < count:
        assert time.monotonic() < deadline, f"{sum(map(len, batches))} of {count} records"
        records = source.poll(7, 0.2)
        if len(records):
            batches.append(records)
    return batches


def send(log: Log, count: int) -> None:
    log.send(count)


def outputs(log: Log, *values: bytes) -> list[Output]:
    return [Output(f"{log.topic}-out", [b"key"] * len(values), list(values))]


def start_at_zero(log: Log) -> None:
    until_assigned(log.source)
    log.source.start(dict.fromkeys(range(PARTITIONS), 0))
