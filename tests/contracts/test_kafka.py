"""What only Kafka does: other members, brokers that go away, and settings."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
from confluent_kafka import Consumer

from services.codec.schemas import topics
from services.core.validation import Reject
from services.streams import Records, StreamsError
from services.streams.admin import KafkaAdmin, TopicPlan
from services.streams.clients import ATOMIC, COMMON, CONSUMER, PRODUCER
from services.streams.committer import SERVE_S, SERVINGS_MAX
from services.streams.kafka import KafkaSource, generation_of
from services.streams.publishers import KafkaAtomicProducer
from services.streams.ranges import visible_extent
from services.streams.reader import KafkaReader
from services.streams.sink import KafkaSink
from services.worker.dead_letters import encode_dead_letters
from services.worker.excluded import Excluded, KafkaDeadLetters, recall
from tests.contracts.logs import (
    DeliveringClients,
    drain,
    until_assigned,
)


def test_a_member_proves_its_generation_and_one_that_is_none_cannot(stack):
    """The format of the client's metadata is its own affair: this test notices when it changes."""
    topic = f"topic-{uuid.uuid4().hex[:8]}"
    KafkaAdmin(stack.kafka_connection).apply([TopicPlan(topic, 2, 1, 131_072)])
    source = KafkaSource(stack.kafka_connection, f"group-{topic}", topic)
    with pytest.raises(StreamsError):
        source.group_metadata()
    until_assigned(source)

    assert generation_of(source.group_metadata()) == 1
    source.close()


def test_the_coordinator_refuses_what_a_member_of_an_earlier_generation_commits(stack):
    """A worker that has not heard yet that the group has moved on proves itself by what it heard last."""
    topic = f"topic-{uuid.uuid4().hex[:8]}"
    KafkaAdmin(stack.kafka_connection).apply([TopicPlan(topic, 2, 1, 131_072)])
    first = KafkaSource(stack.kafka_connection, f"group-{topic}", topic)
    until_assigned(first)
    second = KafkaSource(stack.kafka_connection, f"group-{topic}", topic)
    before, deadline = first.group_metadata(), time.monotonic() + 20
    while not (len(first.assignment.partitions) == len(second.assignment.partitions) == 1):
        assert time.monotonic() < deadline
        first.poll(1, 0.1)
        second.poll(1, 0.1)

    for metadata, refused in ((before, True), (first.group_metadata(), False)):
        producer = KafkaAtomicProducer(stack.kafka_connection, topic, f"name-{topic}")
        producer.begin()
        with pytest.raises(StreamsError, match="GENERATION") if refused else nullcontext():
            producer.add_offsets({0: 1}, metadata)
        producer.close()
    first.close()
    second.close()


def test_a_second_member_takes_partitions_over_and_the_first_notices(stack):
    topic = f"topic-{uuid.uuid4().hex[:8]}"
    KafkaAdmin(stack.kafka_connection).apply([TopicPlan(topic, 2, 1, 131_072)])
    first, second = (KafkaSource(stack.kafka_connection, f"group-{topic}", topic) for _ in range(2))
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
    KafkaAdmin(stack.kafka_connection).apply([TopicPlan(topic, 1, 1, 131_072)])
    members = [KafkaSource(stack.kafka_connection, f"group-{topic}", topic) for _ in range(2)]
    assert not any(member.assignment.member for member in members)

    deadline = time.monotonic() + 20
    while not all(member.assignment.member for member in members):
        assert time.monotonic() < deadline
        for member in members:
            member.poll(1, 0.1)

    assert sorted(len(member.assignment.partitions) for member in members) == [0, 1]
    for member in members:
        member.close()


