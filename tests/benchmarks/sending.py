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
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final, cast

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from services.core.columns import Text
from services.core.kernels import partitions_of
from services.runtime.garbage_collection import tune_garbage_collection
from services.streams.base import Output, StreamsError
from services.streams.clients import PRODUCER
from services.streams.connection import KafkaConnection
from services.streams.sink import KafkaSink
from tests.benchmarks.bench_system import TOPIC

LINGERING_FROM: Final = 5_000.0
"""From how many records a second on a sender lets them wait for each other."""
LINGER_MS: Final = 5.0
"""For how long: the default of Kafka's clients. It is part of what is measured."""
FLUSH_S: Final = 30.0
_TICK_S: Final = 0.0005


def linger_ms(rate: float) -> float:
    """Return for how long a sender of a rate holds records back."""
    return LINGER_MS if rate >= LINGERING_FROM else 0.0


@dataclass(slots=True)
class Schedule:
    """Which records are due when, and which were sent: from ``first`` up to ``until``, ``rate`` a second from ``begin_ns`` of the monotonic clock on."""

    first: int
    until: int
    rate: float
    begin_ns: int
    taken: int = 0
    """How many of them were sent."""
    late_ns: int = 0
    """How late the latest record was sent."""

    def take(self, now_ns: int) -> slice:
        """Return those that are due by now and were not taken before."""
        before, passed_ns = self.taken, now_ns - self.begin_ns
        if passed_ns >= 0:
            self.taken = max(before, min(self.until - self.first, int(passed_ns * self.rate / 1e9) + 1))
        if self.taken > before:
            self.late_ns = max(self.late_ns, passed_ns - int(before * 1e9 / self.rate))
        return slice(self.first + before, self.first + self.taken)

    @property
    def over(self) -> bool:
        """Whether everything was taken."""
        return self.first + self.taken >= self.until


def run_sender(address: str, pipe: Connection) -> None:
    """Send records at the rates that are asked for, until asked to stop: the process's whole life."""
    load = Output(TOPIC, *pipe.recv())
    tune_garbage_collection()
    while (order := pipe.recv()) is not None:
        schedule = Schedule(*order)
        if linger_ms(schedule.rate):
            asyncio.run(send_together(address, load, schedule))
        else:
            send_at_once(address, load, schedule)
        pipe.send(schedule.late_ns / 1e6)


def send_at_once(address: str, load: Output, schedule: Schedule) -> None:
    """Send each record when it is due. Raises StreamsError."""
    sink = KafkaSink(KafkaConnection(address))
    while not schedule.over:
        due = schedule.take(time.monotonic_ns())
        sink.send(load.topic, load.keys[due], load.values[due])
        time.sleep(_TICK_S)
    sink.flush(FLUSH_S)
    sink.close()


async def send_together(address: str, load: Output, schedule: Schedule) -> None:
    """Send what became due within each ``LINGER_MS`` together. Raises StreamsError."""
    producer = AIOKafkaProducer(
        bootstrap_servers=address, acks="all", enable_idempotence=True, max_batch_size=PRODUCER["batch.size"]
    )
    batches = _Batches(producer, load.topic)
    try:
        await producer.start()
        count = len(await producer.partitions_for(load.topic))
        wake_ns = schedule.begin_ns
        while not schedule.over:
            # By the schedule, not from now on: the loop's clock wakes up to a millisecond late, which would add up.
            await asyncio.sleep((wake_ns - time.monotonic_ns()) / 1e9)
            due = schedule.take(time.monotonic_ns())
            keys = cast("Sequence[bytes]", load.keys[due])  # everything sent has one
            await batches.send(partitions_of(Text.of(keys), count).tolist(), keys, load.values[due])
            wake_ns += int(LINGER_MS * 1e6)
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
        self.failure: BaseException | None = None

    async def send(self, partitions: list[int], keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> None:
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
        sent = await self._producer.send_batch(batch, self._topic, partition=partition)
        sent.add_done_callback(self._on_published)

    def _on_published(self, sent: asyncio.Future[Any]) -> None:
        self.failure = self.failure or sent.exception()
