"""Every error event that a consumer can deliver, over the log in memory and the log in Kafka: none ends whoever polls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from services.streams import StreamsError, kafka
from services.streams.base import DamagedRecordError
from services.streams.connection import KafkaConnection
from services.streams.events import DAMAGES, FATALS, GAPS, LOSSES, NOTICES, Meaning, meaning_of
from services.streams.kafka import KafkaSource
from tests.contracts.logs import (
    PARTITIONS,
    Delivering,
    DeliveringClients,
    Log,
    drain,
    send,
    start_at_zero,
    until_assigned,
)

CODES = sorted(name for name, value in vars(KafkaError).items() if isinstance(value, int) and name.strip("_").isupper())
"""Of librdkafka, as the client names them."""
MUST_RAISE = (Meaning.OUTAGE, Meaning.GAP, Meaning.DAMAGED, Meaning.FATAL)


def poll_through(log: Log) -> None:
    """Poll until what is to come has come."""
    for _ in range(3):
        log.source.poll(10, 0.05)


def test_the_table_knows_no_code_twice_and_none_that_the_client_does_not():
    tables = [NOTICES, GAPS, DAMAGES, LOSSES, FATALS]
    names = [name for table in tables for name in table]

    assert len(names) == len(set(names))
    assert set(names) <= set(CODES)
    assert len(CODES) > 150
    assert all(reason for table in tables for reason in table.values())


def test_what_is_not_in_the_table_is_an_outage_and_what_the_client_calls_fatal_is_fatal():
    assert meaning_of("TOPIC_AUTHORIZATION_FAILED") is meaning_of("of a later version") is Meaning.OUTAGE
    assert {meaning_of(name, fatal=True) for name in CODES} == {Meaning.FATAL}


@pytest.fixture(scope="module")
def clients() -> DeliveringClients:
    return DeliveringClients()


@pytest.fixture(scope="module")
def nowhere(clients: DeliveringClients) -> Iterator[KafkaSource]:
    """A member whose Kafka is not there: what its consumer delivers is a test's to choose."""
    source = KafkaSource(KafkaConnection("127.0.0.1:1"), "group", "topic", make_client=clients)
    yield source
    source.close()


@pytest.mark.parametrize("name", [name for name in CODES if meaning_of(name) is not Meaning.FATAL])
@pytest.mark.parametrize("way", ["poll", "keep_alive"])
def test_no_code_of_the_client_raises_anything_but_the_streams_own_error(
    nowhere: KafkaSource, clients: DeliveringClients, name: str, way: str
):
    meaning = meaning_of(name)
    clients.deliver("topic", name)
    before = nowhere.assignment.generation
    call = {"poll": lambda: nowhere.poll(10, 0), "keep_alive": lambda: nowhere.keep_alive(0)}[way]
    if meaning in MUST_RAISE:
        with pytest.raises(StreamsError, match=name) as raised:
            call()
        assert isinstance(raised.value, DamagedRecordError) == (meaning is Meaning.DAMAGED)
    else:
        call()

    assert (nowhere.assignment.generation > before) == (meaning is Meaning.MEMBERSHIP_LOST)


@pytest.mark.parametrize("name", ["_TRANSPORT", "_ALL_BROKERS_DOWN", "_PARTITION_EOF", "_MSG_TIMED_OUT"])
def test_a_notice_is_dropped_and_no_record_with_it(log: Log, name: str):
    start_at_zero(log)
    send(log, 10)
    log.deliver(name)

    assert sum(map(len, drain(log.source, 10))) == 10


@pytest.mark.parametrize(
    "name", ["_AUTO_OFFSET_RESET", "UNKNOWN_TOPIC_OR_PART", "TOPIC_AUTHORIZATION_FAILED", "_BAD_MSG"]
)
def test_after_a_gap_a_decline_or_damage_reading_begins_again_where_it_is_reported_to(log: Log, name: str):
    start_at_zero(log)
    send(log, 10)
    log.deliver(name)
    with pytest.raises(StreamsError, match=name):
        poll_through(log)
    for _ in range(3):
        assert len(log.source.poll(10, 0.1)) == 0, "nothing may follow a gap"

    log.source.start(dict.fromkeys(range(PARTITIONS), 0))
    assert sum(map(len, drain(log.source, 10))) == 10