def test_a_topics_extents_and_a_groups_lag_are_reported_by_partition(stack):
    admin, topic = KafkaAdmin(stack.kafka_connection), f"topic-{uuid.uuid4().hex[:8]}"
    admin.apply([TopicPlan(topic, 2, 1, 131_072)])
    source, sink = KafkaSource(stack.kafka_connection, f"group-{topic}", topic), KafkaSink(stack.kafka_connection)
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
    before = {(topic, p): (0, ends[p] - 3) for p in range(2)}
    assert admin.group_lags(topic, f"group-{topic}", before)[0] == 0, "decided on since the ends were asked for"
    assert admin.group_lag("no-such-topic", "group") is None
    assert admin.brokers() == 1
    source.close()


def test_who_only_looks_does_not_wait_for_an_atomic_commit_that_is_under_way_and_who_acts_does(stack):
    admin, topic = KafkaAdmin(stack.kafka_connection), f"topic-{uuid.uuid4().hex[:8]}"
    group = f"group-{topic}"
    admin.apply([TopicPlan(topic, 1, 1, 131_072)])
    source, sink = KafkaSource(stack.kafka_connection, group, topic), KafkaSink(stack.kafka_connection)
    sink.send(topic, [b"key"] * 10, [b"v"] * 10)
    assert sink.flush(10)
    until_assigned(source, 1)
    producer = KafkaAtomicProducer(stack.kafka_connection, topic, f"name-{topic}")
    for begun, ended in ((None, 4), (4, 7)):
        producer.begin()
        producer.add_offsets({0: ended}, source.group_metadata())
        with ThreadPoolExecutor() as pool:
            acting = pool.submit(admin.committed, topic, group, [0], stable=True)

            assert KafkaAdmin(stack.kafka_connection).group_lag(topic, group) == 10 - (begun or 0)
            time.sleep(0.2)
            assert not acting.done()

            producer.commit()
            assert acting.result(10) == {0: ended}
    producer.close()
    source.close()


def test_a_commit_to_a_kafka_that_is_away_ends_and_is_settled_before_offsets_are_read_again(own_stack):
    stack, topic = own_stack(), "card-transactions"
    source, sink = KafkaSource(stack.kafka_connection, "group", topic), KafkaSink(stack.kafka_connection)
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
    source = KafkaSource(stack.kafka_connection, "group", topic)
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
    KafkaAdmin(stack.kafka_connection).apply([TopicPlan(topic, 2, 1, 131_072)])
    sink = KafkaSink(stack.kafka_connection)
    sink.send(topic, [b"%d" % i for i in range(100)], [b"v"] * 100)
    assert sink.flush(10)

    reader, seen, deadline = KafkaReader(stack.kafka_connection, [topic], from_beginning=True), 0, time.monotonic() + 10
    while seen < 100:
        assert time.monotonic() < deadline
        seen += sum(map(len, reader.read(0.2)))
    reader.close()

    assert seen == 100


def test_the_number_of_partitions_of_a_topic_is_never_changed(stack):
    topic = f"topic-{uuid.uuid4().hex[:8]}"
    admin = KafkaAdmin(stack.kafka_connection)
    assert "created" in admin.apply([TopicPlan(topic, 2, 1, 131_072)])[topic]
    assert "unchanged" in admin.apply([TopicPlan(topic, 2, 1, 131_072)])[topic]

    with pytest.raises(Exception, match="has 2 partitions, not 3"):
        admin.apply([TopicPlan(topic, 3, 1, 131_072)])
    assert "its 2 partitions stay" in admin.apply([TopicPlan(topic, 3, 1, 131_072, strict=False)])[topic]
    assert admin.partitions()[topic] == 2


def test_a_topic_that_is_not_reported_of_yet_is_neither_an_error_nor_created_twice(stack, monkeypatch):
    topic = f"topic-{uuid.uuid4().hex[:8]}"
    admin = KafkaAdmin(stack.kafka_connection)
    admin.apply([TopicPlan(topic, 2, 1, 131_072)])
    reported = admin.partitions
    answers = iter([{}, {}])
    monkeypatch.setattr(admin, "partitions", lambda: next(answers, None) or reported())

    assert "unchanged" in admin.apply([TopicPlan(topic, 2, 1, 131_072)])[topic]
    answers = iter([{}, {}])
    with pytest.raises(StreamsError, match="has 2 partitions, not 3"):
        admin.apply([TopicPlan(topic, 3, 1, 131_072)])


