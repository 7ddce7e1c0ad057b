"""One suite over the log in memory and the log in Kafka."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from services.core.columns import Text
from services.core.kernels import partitions_of
from services.streams import Output, Publisher, Records, StreamsError, publish_now
from services.streams.atomic import FencedError
from tests.contracts.logs import (
    PARTITIONS,
    Log,
    drain,
    outputs,
    send,
    start_at_zero,
    until_assigned,
)


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


def test_a_key_is_in_the_partition_that_its_hash_says(log: Log):
    start_at_zero(log)
    send(log, 40)

    home: dict[bytes | None, set[int]] = {}
    for batch in drain(log.source, 40):
        for key, partition in zip(batch.keys, batch.partition.tolist(), strict=True):
            home.setdefault(key, set()).add(partition)

    assert home == {key: {int(partitions_of(Text.of([key or b""]), PARTITIONS)[0])} for key in home}


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


def published(publisher: Publisher, outputs: list[Output], offsets: dict[int, int]) -> None:
    publish_now(publisher, outputs, offsets)
    publisher.confirm(offsets)


def test_an_atomic_commit_shows_outputs_and_offsets_together(log: Log):
    start_at_zero(log)
    publisher = log.publisher("name")
    publisher.open()
    published(publisher, outputs(log, b"a", b"b"), {0: 4, 1: 2})
    published(publisher, outputs(log, b"c"), {0: 5})

    assert log.answers() == [b"a", b"b", b"c"]
    assert {p: s.committed for p, s in log.source.log_states([0, 1]).items()} == {0: 5, 1: 2}
    publisher.close()


def test_offsets_that_nothing_came_of_wait_for_the_next_outputs_or_to_be_confirmed(log: Log):
    start_at_zero(log)
    publisher = log.publisher("name")
    publisher.open()

    def committed() -> list[int | None]:
        return [log.source.log_states([p])[p].committed for p in (0, 1)]

    publish_now(publisher, [], {0: 4})
    assert (committed(), publisher.confirmed) == ([None, None], False)
    publish_now(publisher, outputs(log, b"a"), {1: 2})
    assert (committed(), publisher.confirmed) == ([4, 2], True)
    publish_now(publisher, [], {0: 6})
    publisher.confirm({0: 6, 1: 2})
    assert (committed(), publisher.confirmed) == ([6, 2], True)
    publish_now(publisher, [], {0: 9})
    publisher.open()
    publisher.confirm({0: 6, 1: 2})
    assert committed() == [6, 2], "what waited when the partitions were taken over again is forgotten"
    publisher.close()


def test_at_least_once_publishes_outputs_and_then_offsets(log: Log):
    start_at_zero(log)
    publisher = log.publisher()
    publisher.open()
    published(publisher, outputs(log, b"a"), {0: 4})

    assert log.answers() == [b"a"]
    assert log.source.log_states([0])[0].committed == 4
    publisher.close()


def half_done(log: Log, name: str, offsets: dict[int, int], turn: int = 0) -> Any:
    """Leave an atomic commit of one of the two producers open, as a process does that dies in it."""
    publisher = log.publisher(name)
    publisher.open()
    producer = publisher.producers[turn]  # type: ignore[attr-defined]
    producer.begin()
    producer.queue(outputs(log, b"half")[0])
    producer.add_offsets(offsets, log.source.group_metadata())
    producer.flush()
    return producer


@pytest.mark.parametrize("turn", [0, 1])
def test_nothing_of_an_atomic_commit_that_was_not_ended_is_ever_seen(log: Log, turn: int):
    start_at_zero(log)
    dead = half_done(log, "name", {0: 3}, turn)
    successor = log.publisher("name")
    successor.open()

    assert log.source.log_states([0])[0].committed is None, "the successor of the same name has aborted it"
    assert log.answers() == []
    with pytest.raises(StreamsError):
        dead.commit()
    published(successor, outputs(log, b"whole"), {0: 3})
    assert log.answers() == [b"whole"]
    successor.close()


def test_who_was_fenced_once_hears_of_it_once(log: Log):
    """A worker that hears of it three times within a while is taken for one that has a double."""
    start_at_zero(log)
    fenced, other = log.publisher("name"), log.publisher("name")
    fenced.open()
    other.open()
    with pytest.raises(FencedError):
        published(fenced, outputs(log, b"refused"), {0: 3})
    fenced.open()
    for offset, value in ((3, b"a"), (4, b"b")):
        published(fenced, outputs(log, value), {0: offset})

    assert log.answers() == [b"a", b"b"]
    fenced.close()
    other.close()


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
    published(publisher, [], {1: 7})

    assert log.source.log_states([1])[1].committed == 7
    publisher.close()


def test_a_commit_of_a_member_that_left_is_refused(log: Log):
    start_at_zero(log)
    publisher = log.publisher("name")
    publisher.open()
    if log.memory is not None:
        log.memory.rebalance({"another": (0, 1)})
    else:
        log.client.unsubscribe()
        log.source.poll(1, 0.5)

    with pytest.raises(StreamsError):
        published(publisher, outputs(log, b"late"), {0: 4})
    assert log.answers() == []


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

    assert sum(log.source.lag({}).values()) == 0


def test_next_offsets_are_behind_the_last_record_of_each_partition():
    records = Records("t", np.array([0, 1, 0]), np.array([4, 9, 5]), np.zeros(3, np.int64), [None] * 3, [b""] * 3)

    assert records.next_offsets() == {0: 6, 1: 10}
