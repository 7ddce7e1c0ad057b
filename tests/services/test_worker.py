"""The worker's order, and what crashes, outages and take-overs do to it, over twins in memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.codec.transactions import TOPIC
from services.core.profiles import DAY_MS
from services.grid.memory import MemoryGrid
from services.runtime import catalogue as m
from services.runtime.breaker import REFUSED_MIN
from services.runtime.clock import ManualClock
from services.runtime.outages import PROBE_EVERY_S, STOP_WITHIN_S, AbandonedError
from services.streams import StreamsError
from tests.generators import random_events, to_columns
from tests.services.system import KAFKA_TIMESTAMP_MS, CrashError, Crashing, MemorySystem, expected_vectors

EVENTS = 90


def reference(seed: int = 1) -> MemorySystem:
    """A run without any fault."""
    system = MemorySystem()
    system.produce(to_columns(random_events(seed, EVENTS, cards=6)))
    worker, _ = system.worker()
    system.drain(worker)
    return system


def assert_same_end(expected: MemorySystem, actual: MemorySystem) -> None:
    """Every transaction has its one decision, that of a run without faults; so are the profiles."""
    wanted, found = expected.decisions(), actual.decisions()
    assert found.keys() == wanted.keys()
    for position, decisions in found.items():
        assert decisions == wanted[position], position
    assert actual.grid.profiles == expected.grid.profiles
    assert {k: v.applied for k, v in actual.grid.metas.items()} == {
        k: v.applied for k, v in expected.grid.metas.items()
    }


def test_without_faults_every_transaction_has_one_decision_with_the_offline_vector():
    columns = to_columns(random_events(1, EVENTS, cards=6))

    system = reference(1)

    assert all(len(d) == 1 for d in system.decisions().values())
    assert len(system.decisions()) == EVENTS
    expected = expected_vectors(columns, system.partitions)
    for record in system.records("card-decisions"):
        position = record["source_partition"], record["source_offset"]
        np.testing.assert_array_equal(record["features"], expected[position])


def test_a_repeated_transaction_gets_the_same_decision_id_is_marked_and_is_folded_once():
    columns = to_columns(random_events(4, EVENTS, cards=6, late_share=0, dense=True))
    system = MemorySystem()
    system.produce(columns)
    worker, _ = system.worker()
    system.drain(worker)

    by_id: dict[bytes, list[dict]] = {}
    for record in system.records("card-decisions"):
        by_id.setdefault(record["transaction_id"], []).append(record)
    again = [records for records in by_id.values() if len(records) > 1]

    assert again
    assert len(by_id) == len({i.tobytes() for i in columns.transaction_id})
    for records in again:
        assert len({r["decision_id"] for r in records}) == 1
        assert [r["repeat"] for r in sorted(records, key=lambda r: r["source_offset"])] == [False] + [True] * (
            len(records) - 1
        )


def effects(guarantee: str = "exactly_once") -> int:
    counting, system = Crashing(), MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    worker, _ = system.worker(counting, guarantee=guarantee)
    system.drain(worker)
    return counting.calls


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_crash_around_every_single_effect_loses_nothing_and_repeats_nothing(before: bool):
    expected, calls = reference(), effects()
    assert calls > 20

    for at in range(1, calls + 1):
        system = MemorySystem()
        system.produce(to_columns(random_events(1, EVENTS, cards=6)))
        worker, _ = system.worker(Crashing(at, before=before))
        with pytest.raises(CrashError):
            system.drain(worker)
        successor, _ = system.worker()
        system.drain(successor)
        assert_same_end(expected, system)


def test_crash_after_crash_at_random_effects_ends_the_same():
    rng, expected = np.random.default_rng(9), reference()

    for _ in range(15):
        system = MemorySystem()
        system.produce(to_columns(random_events(1, EVENTS, cards=6)))
        for _ in range(4):
            worker, _ = system.worker(Crashing(int(rng.integers(1, 25)), before=bool(rng.integers(0, 2))))
            try:
                system.drain(worker)
            except CrashError:
                continue
        successor, _ = system.worker()
        system.drain(successor)
        assert_same_end(expected, system)


def test_with_at_least_once_a_crash_repeats_decisions_equally():
    expected, repeated = reference(), 0
    for at in range(1, effects("at_least_once") + 1):
        system = MemorySystem()
        system.produce(to_columns(random_events(1, EVENTS, cards=6)))
        worker, _ = system.worker(Crashing(at), guarantee="at_least_once")
        with pytest.raises(CrashError):
            system.drain(worker)
        successor, _ = system.worker(guarantee="at_least_once")
        system.drain(successor)
        found, wanted = system.decisions(), expected.decisions()
        assert found.keys() == wanted.keys()
        assert all(d == wanted[position][0] for position, decisions in found.items() for d in decisions)
        repeated += any(len(decisions) > 1 for decisions in found.values())
    assert repeated


def test_what_is_folded_after_a_take_over_is_not_decided_again():
    class BeforeApply:
        def __call__(self, name: str, request):
            if name == "apply":
                raise CrashError
            return request()

    system = MemorySystem(partitions=1)
    system.produce(to_columns(random_events(2, 40, cards=3)))
    worker, _ = system.worker(BeforeApply())
    with pytest.raises(CrashError):
        system.drain(worker)
    committed = system.log.committed[TOPIC, 0]
    assert committed > 0
    assert system.grid.metas[TOPIC, 0].applied is None

    successor, _ = system.worker()
    system.drain(successor)

    assert successor._metrics.value(m.RECOVERED) == committed
    assert all(len(d) == 1 for d in system.decisions().values())


def test_a_grid_that_is_away_is_waited_out_without_losing_the_place_or_a_record():
    expected, system = reference(), MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    worker, source = system.worker()
    worker.turn()
    worker.turn()
    system.grid.available = False
    kept = []

    def keep_alive(timeout_s: float) -> None:
        kept.append(timeout_s)
        assert not worker._health.ready
        system.clock.sleep(1.0)
        if len(kept) == 5:
            system.grid.available = True

    source.keep_alive = keep_alive  # type: ignore[method-assign]
    system.drain(worker)

    assert len(kept) == 5
    assert worker._metrics.value(m.OUTAGES, "redis") == pytest.approx(5.0)
    assert worker._health.conditions["grid_reachable"]
    assert_same_end(expected, system)


@pytest.mark.parametrize("store", ["log", "grid"])
def test_an_idle_worker_notices_that_a_store_is_away_and_that_it_is_back(store: str):
    system = MemorySystem()
    worker, _ = system.worker()
    for condition in ("kernels_compiled", "model_verified"):
        worker._health.set(condition, True)
    worker.turn()
    worker.turn()
    assert worker._health.ready
    for available in (False, True):
        getattr(system, store).available = available
        system.clock.sleep(PROBE_EVERY_S)
        worker.turn()

        assert worker._health.ready == available
        assert worker._health.live


def test_a_log_that_is_away_is_waited_out():
    expected, system, calls = reference(), MemorySystem(), []
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))

    def away_for_a_while(name: str, request):
        calls.append(name)
        system.log.available = not 5 < len(calls) < 12
        return request()

    worker, _ = system.worker(away_for_a_while)
    system.drain(worker)

    assert worker._metrics.value(m.OUTAGES, "kafka") > 0
    assert_same_end(expected, system)


def test_partitions_that_move_during_an_outage_end_the_batch_there_and_nothing_is_lost():
    expected, system = reference(), MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    first, source = system.worker()
    first.turn()
    system.grid.available = False
    keep_alive, second = source.keep_alive, None

    def handed_over(timeout_s: float) -> None:
        nonlocal second
        system.grid.available = True
        second, _ = system.worker()
        keep_alive(timeout_s)

    source.keep_alive = handed_over  # type: ignore[method-assign]
    first.turn()
    assert second is not None
    system.drain(second)
    first.turn()

    assert first._metrics.value(m.ABANDONED, "abandoned") == 1
    assert_same_end(expected, system)


def test_a_worker_that_lost_its_partition_without_noticing_writes_nothing():
    expected, system = reference(), MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    zombie, _ = system.worker()
    for _ in range(3):
        zombie.turn()
    records = zombie._source.poll(16, 0.0)
    assert len(records)
    owner, _ = system.worker()
    owner.turn()
    claimed = {k: meta.owner for k, meta in system.grid.metas.items()}
    with pytest.raises((AbandonedError, StreamsError)):
        zombie._process(records)

    assert {k: meta.owner for k, meta in system.grid.metas.items()} == claimed
    system.drain(owner)
    assert_same_end(expected, system)


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

    assert reason in " ".join(map(str, worker._ownership.halted.values()))
    assert not worker._health.ready
    assert 0 not in worker._ownership.owned


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

    assert not worker._ownership.halted


def test_a_halted_partition_is_left_alone_until_it_is_resumed_and_the_others_go_on():
    system = MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    people = MemoryGrid(system.grid, "people")
    people.halt(TOPIC, 0, "somebody looks at it")
    worker, _ = system.worker()
    for _ in range(30):
        worker.turn()
    assert {p for p, _ in system.decisions()} == {1}
    assert "somebody looks at it" in str(worker._ownership.halted[0])
    assert worker._metrics.value(m.HALTED, "MARKED") == 1

    people.resume(TOPIC, 0, 0)
    system.clock.sleep(PROBE_EVERY_S)
    system.drain(worker)

    assert_same_end(reference(), system)


def test_a_burst_of_bad_records_opens_the_breaker_of_its_partition_before_it_becomes_dead_letters():
    system = MemorySystem(batch_records_max=2 * REFUSED_MIN)
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    for _ in range(2 * REFUSED_MIN):
        system.log.append(TOPIC, b"card-1", b"rubbish", KAFKA_TIMESTAMP_MS, 0)
    worker, _ = system.worker()
    for _ in range(20):
        worker.turn()

    assert "breaker" in str(worker._ownership.halted[0])
    assert 1 not in worker._ownership.halted
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

    assert "damaged profiles" in str(successor._ownership.halted[0])
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


def test_told_to_stop_the_worker_gives_an_unfinished_batch_up_in_time():
    system = MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    worker, source = system.worker()
    worker.turn()
    system.grid.available = False
    clock = worker._clock
    assert isinstance(clock, ManualClock)
    source.keep_alive = lambda _: clock.sleep(0.5)  # type: ignore[method-assign]
    begin = clock.monotonic_s()
    worker.stop()
    worker.turn()

    assert clock.monotonic_s() - begin <= STOP_WITHIN_S + 1.0
    assert system.log.committed == {}
