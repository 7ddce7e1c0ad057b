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
from services.streams import Output, Publisher, Records, Source, StreamsError
from services.streams.admin import KafkaAdmin, TopicPlan
from services.streams.atomic import AtomicPublisher
from services.streams.clients import ATOMIC, PRODUCER
from services.streams.committer import SERVE_S, SERVINGS_MAX
from services.streams.kafka import KafkaSource
from services.streams.memory import MemoryAtomicProducer, MemoryLog, MemoryPublisher, MemorySource
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
    memory: MemoryLog | None = None


def memory_log(topic: str) -> Log:
    memory = MemoryLog(PARTITIONS)
    source = MemorySource(memory, topic)
    memory.rebalance({"member": tuple(range(PARTITIONS))})

    def publisher(name: str | None = None, source: MemorySource = source) -> Publisher:
        if name is None:
            return MemoryPublisher(memory, source)
        return AtomicPublisher(lambda: MemoryAtomicProducer(memory, source, name), time.monotonic)

    def send(count: int) -> None:
        for i in range(count):
            key = b"key-%d" % (i % 5)
            memory.append(topic, key, b"%d" % i, 0, sum(key) % PARTITIONS)

    def answers() -> list[bytes | None]:
        return [r.value for p in range(PARTITIONS) for r in memory.visible(f"{topic}-out", p)]

    return Log(topic, source, publisher, send, answers, memory)


def kafka_log(topic: str, address: str) -> Log:
    KafkaAdmin(address).apply([TopicPlan(name, PARTITIONS, 1, 131_072) for name in (topic, f"{topic}-out")])
    source, sink = KafkaSource(address, f"group-{topic}", topic), KafkaSink(address)

    def publisher(name: str | None = None, source: KafkaSource = source) -> Publisher:
        if name is None:
            return RepeatingPublisher(address, source)
        return AtomicPublisher(lambda: KafkaAtomicProducer(address, source, name), time.monotonic)

    def send(count: int) -> None:
        sink.send(topic, [b"key-%d" % (i % 5) for i in range(count)], [b"%d" % i for i in range(count)])
        assert sink.flush(10)

    def answers() -> list[bytes | None]:
        reader, found = KafkaReader(address, [f"{topic}-out"], from_beginning=True), []
        quiet_at = time.monotonic() + 1.0
        while time.monotonic() < quiet_at:
            for records in reader.read(0.2):
                found += records.values
                quiet_at = time.monotonic() + 1.0
        reader.close()
        return found

    return Log(topic, source, publisher, send, answers)


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


def test_an_atomic_commit_shows_outputs_and_offsets_together(log: Log):
    start_at_zero(log)
    publisher = log.publisher("name")
    publisher.open()
    publisher.publish(outputs(log, b"a", b"b"), {0: 4, 1: 2})
    publisher.publish(outputs(log, b"c"), {0: 5})

    assert log.answers() == [b"a", b"b", b"c"]
    assert {p: s.committed for p, s in log.source.log_states([0, 1]).items()} == {0: 5, 1: 2}
    publisher.close()


def test_at_least_once_publishes_outputs_and_then_offsets(log: Log):
    start_at_zero(log)
    publisher = log.publisher()
    publisher.open()
    publisher.publish(outputs(log, b"a"), {0: 4})

    assert log.answers() == [b"a"]
    assert log.source.log_states([0])[0].committed == 4
    publisher.close()


def half_done(log: Log, name: str, offsets: dict[int, int]) -> Any:
    """Leave an atomic commit open, as a process does that dies in it."""
    publisher = log.publisher(name)
    publisher.open()
    producer = publisher._producer  # type: ignore[attr-defined]
    producer.begin()
    producer.queue(outputs(log, b"half")[0])
    producer.add_offsets(offsets)
    producer.flush()
    return producer


def test_nothing_of_an_atomic_commit_that_was_not_ended_is_ever_seen(log: Log):
    start_at_zero(log)
    dead = half_done(log, "name", {0: 3})
    successor = log.publisher("name")
    successor.open()

    assert log.source.log_states([0])[0].committed is None, "the successor of the same name has aborted it"
    assert log.answers() == []
    with pytest.raises(StreamsError):
        dead.commit()
    successor.publish(outputs(log, b"whole"), {0: 3})
    assert log.answers() == [b"whole"]
    successor.close()


