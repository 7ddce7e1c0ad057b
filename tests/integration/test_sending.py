"""The senders of a measurement against a real Kafka: what they send is there once, in order, where any other client would put it."""

from __future__ import annotations

import asyncio
import time
import uuid

import pytest

from services.measure.sending import Load, Schedule, send_at_once, send_together
from services.stack.processes import free_port
from services.streams import StreamsError
from services.streams.admin import KafkaAdmin, TopicPlan
from services.streams.reader import KafkaReader

PARTITIONS = 5


def new_topic(stack) -> str:
    topic = f"topic-{uuid.uuid4().hex[:8]}"
    KafkaAdmin(stack.kafka_address).apply([TopicPlan(topic, PARTITIONS, 1, 131_072)])
    return topic


def send(send, address: str, load: Load, rate: float) -> Schedule:
    schedule = Schedule(0, len(load.keys), rate, time.monotonic_ns() + 50_000_000)
    done = send(address, load, schedule)
    if done is not None:
        asyncio.run(done)
    return schedule


def arrived(stack, topic: str) -> dict[int, list[tuple[bytes, bytes]]]:
    reader = KafkaReader(stack.kafka_address, [topic], from_beginning=True)
    found: dict[int, list[tuple[bytes, bytes]]] = {}
    while not reader.caught_up():
        for records in reader.read(0.1):
            for partition, key, value in zip(records.partition.tolist(), records.keys, records.values, strict=True):
                found.setdefault(partition, []).append((key, value))
    reader.close()
    return found


def load_of(topic: str, count: int, size: int) -> Load:
    return Load.of(
        topic, [b"card-%d" % (i % 40) for i in range(count)], [b"%d" % i + b"." * size for i in range(count)]
    )


def test_both_senders_put_every_record_once_and_in_order_where_the_other_one_does(stack):
    found = []
    for sender in (send_at_once, send_together):
        topic = new_topic(stack)
        load = load_of(topic, 2_000, 100)

        schedule = send(sender, stack.kafka_address, load, 20_000.0)

        assert schedule.over
        found.append(arrived(stack, topic))
        assert sorted(pair for pairs in found[-1].values() for pair in pairs) == sorted(
            zip(load.keys, load.values, strict=True)
        )
        for pairs in found[-1].values():
            numbers = [int(value.rstrip(b".")) for _, value in pairs]
            assert numbers == sorted(numbers)
    assert found[0] == found[1]


def test_what_is_due_at_once_and_fits_no_batch_goes_in_several(stack):
    topic = new_topic(stack)
    load = load_of(topic, 120, 40_000)

    send(send_together, stack.kafka_address, load, 1e6)

    assert sum(map(len, arrived(stack, topic).values())) == 120


def test_a_record_that_cannot_be_delivered_is_an_error_and_not_a_smaller_load(stack):
    topic = new_topic(stack)

    with pytest.raises(StreamsError):
        send(send_together, stack.kafka_address, load_of(topic, 10, 200_000), 1e6)


def test_a_sender_that_finds_no_broker_says_so():
    with pytest.raises(StreamsError):
        send(send_together, f"127.0.0.1:{free_port()}", load_of("nowhere", 10, 10), 1e6)
