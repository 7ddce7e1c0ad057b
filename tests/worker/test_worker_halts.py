"""What a worker does when the grid cannot be proved or the input cannot be trusted, over twins in memory."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from services.codec.transactions import TOPIC
from services.core.profiles import DAY_MS
from services.grid.memory import MemoryGrid
from services.registry import LOG_OF
from services.runtime import catalogue as m
from services.worker.breaker import REFUSED_MIN
from services.worker.halting import GAP_ACCEPTED, REBUILDING, REBUILDING_SHORT, Cause, Halt, damaged
from services.worker.outages import PROBE_EVERY_S
from tests.generators import random_events, to_columns
from tests.worker.memory_system import (
    EVENTS,
    KAFKA_TIMESTAMP_MS,
    MemorySystem,
    assert_same_end,
    reference,
)


def test_a_grid_that_lost_everything_is_rebuilt_from_the_log_without_deciding_again():
    expected, system = reference(), MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    worker, _ = system.worker()
    system.drain(worker)
    system.grid.metas.clear()
    system.grid.profiles.clear()

    successor, _ = system.worker()
    system.drain(successor)

    assert_same_end(expected, system)
    assert all(len(d) == 1 for d in system.decisions().values())


def test_a_grid_that_lost_everything_under_a_running_worker_is_noticed_at_the_next_write():
    expected, system = reference(), MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    worker, _ = system.worker()
    for _ in range(3):
        worker.turn()
    system.grid.metas.clear()
    system.grid.profiles.clear()
    system.drain(worker)

    assert_same_end(expected, system)


def forget_and_trim(system: MemorySystem) -> None:
    system.grid.metas.clear()
    system.grid.profiles.clear()
    system.log.log_start[TOPIC, 0] = 3


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda s: s.log.committed.clear(), "OFFSETS_MISSING"),
        (lambda s: s.log.committed.update({(TOPIC, 0): 1}), "LOG_BEHIND"),
        (lambda s: s.log.partition_log(TOPIC, 0).clear(), "LOG_BEHIND"),
        (lambda s: setattr(s.log, "topic_id", "another"), "TOPIC_RECREATED"),
        (lambda s: setattr(s.log, "partitions", 3), "PARTITIONS_CHANGED"),
        (lambda s: s.log.log_start.update({(TOPIC, 0): s.log.end(TOPIC, 0) + 1}), "RETENTION"),
        (forget_and_trim, "HISTORY_MISSING"),
    ],
    ids=[
        "offsets-expired",
        "log-lost-its-end",
        "log-is-empty",
        "topic-recreated",
        "partitions-added",
        "retention-overtook",
        "grid-lost-and-log-too-short",
    ],
)
def test_a_partition_whose_state_cannot_be_proved_halts_and_says_so(spoil, reason):
    system = reference()
    spoil(system)

    worker, _ = system.worker()
    worker.turn()

    assert reason in " ".join(map(str, worker.partitions.halted.values()))
    assert not worker.health.ready
    assert 0 not in worker.partitions.owned


def test_a_log_that_reaches_back_past_the_horizon_is_enough_for_a_lost_grid():
    """The trimmed records are so old that no window of what is still to be decided holds them."""
    events = random_events(1, EVENTS, cards=6, late_share=0)
    system = MemorySystem()
    system.produce(to_columns(events))
    for partition in range(2):
        log = system.log.partition_log(TOPIC, partition)
        log[:5] = [replace(record, timestamp_ms=KAFKA_TIMESTAMP_MS - 40 * DAY_MS) for record in log[:5]]
        system.log.log_start[TOPIC, partition] = 3
        system.log.committed[TOPIC, partition] = 5
    worker, _ = system.worker()
    system.drain(worker)

    assert not worker.partitions.halted


def test_a_halted_partition_is_left_alone_until_it_is_resumed_and_the_others_go_on():
    system = MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    people = MemoryGrid(system.grid, "people")
    people.halt(TOPIC, 0, "somebody looks at it")
    worker, _ = system.worker()
    for _ in range(30):
        worker.turn()
    assert {p for p, _ in system.decisions()} == {1}
    assert "somebody looks at it" in str(worker.partitions.halted[0])
    assert worker.metrics.value(m.HALTED, "MARKED") == 1

    people.resume(TOPIC, 0, 0)
    system.clock.sleep(PROBE_EVERY_S)
    system.drain(worker)

    assert_same_end(reference(), system)


def test_whoever_decides_on_profiles_that_began_with_a_short_log_says_so():
    system = reference()
    people = MemoryGrid(system.grid, "people")
    forget_and_trim(system)
    before = {p: system.log.end(TOPIC, p) for p in range(2)}
    worker, _ = system.worker()
    worker.turn()
    assert "HISTORY_MISSING" in str(worker.partitions.halted[0])

    people.resume(TOPIC, 0, system.log.end(TOPIC, 0))
    system.clock.sleep(PROBE_EVERY_S)
    system.drain(worker)
    system.produce(to_columns(random_events(2, EVENTS, cards=6, late_share=0)))
    system.drain(worker)
    successor, _ = system.worker()
    system.produce(to_columns(random_events(3, EVENTS, cards=6, late_share=0)))
    system.drain(successor)

    said = {
        position: "PROFILE_TRUNCATED" in decisions[0]["degraded"] for position, decisions in system.decisions().items()
    }
    assert all(said[p, offset] == (p == 0) for p, offset in said if offset >= before[p])
    assert any(p == 0 and offset > before[0] + 20 for p, offset in said), "there are some"
    [status] = people.status(TOPIC, [0])
    assert status.begins_ms == KAFKA_TIMESTAMP_MS // 60_000 * 60_000 + 60_000, (
        "of the first record that is left, to the minute"
    )

    system.grid.metas.clear()
    system.grid.profiles.clear()
    system.log.log_start.clear()
    third, _ = system.worker()
    system.drain(third)
    assert people.status(TOPIC, [0])[0].begins_ms is None, "of a log that is whole nothing is missing"


def test_a_burst_of_bad_records_opens_the_breaker_of_its_partition_before_it_becomes_dead_letters():
    system = MemorySystem(batch_records_max=2 * REFUSED_MIN)
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    for _ in range(2 * REFUSED_MIN):
        system.log.append(TOPIC, b"card-1", b"rubbish", KAFKA_TIMESTAMP_MS, 0)
    worker, _ = system.worker()
    for _ in range(20):
        worker.turn()

    assert "breaker" in str(worker.partitions.halted[0])
    assert 1 not in worker.partitions.halted
    assert len(system.records("dead-letters")) == 0
    assert {p for p, _ in system.decisions()} == {1}

    MemoryGrid(system.grid, "people").resume(TOPIC, 0, system.log.end(TOPIC, 0))
    system.clock.sleep(PROBE_EVERY_S)
    system.drain(worker)
    assert len(system.records("dead-letters")) == 2 * REFUSED_MIN


def test_a_damaged_profile_halts_its_partition_alone():
    system = MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    worker, _ = system.worker()
    system.drain(worker)
    profiles = system.grid.of(TOPIC, 0)
    profiles.update(dict.fromkeys(profiles, b"rubbish"))
    system.produce(to_columns(random_events(2, EVENTS, cards=6)))
    successor, _ = system.worker()
    for _ in range(40):
        successor.turn()

    assert "damaged profiles" in str(successor.partitions.halted[0])
    assert system.log.committed[TOPIC, 1] == system.log.end(TOPIC, 1)


def test_profiles_of_another_layout_are_folded_again_and_never_mixed():
    system = reference()
    for meta in system.grid.metas.values():
        assert meta.identity is not None
        meta.identity = replace(meta.identity, layout=meta.identity.layout - 1)
    for profiles in system.grid.profiles.values():
        profiles.update(dict.fromkeys(profiles, b"of another layout"))
    successor, _ = system.worker()
    system.drain(successor)

    assert_same_end(reference(), system)


@pytest.mark.parametrize("cause", Cause)
def test_what_helps_is_one_command_for_the_service_and_the_partition_that_it_is_about(cause):
    assert cause.remedy("card-transactions") == cause.value
    for service, topic in LOG_OF.items():
        named = "" if service == "scorer" else f" --service {service}"
        [command] = re.findall(r"proact grid \w+(?: --[a-z-]+(?: [\w-]+)?)*", Halt(cause, "why").remedy(topic, 3))
        assert re.fullmatch(
            rf"proact grid (rebuild|resume){named} --partition 3( --accept-(applied|gap|loss))?", command
        )


@pytest.mark.parametrize("reason", [REBUILDING, REBUILDING_SHORT, GAP_ACCEPTED, damaged("accounts", ValueError("x"))])
def test_what_helps_is_what_the_mark_itself_says(reason):
    """The general advice for a mark, to resume, would lead back to a damaged profile."""
    [command] = re.findall(r"proact grid (\w+)", reason)
    [helps] = re.findall(
        r"proact grid (\w+) --service accounts --partition 1", Halt(Cause.MARKED, reason).remedy("accounts", 1)
    )
    assert helps == command
