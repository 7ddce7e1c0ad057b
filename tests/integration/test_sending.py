"""The senders of a measurement against a real Kafka: what they send is there once, in order, where any other client would put it."""

from __future__ import annotations

import asyncio
import time
import uuid

import pytest

from services.runtime.children import ChildError
from services.stack.processes import free_port
from services.streams import Output, StreamsError
from services.streams.admin import KafkaAdmin, TopicPlan
from tests.benchmarks.bench_system import traffic_of
from tests.benchmarks.latency import open_loop
from tests.benchmarks.sending import Schedule, send_at_once, send_together
from tests.integration.system import read_all

PARTITIONS = 5


def new_topic(stack) -> str:
    topic = f"topic-{uuid.uuid4().hex[:8]}"
    KafkaAdmin(stack.kafka_connection).apply([TopicPlan(topic, PARTITIONS, 1, 131_072)])
    return topic


def run(send, address: str, load: Output, rate: float) -> Schedule:
    schedule = Schedule(0, len(load.keys), rate, time.monotonic_ns() + 50_000_000)
    done = send(address, load, schedule)
    if done is not None:
        asyncio.run(done)
    return schedule


def load_of(topic: str, count: int, size: int) -> Output:
    return Output(topic, [b"card-%d" % (i % 40) for i in range(count)], [b"%d" % i + b"." * size for i in range(count)])


def test_both_senders_put_every_record_once_and_in_order_where_the_other_one_does(stack):
    found = []
    for sender in (send_at_once, send_together):
        topic = new_topic(stack)
        load = load_of(topic, 2_000, 100)

        schedule = run(sender, stack.kafka_address, load, 20_000.0)

        assert schedule.over
        there = read_all(stack, topic)
        assert sorted(record[2:] for record in there) == sorted(zip(load.keys, load.values, strict=True))
        for partition in range(PARTITIONS):
            numbers = [int(value.rstrip(b".")) for p, _, _, value in there if p == partition]
            assert numbers == sorted(numbers)
        found.append(there)
    assert found[0] == found[1]


def test_what_is_due_at_once_and_fits_no_batch_goes_in_several(stack):
    topic = new_topic(stack)
    load = load_of(topic, 120, 40_000)

    run(send_together, stack.kafka_address, load, 1e6)

    assert len(read_all(stack, topic)) == 120


def test_a_record_that_cannot_be_delivered_is_an_error_and_not_a_smaller_load(stack):
    topic = new_topic(stack)

    with pytest.raises(StreamsError):
        run(send_together, stack.kafka_address, load_of(topic, 10, 200_000), 1e6)


def test_a_sender_that_finds_no_broker_says_so():
    with pytest.raises(StreamsError):
        run(send_together, f"127.0.0.1:{free_port()}", load_of("nowhere", 10, 10), 1e6)


def test_a_sender_or_an_observer_that_ends_ends_the_measurement_too():
    nobody = f"127.0.0.1:{free_port()}"

    with pytest.raises(ChildError, match="ended"), open_loop(nobody, traffic_of(100, 10, 1)) as loop:
        loop.run(5_000.0, 0.01)
