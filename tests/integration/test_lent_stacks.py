"""A stack that a test had is lent again empty; one that it stopped, changed or left in a transaction is not."""

from __future__ import annotations

import time

import redis
from confluent_kafka import Producer

from services.streams import StreamsError
from services.streams.admin import KafkaAdmin
from tests.stacks import StackPool

QUIET = {"log_level": 0}


def commit_soon(admin: KafkaAdmin, topic: str, group_id: str) -> None:
    """Commit as soon as the group's coordinator is there, which a new Kafka makes at the first call."""
    deadline_s = time.monotonic() + 20
    while True:
        try:
            return admin.commit(topic, group_id, {0: 1})
        except StreamsError:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)


def test_what_a_test_left_whole_is_lent_again_without_anything_in_it(stack_pool: StackPool):
    first = stack_pool.take(2)
    producer = Producer(first.kafka_connection.producer(QUIET))
    producer.produce("card-transactions", b"value", b"key")
    assert producer.flush(10) == 0
    client = redis.Redis.from_url(first.redis_url)
    client.set("key", "value")
    commit_soon(KafkaAdmin(first.kafka_connection), "card-transactions", "somebody")
    assert stack_pool.give_back(first)

    again = stack_pool.take(4)

    assert again is first
    assert client.dbsize() == 0
    admin = KafkaAdmin(again.kafka_connection)
    assert admin.partitions()["card-transactions"] == 4
    assert set(admin.extents().values()) == {(0, 0)}
    assert admin.committed("card-transactions", "somebody", range(4)) == {}
    assert stack_pool.give_back(again)


def test_what_a_test_changed_or_left_open_is_thrown_away(stack_pool: StackPool):
    changed = stack_pool.take(1)
    redis.Redis.from_url(changed.redis_url).config_set("maxmemory-policy", "allkeys-lru")
    assert not stack_pool.give_back(changed)

    left = stack_pool.take(1)
    producer = Producer(left.kafka_connection.producer(QUIET | {"transactional.id": "left"}))
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce("card-transactions", b"value", b"key")
    assert producer.flush(10) == 0
    assert not stack_pool.give_back(left)

    stopped = stack_pool.take(1)
    stopped.redis.down()
    assert not stack_pool.give_back(stopped)