def test_a_member_that_the_group_has_lost_gives_its_partitions_up_at_once(log: Log):
    start_at_zero(log)
    send(log, 10)
    before = log.source.assignment
    log.deliver("_MAX_POLL_EXCEEDED")

    assert len(log.source.poll(10, 0.2)) == 0, "nothing of an assignment that is void"
    assert log.source.assignment.generation > before.generation


@pytest.mark.parametrize(("name", "fatal"), [("_FATAL", True), ("FENCED_INSTANCE_ID", False), ("INVALID_MSG", True)])
def test_after_a_fatal_error_a_new_client_joins_in_the_same_process(log: Log, name: str, fatal: bool):
    start_at_zero(log)
    send(log, 10)
    drain(log.source, 10)
    log.source.commit({0: 1})
    log.deliver(name, fatal=fatal)
    with pytest.raises(StreamsError, match=name):
        poll_through(log)
    assert not log.source.assignment.partitions

    until_assigned(log.source)
    assert log.source.log_states([0])[0].committed == 1
    log.source.start(dict.fromkeys(range(PARTITIONS), 0))
    assert sum(map(len, drain(log.source, 10))) == 10


def test_who_leaves_gives_its_partitions_up_and_who_joins_again_gets_them(log: Log):
    start_at_zero(log)
    send(log, 10)
    log.source.leave()
    for _ in range(3):
        log.source.keep_alive(0.1)
    assert not log.source.assignment.member
    assert len(log.source.poll(10, 0.1)) == 0

    log.source.join()
    start_at_zero(log)
    assert sum(map(len, drain(log.source, 10))) == 10


def test_a_topic_is_seen_as_what_it_is(log: Log):
    until_assigned(log.source)
    state = log.source.log_states([0])[0]
    deadline = time.monotonic() + 15
    while log.source.topic_seen is None:
        assert time.monotonic() < deadline
        log.source.poll(1, 0.1)

    assert (log.source.topic_seen.topic_id, log.source.topic_seen.partitions) == (state.topic_id, PARTITIONS)


def test_what_a_client_of_no_use_would_still_have_said_is_not_heard(log: Log):
    start_at_zero(log)
    log.deliver("_FATAL", fatal=True)
    log.deliver("_BAD_MSG")
    with pytest.raises(StreamsError, match="_FATAL"):
        poll_through(log)

    until_assigned(log.source)
    log.source.start(dict.fromkeys(range(PARTITIONS), 0))
    poll_through(log)


class Revoking:
    """A client that gives its partitions back as it is closed, as librdkafka's does: on whatever thread closes it."""

    def __init__(self, settings: dict[str, Any]) -> None:  # noqa: ARG002 - the signature of a client
        self.closed = threading.Event()

    def poll(self, _: float) -> None:
        return None

    def list_topics(self, *_: Any, **__: Any) -> Any:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    def subscribe(self, _: list[str], **callbacks: Callable[[Any, list[TopicPartition]], None]) -> None:
        self.callbacks = callbacks

    def unassign(self) -> None:
        pass

    def close(self) -> None:
        self.callbacks["on_revoke"](self, [TopicPartition("topic", 0)])
        self.closed.set()


def test_a_client_that_is_of_no_use_any_more_gives_nothing_back_for_the_worker(monkeypatch):
    monkeypatch.setattr(kafka, "RENEW_AFTER_S", 1.0)
    made: list[Delivering] = []

    def make_client(settings: dict[str, Any]) -> Any:
        made.append(Delivering(Revoking(settings)))
        return made[-1]

    source, revoked = KafkaSource(KafkaConnection("127.0.0.1:1"), "group", "topic", make_client=make_client), []
    source.on_revoked(lambda: revoked.append(threading.current_thread()))
    fatal = KafkaError(KafkaError._FATAL, "as a test wants it", fatal=True)
    made[0].events.append(Message("topic", 0, 3, error=fatal))

    with pytest.raises(StreamsError, match="_FATAL"):
        source.poll(1, 0.0)

    assert made[0].closed.wait(10)
    assert len(made) == 2
    assert revoked == []
