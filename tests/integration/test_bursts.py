"""Bursts of one card from clients with their default settings are taken whole, and what unpacks to far more than it is is not taken at all."""

from __future__ import annotations

import asyncio
import shutil
import struct
import subprocess
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Producer

from services.codec.schemas import topics
from services.codec.transactions import TOPIC, encode_transactions
from services.core.columns import Text
from services.core.features import HOUR_MS
from services.stack.kafka import jars_folder
from services.streams.admin import KafkaAdmin
from services.streams.clients import CONSUMER
from tests.integration.system import START_MS, read_all, services, traffic_of, wait_drained

COUNT = 20_000
BOMB_BYTES = 100_000_000


def burst(card: bytes) -> list[bytes]:
    """Return transactions of one card: the same purchase every hour, which is mostly approved, so that no time goes into explanations."""
    columns = traffic_of(COUNT).columns
    purchase = columns.take(np.full(COUNT, int(columns.billing_amount_minor.argmin())))
    times = START_MS - HOUR_MS * np.arange(COUNT)[::-1]
    cards = Text.of([card] * COUNT)
    return encode_transactions(
        replace(purchase, transaction_id=columns.transaction_id, card_id=cards, event_time_ms=times)
    )


def librdkafka(address: str, card: bytes, values: list[bytes], **settings) -> int:
    """Send with librdkafka; return how many were accepted."""
    own = {"bootstrap.servers": address, "log_level": 0}
    producer, results = Producer(own | settings), []
    for value in values:
        producer.produce(TOPIC, value, card, on_delivery=lambda error, _: results.append(error))
    assert producer.flush(120) == 0
    return sum(error is None for error in results)


def aiokafka(address: str, card: bytes, values: list[bytes]) -> int:
    async def send() -> int:
        producer = AIOKafkaProducer(bootstrap_servers=address)
        await producer.start()
        try:
            futures = [await producer.send(TOPIC, value, card) for value in values]
            done = await asyncio.gather(*futures, return_exceptions=True)
        finally:
            await producer.stop()
        return sum(not isinstance(one, BaseException) for one in done)

    return asyncio.run(send())


def java(address: str, card: bytes, values: list[bytes]) -> int:
    runtime = shutil.which("java")
    modules = (
        subprocess.run([runtime, "--list-modules"], capture_output=True, text=True, check=True).stdout
        if runtime
        else ""
    )
    if "jdk.compiler@" not in modules:
        pytest.skip("there is no Java here that compiles: Java's own producer is not tried")
    source = Path(__file__).with_name("Burst.java")
    records = b"".join(struct.pack(">i", len(part)) + part for value in values for part in (card, value))
    command = [runtime, "-cp", f"{jars_folder()}/*", str(source), address, TOPIC]
    done = subprocess.run(command, input=records, capture_output=True, check=True, timeout=240)
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize("client", [librdkafka, aiokafka, java], ids=lambda c: c.__name__)
def test_a_burst_of_one_card_is_taken_whole_and_decided(own_stack, tmp_path, client):
    stack, card = own_stack(), b"card-in-a-hurry"
    with services(stack, tmp_path, ["scorer"]) as [scorer]:
        scorer.wait_ready()

        assert client(stack.kafka_address, card, burst(card)) == COUNT

        wait_drained(stack, 120)
        decided = read_all(stack, "card-decisions")
    assert Counter(key for _, _, key, _ in decided) == {card: COUNT}
    assert not read_all(stack, "dead-letters")


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_what_comes_compressed_is_taken_as_what_it_is(stack, codec):
    """Within the limit of a batch as it is unpacked: so much, and no more, comes to whoever reads."""
    card = f"card-{codec}".encode()
    values = [b"%06d" % i * 100 for i in range(1_000)]
    before = stack_end(stack)

    assert librdkafka(stack.kafka_address, card, values, **{"compression.type": codec}) == 1_000
    assert stack_end(stack) == before + 1_000


def stack_end(stack) -> int:
    return sum(end for _, end in KafkaAdmin(stack.kafka_connection).extents(TOPIC).values())


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_bomb_is_refused_by_the_broker_and_no_worker_grows(own_stack, tmp_path, codec):
    stack = own_stack()
    with services(stack, tmp_path, ["scorer"]) as [scorer]:
        scorer.wait_ready()
        process = psutil.Process(scorer.process.pid)
        before, worst = process.memory_info().rss, []
        bomb = {"compression.type": codec, "message.max.bytes": 1_000_000_000, "queue.buffering.max.kbytes": 2_000_000}

        accepted = librdkafka(stack.kafka_address, b"bomb", [bytes(BOMB_BYTES)], **bomb)
        for _ in range(20):
            worst.append(process.memory_info().rss)
            time.sleep(0.1)

        assert accepted == 0, "it is far below the limit of a batch as it comes, and far above it as it is"
        assert max(worst) - before < 64 * 2**20
        assert librdkafka(stack.kafka_address, b"card-1", burst(b"card-1")[:100]) == 100, "others are served"
        wait_drained(stack)
        assert len(read_all(stack, "card-decisions")) == 100


def test_every_default_batch_fits_into_the_topics_that_others_write_to():
    written_by_others = (
        "card-transactions",
        "fraud-labels",
        "accounts",
        "customers",
        "terminal-events",
        "card-reassessment-requests",
    )
    for name in written_by_others:
        assert topics()[name].max_message_bytes == 1_048_588, "Kafka's own default, which every client is made for"
    assert CONSUMER["fetch.message.max.bytes"] >= max(topic.max_message_bytes for topic in topics().values())
    assert CONSUMER["receive.message.max.bytes"] >= CONSUMER["fetch.max.bytes"] + 512
