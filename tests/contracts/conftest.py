"""The log in memory and the log in Kafka, one after the other."""

from __future__ import annotations

import uuid

import pytest

from tests.contracts.logs import kafka_log, memory_log


@pytest.fixture(params=["memory", "kafka"])
def log(request: pytest.FixtureRequest):
    topic = f"topic-{uuid.uuid4().hex[:8]}"
    made = (
        memory_log(topic)
        if request.param == "memory"
        else kafka_log(topic, request.getfixturevalue("stack").kafka_address)
    )
    yield made
    made.source.close()
