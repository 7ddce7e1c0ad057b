"""What a worker does when Kafka's topic is not what it was, and when Redis refuses it, over twins in memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.codec.transactions import TOPIC
from services.runtime import catalogue as m
from services.streams.events import ErrorEvent
from services.worker.damaged_records import TRIES_MAX
from services.worker.loop import Worker
from services.worker.membership import TRY_AFTER_S_MAX
from services.worker.outages import PROBE_EVERY_S, REFUSED_MAX_S
from tests.generators import random_events, to_columns
from tests.worker.memory_system import EVENTS, MemorySystem, assert_same_end, reference


def busy() -> tuple[MemorySystem, Worker, Callable[[str], None]]:
    """A worker in the middle of its records, and what delivers an error event to it."""
    system = MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    worker, source = system.worker()
    worker.health.set("kernels_compiled", True)
    for _ in range(3):
        worker.turn()

    def deliver(name: str) -> None:
        source.deliver(ErrorEvent(name, partition=0, offset=1))

    return system, worker, deliver


def add_partition(system: MemorySystem) -> None:
    system.log.partitions += 1
    for partitions in system.log.topics.values():
        partitions.append([])


def truncate(system: MemorySystem) -> None:
    for partition in range(system.partitions):
        system.log.log_start[TOPIC, partition] = system.log.end(TOPIC, partition)


def recreate(system: MemorySystem) -> None:
    for partition in range(system.partitions):
        system.log.partition_log(TOPIC, partition).clear()
    system.log.committed.clear()
    system.log.topic_id = "another"


@pytest.mark.parametrize(
    ("spoil", "cause", "remedy"),
    [
        (truncate, "RETENTION", "proact grid resume --partition {} --accept-gap"),
        (recreate, "TOPIC_RECREATED", "proact grid rebuild --partition {}"),
        (lambda s: s.log.deleted.add(TOPIC), "TOPIC_MISSING", "proact topics apply"),
        (add_partition, "PARTITIONS_CHANGED", "proact grid rebuild --partition {}"),
    ],
    ids=["truncated", "recreated", "deleted", "partitions-added"],
)
def test_what_befalls_the_topic_under_a_running_worker_halts_its_partitions_with_their_remedy(spoil, cause, remedy):
    system, worker, _ = busy()
    system.drain(worker)
    system.produce(to_columns(random_events(2, EVENTS, cards=6)))
    spoil(system)
    turns(system, [worker], 2.0)

    halted = worker.health.detail["halted"]
    assert halted.keys() == {0, 1}
    assert [cause in reason and remedy.format(p) in reason for p, reason in halted.items()] == [True, True]
    assert not worker.health.ready
    assert worker.metrics.value(m.HALTED, cause) == 2


def test_a_topic_that_is_deleted_and_made_again_is_another_one():
    system, worker, _ = busy()
    system.log.deleted.add(TOPIC)
    for _ in range(3):
        worker.turn()
    recreate(system)
    system.log.deleted.clear()
    for _ in range(3):
        worker.turn()

    halted = worker.health.detail["halted"]
    assert ["TOPIC_RECREATED" in reason for reason in halted.values()] == [True, True]


def test_a_spare_is_not_ready_either_while_there_is_no_topic():
    system = MemorySystem()
    worker, _ = system.worker()
    system.log.rebalance(dict.fromkeys(system.log.members, ()))
    worker.health.set("kernels_compiled", True)
    worker.turn()
    worker.turn()
    assert worker.health.conditions["partitions_assigned"]
    for there in (False, True):
        system.log.deleted = set() if there else {TOPIC}
        worker.turn()
        worker.turn()

        assert worker.health.conditions["partitions_assigned"] == there
        assert ("topic" in worker.health.detail) == (not there)


@pytest.mark.parametrize(
    "name",
    [
        "_TRANSPORT", "_ALL_BROKERS_DOWN", "_AUTO_OFFSET_RESET", "UNKNOWN_TOPIC_OR_PART", "TOPIC_AUTHORIZATION_FAILED",
        "GROUP_AUTHORIZATION_FAILED", "_MAX_POLL_EXCEEDED", "_FATAL", "_BAD_MSG",
    ],
)  # fmt: skip
def test_an_error_event_alone_costs_nothing_but_time(name: str):
    system, worker, deliver = busy()
    deliver(name)
    system.drain(worker)

    assert_same_end(reference(), system)
    assert not worker.partitions.halted


def test_a_record_that_stays_unreadable_halts_its_partition_alone():
    system, worker, deliver = busy()
    for _ in range(TRIES_MAX):
        deliver("_BAD_MSG")
        worker.turn()
        worker.turn()
    for _ in range(20):
        worker.turn()

    assert "offset 1 cannot be read" in worker.health.detail["halted"][0]
    assert system.log.committed[TOPIC, 1] == system.log.end(TOPIC, 1)


def test_a_record_that_is_read_in_between_was_not_damaged_for_good():
    system, worker, deliver = busy()
    for i in range(TRIES_MAX + 1):
        deliver("_BAD_MSG")
        system.drain(worker)
        system.produce(to_columns(random_events(2 + i, 10, cards=6)))
        system.drain(worker)

    assert not worker.partitions.halted


def turns(system: MemorySystem, workers: list[Worker], seconds: float) -> None:
    until_s = system.clock.monotonic_s() + seconds
    while system.clock.monotonic_s() < until_s:
        for worker in workers:
            worker.turn()
        system.clock.sleep(0.2)


def two_workers(**types) -> tuple[MemorySystem, list[Worker], list[str]]:
    system = MemorySystem()
    made = [system.worker(name=f"worker-of-{i}", **types) for i in range(2)]
    members = [source.member for _, source in made]
    system.log.rebalance({members[0]: (0,), members[1]: (1,)})
    workers = [worker for worker, _ in made]
    turns(system, workers, 1.0)
    return system, workers, members


def test_a_worker_that_redis_refuses_alone_leaves_its_partitions_to_others_and_comes_back():
    system, workers, members = two_workers()
    system.grid.refused.add(members[0])
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    turns(system, workers, REFUSED_MAX_S - 5.0)
    assert system.log.committed.get((TOPIC, 0), 0) == 0, "it may be served again in a moment"

    turns(system, workers, 15.0)
    assert system.log.members == {members[1]: (0, 1)}
    assert "WRONGPASS" in workers[0].health.detail["left"]
    assert not workers[0].health.ready
    assert workers[0].health.live
    turns(system, workers, 5.0)
    assert_same_end(reference(), system)

    system.grid.refused.clear()
    turns(system, workers, 2 * TRY_AFTER_S_MAX)
    assert {len(partitions) for partitions in system.log.members.values()} == {1}
    assert "left" not in workers[0].health.detail


def test_where_redis_refuses_everybody_each_leaves_once_and_joins_once():
    system, workers, members = two_workers()
    system.grid.refused |= set(members)
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    before = system.log.generation
    turns(system, workers, 10 * REFUSED_MAX_S)
    assert system.log.members == {}
    assert system.log.generation - before == 2

    system.grid.refused.clear()
    turns(system, workers, 2 * TRY_AFTER_S_MAX + 5.0)
    assert sorted(p for given in system.log.members.values() for p in given) == [0, 1]
    assert system.log.generation - before == 4
    turns(system, workers, 5.0)
    assert_same_end(reference(), system)


def test_an_idle_worker_that_redis_refuses_leaves_too():
    system, workers, members = two_workers()
    system.grid.refused.add(members[0])
    turns(system, workers, REFUSED_MAX_S + 2 * PROBE_EVERY_S)

    assert system.log.members == {members[1]: (0, 1)}


def test_a_redis_that_is_away_is_waited_for_within_the_group():
    system = MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    worker, source = system.worker()
    for _ in range(3):
        worker.turn()
    generation, until_s = system.log.generation, system.clock.monotonic_s() + 3 * REFUSED_MAX_S
    system.grid.available = False
    keep_alive = source.keep_alive

    def wait(timeout_s: float) -> None:
        system.grid.available = system.clock.monotonic_s() > until_s
        keep_alive(timeout_s)

    source.keep_alive = wait  # type: ignore[method-assign]
    system.drain(worker)

    assert system.log.generation == generation
    assert worker.metrics.value(m.OUTAGES, "redis") > 2 * REFUSED_MAX_S
    assert_same_end(reference(), system)


def test_a_worker_that_decides_without_profiles_stays_when_it_is_refused():
    system, workers, members = two_workers(without_profiles="fallback")
    system.grid.refused |= set(members)
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    before = system.log.generation
    turns(system, workers, 2 * REFUSED_MAX_S)

    assert system.log.generation == before
    assert len(system.decisions()) == EVENTS


def test_a_worker_that_redis_has_never_served_stays_out_of_the_group():
    system = MemorySystem()
    worker, source = system.worker()
    system.grid.available = False
    worker.open()
    assert source.member not in system.log.members
    turns(system, [worker], 10.0)
    assert source.member not in system.log.members

    system.grid.available = True
    turns(system, [worker], 2 * TRY_AFTER_S_MAX)
    assert system.log.members == {source.member: (0, 1)}
