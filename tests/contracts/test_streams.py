"""One suite over the log in memory and the log in Kafka."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from services.codec.schemas import topics
from services.streams import Records, Sink, Source, StreamsError
from services.streams.admin import KafkaAdmin, TopicPlan
from services.streams.committer import SERVE_S, SERVINGS_MAX
from services.streams.kafka import _PRODUCER, KafkaSink, KafkaSource
from services.streams.memory import MemoryLog, MemorySink, MemorySource
from services.streams.reader import KafkaReader

PARTITIONS = 2


@dataclass
class Log:
    """A topic with a member of a group on it, whichever the backend."""

    topic: str
    source: Source
    sink: Sink
    member: Callable[[], Source]


@pytest.fixture(params=["memory", "kafka"])
def log(request: pytest.FixtureRequest):
    topic = f"topic-{uuid.uuid4().hex[:8]}"
    sources: list[Any] = []
    if request.param == "memory":
        memory = MemoryLog(PARTITIONS)

        def member() -> Source:
            sources.append(MemorySource(memory, topic))
            sources[-1].assign(*range(PARTITIONS))
            return sources[-1]

        sink: Sink = MemorySink(memory)
    else:
        address = request.getfixturevalue("stack").kafka_address
        KafkaAdmin(address).apply([TopicPlan(topic, PARTITIONS, 1, 131_072)])

        def member() -> Source:
            sources.append(KafkaSource(address, f"group-{topic}", topic))
            return sources[-1]

        sink = KafkaSink(address)
    yield Log(topic, member(), sink, member)
    for source in sources:
        source.close()


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
    keys = [b"key-%d" % (i % 5) for i in range(count)]
    log.sink.send(log.topic, keys, [b"%d" % i for i in range(count)])
    assert log.sink.flush(10)


def start_at_zero(log: Log) -> None:
    until_assigned(log.source)
    log.source.start(dict.fromkeys(range(PARTITIONS), 0))


def test_nothing_is_read_before_the_worker_says_from_where(log: Log):
    send(log, 10)
    until_assigned(log.source)

    assert len(log.source.poll(10, 0.3)) == 0


def test_every_record_is_read_once_in_the_order_of_its_partition(log: Log):
    start_at_zero(log)
    send(log, 50)

    batches = drain(log.source, 50)

    assert sorted(int(v) for b in batches for v in b.values) == list(range(50))
    for partition in range(PARTITIONS):
        offsets = np.concatenate([b.offset[b.partition == partition] for b in batches])
        np.testing.assert_array_equal(offsets, np.arange(len(offsets)))
    assert all(len(b) <= 7 for b in batches)


def test_the_same_key_is_always_in_the_same_partition(log: Log):
    start_at_zero(log)
    send(log, 40)

    home: dict[bytes | None, set[int]] = {}
    for batch in drain(log.source, 40):
        for key, partition in zip(batch.keys, batch.partition.tolist(), strict=True):
            home.setdefault(key, set()).add(partition)

    assert all(len(partitions) == 1 for partitions in home.values())


def test_starting_again_rewinds(log: Log):
    start_at_zero(log)
    send(log, 20)
    drain(log.source, 20)

    log.source.start(dict.fromkeys(range(PARTITIONS), 0))

    assert sum(map(len, drain(log.source, 20))) == 20


def test_committed_offsets_are_what_the_log_says_afterwards(log: Log):
    start_at_zero(log)
    send(log, 20)
    assert {s.committed for s in log.source.log_states([0, 1]).values()} == {None}

    log.source.commit({0: 3})

    states = log.source.log_states([0, 1])
    assert (states[0].committed, states[1].committed) == (3, None)
    assert sum(s.log_end for s in states.values()) == 20
    assert states[0].topic_id == states[1].topic_id


def test_keeping_alive_takes_no_records_and_loses_none(log: Log):
    start_at_zero(log)
    send(log, 30)
    seen = drain(log.source, 5)
    for _ in range(3):
        log.source.keep_alive(0.1)

    seen += drain(log.source, 30 - sum(map(len, seen)))

    assert sorted(int(v) for b in seen for v in b.values) == list(range(30))


def test_what_was_kept_waiting_is_read_after_a_new_start(log: Log):
    """A client's pause outlives an assignment: a start must end it."""
    start_at_zero(log)
    send(log, 30)
    drain(log.source, 5)
    log.source.keep_alive(0.1)

    log.source.start(dict.fromkeys(range(PARTITIONS), 0))
    seen = drain(log.source, 30)
    assert sorted(int(v) for b in seen for v in b.values) == list(range(30))


def test_the_lag_is_what_lies_behind_the_position(log: Log):
    start_at_zero(log)
    send(log, 30)
    drain(log.source, 30)

    assert sum(log.source.lag().values()) == 0


def test_next_offsets_are_behind_the_last_record_of_each_partition():
    records = Records("t", np.array([0, 1, 0]), np.array([4, 9, 5]), np.zeros(3, np.int64), [None] * 3, [b""] * 3)

    assert records.next_offsets() == {0: 6, 1: 10}


