"""The sender of an open loop: it sends what is due, whether earlier records were answered or not.

Two clients, for two kinds of senders. One that sends at once has one record a request, whoever it is. One whose records wait for each other
for a moment is measured with a client whose requests carry all partitions of a broker, as those of Kafka's own do (they wait for as long, too).
The client of the workers sends a request a partition: twelve times as many, and on a machine that the broker shares with all that is
measured that is a third of the broker's work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from services.core.columns import type_i64
from services.measure.bench_system import TOPIC
from services.runtime.pauses import collect_seldom
from services.streams.base import StreamsError
from services.streams.sink import KafkaSink

LINGERING_FROM: Final = 5_000.0
"""From how many records a second on a sender lets them wait for each other."""
LINGER_MS: Final = 5.0
"""For how long: the default of Kafka's clients. It is part of what is measured."""
FLUSH_S: Final = 30.0
_TICK_S: Final = 0.0005
_BATCH_BYTES_MAX: Final = 100_000  # a topic's max.message.bytes bounds batches: stay below it


def linger_ms(rate: float) -> float:
    """Return for how long a sender of a rate holds records back."""
    return LINGER_MS if rate >= LINGERING_FROM else 0.0


@dataclass(slots=True)
class Schedule:
    """Which records are due when, and which were sent: from ``sent`` up to ``until``, ``rate`` a second from ``begin_ns`` of the monotonic clock on."""

    sent: int
    until: int
    rate: float
    begin_ns: int
    late_ns: int = 0
    """How late the latest record was sent."""
    first: int = field(init=False)

    def __post_init__(self) -> None:
        self.first = self.sent

    def take(self, now_ns: int) -> slice:
        """Return those that are due by now and were not taken before."""
        begin, passed_ns = self.sent, now_ns - self.begin_ns
        if passed_ns >= 0:
            self.sent = max(begin, min(self.until, self.first + int(passed_ns * self.rate / 1e9) + 1))
        if self.sent > begin:
            self.late_ns = max(self.late_ns, passed_ns - int((begin - self.first) * 1e9 / self.rate))
        return slice(begin, self.sent)

    @property
    def over(self) -> bool:
        """Whether everything was taken."""
        return self.sent >= self.until


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent to a topic: keys, values, and the keys' hashes, by which all of Kafka's clients choose partitions."""

    topic: str
    keys: Sequence[bytes]
    values: Sequence[bytes]
    hashes: type_i64

    @classmethod
    def of(cls, topic: str, keys: Sequence[bytes], values: Sequence[bytes]) -> Load:
        """Return a load; each key is hashed once."""
        hashes = {key: murmur2(key) & 0x7FFFFFFF for key in set(keys)}
        return cls(topic, keys, values, np.fromiter(map(hashes.__getitem__, keys), np.int64, len(keys)))


def run_sender(address: str, pipe: Connection) -> None:
    """Send records at rates, as told, until told to stop: the process's whole life."""
    load = Load.of(TOPIC, *pipe.recv())
    collect_seldom()
    while (order := pipe.recv()) is not None:
        schedule = Schedule(*order)
        if linger_ms(schedule.rate):
            asyncio.run(send_together(address, load, schedule))
        else:
            send_at_once(address, load, schedule)
        pipe.send(schedule.late_ns / 1e6)


def send_at_once(address: str, load: Load, schedule: Schedule) -> None:
    """Send each record when it is due. Raises StreamsError."""
    sink = KafkaSink(address)
    while not schedule.over:
        due = schedule.take(time.monotonic_ns())
        sink.send(load.topic, load.keys[due], load.values[due])
        time.sleep(_TICK_S)
    sink.flush(FLUSH_S)
    sink.close()


async def send_together(address: str, load: Load, schedule: Schedule) -> None:
    """Send what became due within each ``LINGER_MS`` together. Raises StreamsError."""
    producer = AIOKafkaProducer(
        bootstrap_servers=address, acks="all", enable_idempotence=True, max_batch_size=_BATCH_BYTES_MAX
    )
    batches = _Batches(producer, load.topic)
    try:
        await producer.start()
        partitions = load.hashes % len(await producer.partitions_for(load.topic))
        while not schedule.over:
            now_ns = time.monotonic_ns()
            due = schedule.take(now_ns)
            await batches.send(partitions[due].tolist(), load.keys[due], load.values[due])
            await asyncio.sleep(LINGER_MS / 1e3 - (time.monotonic_ns() - now_ns) / 1e9)
        await asyncio.wait_for(producer.flush(), FLUSH_S)
    except (KafkaError, TimeoutError) as error:
        raise StreamsError(f"the sender: {type(error).__name__}: {error}") from error
    finally:
        await producer.stop()
    if batches.failure is not None:
        raise StreamsError(f"a record could not be delivered: {batches.failure}")


class _Batches:
    """Batches on their way: records of a partition that go together."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer, self._topic = producer, topic
        self._under_way: set[asyncio.Future[Any]] = set()
        self.failure: BaseException | None = None

    async def send(self, partitions: list[int], keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Send records in their order, a batch a partition; more than one where they do not fit. Raises KafkaError."""
        now_ms = time.time_ns() // 1_000_000
        batches: dict[int, Any] = {}
        for partition, key, value in zip(partitions, keys, values, strict=True):
            batch = batches.get(partition)
            if batch is None or batch.append(key=key, value=value, timestamp=now_ms) is None:
                if batch is not None:
                    await self._send_batch(batch, partition)
                batch = batches[partition] = self._producer.create_batch()
                batch.append(key=key, value=value, timestamp=now_ms)
        for partition, batch in batches.items():
            await self._send_batch(batch, partition)

    async def _send_batch(self, batch: Any, partition: int) -> None:
        future = await self._producer.send_batch(batch, self._topic, partition=partition)
        self._under_way.add(future)
        future.add_done_callback(self._landed)

    def _landed(self, future: asyncio.Future[Any]) -> None:
        self._under_way.discard(future)
        self.failure = self.failure or future.exception()
