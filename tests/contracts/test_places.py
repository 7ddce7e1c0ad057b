"""One suite over single records that are read by their place, and over what records say of their topic, in memory and from Kafka."""

from __future__ import annotations

import numpy as np
import pytest

from services.streams import AtPlaces, publish_now
from services.streams.memory_commits import partition_of
from services.streams.ranges import read_range
from services.streams.stretches import CALL_RECORDS, GAP_RECORDS, STRETCH_RECORDS, stretches_of
from tests.contracts.logs import PARTITIONS, Log, drain, kafka_log, outputs, send, start_at_zero


def read(log: Log, places: list[tuple[int, int]], topic: str | None = None) -> AtPlaces:
    reader = log.places()
    try:
        return reader.read(topic or log.topic, *np.array(places, np.int64).reshape(-1, 2).T)
    finally:
        reader.close()


def test_a_record_is_found_where_it_lies_and_nothing_where_none_can_be(log: Log):
    start_at_zero(log)
    send(log, 60)
    lies = {}
    for batch in drain(log.source, 60):
        rows = zip(batch.partition.tolist(), batch.offset.tolist(), batch.keys, batch.values, strict=True)
        lies |= {(p, o): (key, value) for p, o, key, value in rows}
    ends = {p: max(o for q, o in lies if q == p) + 1 for p in range(PARTITIONS)}
    never = [(-1, 0), (PARTITIONS, 0), (2**31, 5), (0, -1), (1, -(2**62))]
    ahead = [(0, ends[0]), (1, ends[1] + 1_000), (1, 2**62)]
    places = [*sorted(lies)[::-1], *never, *ahead, sorted(lies)[3]]

    found = read(log, places)

    for place, key, value, there in zip(places, found.keys, found.values, found.there.tolist(), strict=True):
        assert (key, value) == lies.get(place, (None, None))
        assert there == (place in lies)
    assert [p for p, may in zip(places, found.may_come.tolist(), strict=True) if may] == ahead
    assert not found.unread.any()


def test_what_an_atomic_commit_has_not_shown_may_come_and_its_marks_are_no_records(log: Log):
    start_at_zero(log)
    publisher, topic = log.publisher("name"), f"{log.topic}-out"
    publisher.open()
    publish_now(publisher, outputs(log, b"a", b"b"), {0: 1})
    [partition] = [p for p in range(PARTITIONS) if read(log, [(p, 0)], topic).there[0]]
    publish_now(publisher, outputs(log, b"c"), {0: 2})

    found = read(log, [(partition, at) for at in range(8)], topic)

    assert [value for value in found.values if value is not None] == [b"a", b"b", b"c"]
    assert not (found.there & found.may_come).any()
    assert found.may_come[-1]
    publisher.close()


def test_no_places_are_nothing(log: Log):
    assert len(read(log, [])) == 0


@pytest.mark.parametrize("apart", [1, GAP_RECORDS - 1, GAP_RECORDS + 1])
def test_very_many_places_are_read_a_part_at_a_time_however_far_from_each_other(log: Log, apart: int):
    count = 5 * CALL_RECORDS // 2
    lies: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
    owner = [partition_of(b"key-%d" % key, PARTITIONS) for key in range(5)]
    for i in range(count):
        lies[owner[i % 5]].append(b"%d" % i)
    send(log, count)
    partition = max(range(PARTITIONS), key=lambda p: len(lies[p]))
    places = np.arange(0, len(lies[partition]), apart)
    reader, rows, calls = log.places(), np.arange(len(places)), 0
    whole = AtPlaces.nothing(len(places))

    while len(rows):
        answered = reader.read(log.topic, np.full(len(rows), partition), places[rows])
        assert apart * np.count_nonzero(~answered.unread) <= CALL_RECORDS + 50 * apart
        whole.fill(rows, answered)
        rows, calls = np.flatnonzero(whole.unread), calls + 1

    assert calls >= 2
    assert whole.values == lies[partition][::apart]
    assert whole.there.all()
    reader.close()


def test_what_is_read_in_one_go_is_bounded():
    partition, offset = np.zeros(4_000, np.int64), np.arange(4_000) * GAP_RECORDS // 2

    stretches, unread = stretches_of(partition, offset, np.arange(4_000))

    spans = [offset[rows[-1]] - offset[rows[0]] + 1 for rows in stretches]
    assert max(spans) <= STRETCH_RECORDS
    assert 0 < sum(spans) <= CALL_RECORDS
    assert [row for rows in stretches for row in rows] + unread == list(range(4_000))


def test_records_say_how_many_partitions_their_topic_has(log: Log):
    start_at_zero(log)
    log.source.log_states([0])
    send(log, 20)

    assert {batch.partitions for batch in drain(log.source, 20)} == {PARTITIONS}


def test_so_do_those_that_are_read_to_fold_them_again(stack, topic):
    log = kafka_log(topic, stack.kafka_connection)
    send(log, 20)

    found = [r for p in range(PARTITIONS) for r in read_range(stack.kafka_connection, topic, p, (0, 4))]

    assert {records.partitions for records in found} == {PARTITIONS}
    log.source.close()


def test_what_was_read_and_is_not_worked_off_is_behind(log: Log):
    start_at_zero(log)
    send(log, 20)
    drain(log.source, 20)

    assert sum(log.source.lag({}).values()) == 0
    assert sum(log.source.lag({0: 0, 1: 0}).values()) == 20
    assert sum(log.source.lag({0: 10**6, 1: 10**6}).values()) == 0