def test_those_who_apply_at_the_same_time_all_succeed(stack):
    topic = f"topic-{uuid.uuid4().hex[:8]}"
    admins = [KafkaAdmin(stack.kafka_connection) for _ in range(4)]
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda admin: admin.apply([TopicPlan(topic, 2, 1, 131_072)])[topic], admins))

    assert sum("created" in each for each in done) == 1
    assert sum("unchanged" in each for each in done) == 3


def test_a_batch_of_ours_is_smaller_than_what_every_topic_takes():
    assert topics()
    for settings in (PRODUCER, ATOMIC):
        assert all(settings["batch.size"] < topic.max_message_bytes for topic in topics().values())


def test_what_was_refused_undecoded_is_found_in_the_dead_letters(stack):
    """Read from the end; a topic that is not there holds nothing."""
    n, topic = 3, f"inputs-{uuid.uuid4().hex[:8]}"
    zeros = np.zeros(n, np.int64)
    records = Records(topic, zeros + 1, np.array([4, 7, 9]), np.array([40, 70, 90]), [None] * n, [b"x"] * n)
    reasons = np.array([Reject.KILLS_DECODER, Reject.EMPTY, Reject.INTERNAL_ERROR], np.int64)
    letters = KafkaDeadLetters(stack.kafka_connection)
    before = letters.extent(0)
    sink = KafkaSink(stack.kafka_connection)
    output = encode_dead_letters(records, np.arange(n), reasons, 1)
    sink.send(output.topic, output.keys, output.values)
    sink.flush(10)
    sink.close()

    assert letters.extent(0) == (before[0], before[1] + n)
    now_ms = int(time.time() * 1000)
    assert letters.extent(now_ms - 3_600_000)[1] == before[1] + n
    assert letters.extent(now_ms + 3_600_000) == (before[1] + n,) * 2, "none was written so late"
    assert recall(letters, topic, {1: (0, 100)}) == {
        1: {4: Excluded(Reject.KILLS_DECODER, 40), 9: Excluded(Reject.INTERNAL_ERROR, 90)}
    }
    assert recall(letters, topic, {1: (5, 9), 2: (0, 9)}) == {}
    assert visible_extent(stack.kafka_connection, f"{topic}-missing", 0) == (0, 0)


def test_a_member_whose_name_another_one_takes_fails_for_good_and_joins_again_as_a_new_client(stack, monkeypatch):
    """The one fatal error that a consumer can be brought to from outside; see the events' contract for the others."""
    monkeypatch.setitem(CONSUMER, "group.instance.id", "the-only-one")
    topic = f"topic-{uuid.uuid4().hex[:8]}"
    KafkaAdmin(stack.kafka_connection).apply([TopicPlan(topic, 2, 1, 131_072)])
    clients = DeliveringClients()
    source = KafkaSource(stack.kafka_connection, f"group-{topic}", topic, make_client=clients)
    until_assigned(source)
    thief = Consumer(
        COMMON
        | CONSUMER
        | {"bootstrap.servers": stack.kafka_address, "group.id": f"group-{topic}", "session.timeout.ms": 6_000}
    )
    thief.subscribe([topic])
    reported: list[str] = []
    deadline = time.monotonic() + 60
    while not reported:
        assert time.monotonic() < deadline
        thief.poll(0.1)
        try:
            source.poll(1, 0.1)
        except StreamsError as error:
            reported.append(str(error))
    thief.close()

    assert "FATAL" in reported[0] or "FENCED_INSTANCE_ID" in reported[0]
    assert len(clients.made) == 2
    until_assigned(source)
    assert generation_of(source.group_metadata()) > 0
    source.close()
