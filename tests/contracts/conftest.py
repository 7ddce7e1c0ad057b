"""The log in memory and in Kafka, the grid in memory and in Redis, one after the other."""

from __future__ import annotations

import uuid

import pytest
import redis

from services.grid import Grid
from services.grid.connection import GridConnection
from services.grid.keys import meta_key, profiles_key
from services.grid.memory import GridMemory, MemoryGrid
from services.grid.redis import RedisGrid
from tests.contracts.logs import kafka_log, memory_log
from tests.contracts.stores import Store


@pytest.fixture(params=["memory", "kafka"])
def log(request: pytest.FixtureRequest):
    topic = f"topic-{uuid.uuid4().hex[:8]}"
    made = (
        memory_log(topic)
        if request.param == "memory"
        else kafka_log(topic, request.getfixturevalue("stack").kafka_connection)
    )
    yield made
    made.source.close()


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "memory":
        memory, count = GridMemory(), iter(range(100))
        return Store(
            lambda: MemoryGrid(memory, f"process-{next(count)}"),
            lambda topic: memory.metas.pop((topic, 0), None) and None,
            lambda topic, card: memory.of(topic, 0).pop(card) and None,
            lambda: MemoryGrid(memory, memory.refused.add("stranger") or "stranger"),
        )
    url = request.getfixturevalue("stack").redis_url
    client = redis.Redis.from_url(url)
    return Store(
        lambda: RedisGrid(GridConnection.of(url)),
        lambda topic: client.delete(meta_key(topic, 0)) and None,
        lambda topic, card: client.hdel(profiles_key(topic, 0), card) and None,
        lambda: RedisGrid(GridConnection.of(url.replace("://", "://stranger:wrong@"))),
    )


@pytest.fixture
def grid(store: Store) -> Grid:
    return store.connect()


@pytest.fixture
def topic() -> str:
    return f"topic-{uuid.uuid4().hex[:8]}"