def test_an_open_commit_of_another_name_hides_what_is_committed(log: Log):
    """So a successor that does not know the name of the dead must wait until Kafka takes it for dead, too."""
    start_at_zero(log)
    half_done(log, "name", {0: 3})

    with pytest.raises(StreamsError):
        log.source.log_states([0])
    log.publisher("name").open()
    assert log.source.log_states([0])[0].committed is None


def test_an_ended_commit_that_its_owner_never_heard_of_counts(log: Log):
    start_at_zero(log)
    half_done(log, "name", {0: 3}).commit()
    successor = log.publisher("name")
    successor.open()

    assert log.source.log_states([0])[0].committed == 3
    assert log.answers() == [b"half"]
    successor.close()


def test_the_group_looks_at_the_generation_and_not_at_who_has_the_partition(log: Log):
    """Hence the worker itself must only commit what it owns, and nothing of an earlier assignment."""
    start_at_zero(log)
    log.source.start({0: 0})
    publisher = log.publisher("name")
    publisher.open()
    publisher.publish([], {1: 7})

    assert log.source.log_states([1])[1].committed == 7
    publisher.close()


def test_a_commit_of_a_member_that_left_is_refused(log: Log):
    start_at_zero(log)
    publisher = log.publisher("name")
    publisher.open()
    if log.memory is not None:
        log.memory.rebalance({"another": (0, 1)})
    else:
        log.source._consumer.unsubscribe()
        log.source.poll(1, 0.5)

    with pytest.raises(StreamsError):
        publisher.publish(outputs(log, b"late"), {0: 4})
    assert log.answers() == []


def test_a_member_proves_its_generation_and_one_that_is_none_cannot(stack):
    """The format of the client's metadata is its own affair: this test notices when it changes."""
    topic = f"topic-{uuid.uuid4().hex[:8]}"
    KafkaAdmin(stack.kafka_address).apply([TopicPlan(topic, 2, 1, 131_072)])
    source = KafkaSource(stack.kafka_address, f"group-{topic}", topic)
    with pytest.raises(StreamsError):
        source.group_metadata()
    until_assigned(source)

    assert source.group_metadata().startswith(b"CGMDv2:")
    assert source._member_generation == 1
    source.close()


def test_an_offset_at_a_time_is_the_first_that_is_not_before_it(log: Log):
    send(log, 20)
    until_assigned(log.source)
    end = log.source.log_states([0])[0].log_end

    assert log.source.offset_at(0, 0) == 0
    assert log.source.offset_at(0, 4_000_000_000_000) == end > 0


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
    sink.send(topic, [b"key-%d" % (i % 5) for i in range(30)], [b"v"] * 30)
    assert sink.flush(10)
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
    source, sink = KafkaSource(stack.kafka_address, "group", topic), KafkaSink(stack.kafka_address)
    until_assigned(source, 3)
    source.start(dict.fromkeys(range(3), 0))
    sink.send(topic, [b"key-%d" % (i % 5) for i in range(30)], [b"v"] * 30)
    assert sink.flush(10)
    drain(source, 30)
    source.commit({0: 1})
    stack.kafka.down()
    begin = time.monotonic()
    for offset in (2, 3):
        with pytest.raises(StreamsError):
            source.commit({0: offset})
    with pytest.raises(StreamsError):
        source.log_states([0])
    assert time.monotonic() - begin < 6 * SERVINGS_MAX * SERVE_S

    stack.kafka.up(lambda _: None)
    deadline, states = time.monotonic() + 30, None
    while states is None:
        assert time.monotonic() < deadline
        try:
            states = source.log_states([0])
        except StreamsError:
            source.keep_alive(0.1)
    source.close()

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
    for settings in (PRODUCER, ATOMIC):
        assert all(settings["batch.size"] < topic.max_message_bytes for topic in topics().values())