def test_a_second_member_takes_partitions_over_and_the_first_notices(stack):
    topic = f"topic-{uuid.uuid4().hex[:8]}"
    KafkaAdmin(stack.kafka_address).apply([TopicPlan(topic, 2, 1, 131_072)])
    first, second = (KafkaSource(stack.kafka_address, f"group-{topic}", topic) for _ in range(2))
    deadline = time.monotonic() + 20
    while not (len(first.assignment.partitions) == len(second.assignment.partitions) == 1):
        assert time.monotonic() < deadline
        first.poll(1, 0.1)
        second.poll(1, 0.1)

    assert set(first.assignment.partitions) | set(second.assignment.partitions) == {0, 1}
    first.close()
    while len(second.assignment.partitions) < 2:
        assert time.monotonic() < deadline
        second.poll(1, 0.1)
    second.close()


def test_a_member_for_whom_no_partition_is_left_knows_that_it_is_one(stack):
    topic = f"topic-{uuid.uuid4().hex[:8]}"
    KafkaAdmin(stack.kafka_address).apply([TopicPlan(topic, 1, 1, 131_072)])
    members = [KafkaSource(stack.kafka_address, f"group-{topic}", topic) for _ in range(2)]
    assert not any(member.assignment.member for member in members)

    deadline = time.monotonic() + 20
    while not all(member.assignment.member for member in members):
        assert time.monotonic() < deadline
        for member in members:
            member.poll(1, 0.1)

    assert sorted(len(member.assignment.partitions) for member in members) == [0, 1]
    for member in members:
        member.close()


def test_a_topics_extents_and_a_groups_lag_are_told_by_partition(stack):
    admin, topic = KafkaAdmin(stack.kafka_address), f"topic-{uuid.uuid4().hex[:8]}"
    admin.apply([TopicPlan(topic, 2, 1, 131_072)])
    source, sink = KafkaSource(stack.kafka_address, f"group-{topic}", topic), KafkaSink(stack.kafka_address)
    log = Log(topic, source, sink, lambda: source)
    send(log, 30)
    until_assigned(source, 2)
    source.start({0: 0, 1: 0})
    drain(source, 30)
    extents = admin.extents()
    ends = {p: extents[topic, p][1] for p in range(2)}

    assert sum(ends.values()) == 30
    assert admin.group_lags(topic, f"group-{topic}", extents) == ends
    source.commit({0: ends[0]})
    source.check()
    assert admin.group_lags(topic, f"group-{topic}", extents) == {0: 0, 1: ends[1]}
    assert admin.group_lag(topic, f"group-{topic}") == ends[1]
    assert admin.group_lag("no-such-topic", "group") is None
    assert admin.brokers() == 1
    source.close()


def test_a_commit_to_a_kafka_that_is_away_ends_and_is_settled_before_offsets_are_read_again(own_stack):
    stack, topic = own_stack(), "card-transactions"
    log = Log(
        topic, KafkaSource(stack.kafka_address, "group", topic), KafkaSink(stack.kafka_address), lambda: log.source
    )
    until_assigned(log.source, 3)
    log.source.start(dict.fromkeys(range(3), 0))
    send(log, 30)
    drain(log.source, 30)
    log.source.commit({0: 1})
    stack.kafka.down()
    begin = time.monotonic()
    for offset in (2, 3):
        with pytest.raises(StreamsError):
            log.source.commit({0: offset})
    with pytest.raises(StreamsError):
        log.source.log_states([0])
    assert time.monotonic() - begin < 6 * SERVINGS_MAX * SERVE_S

    stack.kafka.up(lambda _: None)
    deadline, states = time.monotonic() + 30, None
    while states is None:
        assert time.monotonic() < deadline
        try:
            states = log.source.log_states([0])
        except StreamsError:
            log.source.keep_alive(0.1)
    log.source.close()

    assert states[0].committed in (1, 2), (
        "the commit that was given up may have happened; the one behind it was never sent"
    )


def test_closing_does_not_wait_for_a_commit_that_nobody_answers(own_stack):
    stack, topic = own_stack(), "card-transactions"
    source = KafkaSource(stack.kafka_address, "group", topic)
    until_assigned(source, 3)
    source.start(dict.fromkeys(range(3), 0))
    source.commit({0: 0})
    stack.kafka.down()
    with pytest.raises(StreamsError):
        source.commit({0: 0})

    begin = time.monotonic()
    source.close()

    assert time.monotonic() - begin < 1.0


def test_the_reader_sees_every_record_without_a_group(stack):
    topic = f"topic-{uuid.uuid4().hex[:8]}"
    KafkaAdmin(stack.kafka_address).apply([TopicPlan(topic, 2, 1, 131_072)])
    sink = KafkaSink(stack.kafka_address)
    sink.send(topic, [b"%d" % i for i in range(100)], [b"v"] * 100)
    assert sink.flush(10)

    reader, seen, deadline = KafkaReader(stack.kafka_address, [topic], from_beginning=True), 0, time.monotonic() + 10
    while seen < 100:
        assert time.monotonic() < deadline
        seen += sum(map(len, reader.read(0.2)))
    reader.close()

    assert seen == 100


def test_the_number_of_partitions_of_a_topic_is_never_changed(stack):
    topic = f"topic-{uuid.uuid4().hex[:8]}"
    admin = KafkaAdmin(stack.kafka_address)
    assert "created" in admin.apply([TopicPlan(topic, 2, 1, 131_072)])[topic]
    assert "unchanged" in admin.apply([TopicPlan(topic, 2, 1, 131_072)])[topic]

    with pytest.raises(Exception, match="has 2 partitions, not 3"):
        admin.apply([TopicPlan(topic, 3, 1, 131_072)])


def test_a_batch_of_ours_is_smaller_than_what_every_topic_takes():
    assert all(_PRODUCER["batch.size"] < topic.max_message_bytes for topic in topics().values())
