"""One suite over single records that are read by their place, and over what records say of their topic, in memory and from Kafka."""

from __future__ import annotations

import numpy as np

from services.streams import AtPlaces, publish_now
from services.streams.places import GAP_RECORDS, STRETCHES_MAX, KafkaPlaces
from services.streams.ranges import read_range
from services.streams.sink import KafkaSink
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


def test_very_many_places_far_from_each_other_are_read_a_part_at_a_time(stack, topic):
    log = kafka_log(topic, stack.kafka_connection)
    count = (STRETCHES_MAX + 5) * (GAP_RECORDS + 1)
    sink = KafkaSink(stack.kafka_connection)
    sink.send(topic, [b"one"] * count, [b"%d" % i for i in range(count)])
    assert sink.flush(60)
    sink.close()
    [partition] = [p for p in range(PARTITIONS) if read(log, [(p, 0)]).there[0]]
    places = np.arange(0, count, GAP_RECORDS + 1)
    reader, rows, calls = KafkaPlaces(stack.kafka_connection), np.arange(len(places)), 0
    whole = AtPlaces.nothing(len(places))

    while len(rows):
        whole.fill(rows, reader.read(topic, np.full(len(rows), partition), places[rows]))
        rows, calls = np.flatnonzero(whole.unread), calls + 1

    assert calls == 2
    assert whole.values == [b"%d" % at for at in places.tolist()]
    assert whole.there.all()
    reader.close()
    log.source.close()


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
