"""The worker's order, and what crashes, outages and take-overs do to it, over twins in memory."""

from __future__ import annotations

import numpy as np
import pytest

from services.codec.transactions import TOPIC
from services.runtime import catalogue as m
from services.runtime.clock import ManualClock
from services.runtime.worker import PROBE_EVERY_S, STOP_WITHIN_S, AbandonedError
from tests.generators import random_events, to_columns
from tests.services.system import CrashError, Crashing, MemorySystem, expected_vectors

EVENTS = 90


def reference(seed: int = 1) -> MemorySystem:
    """A run without any fault."""
    system = MemorySystem()
    system.produce(to_columns(random_events(seed, EVENTS, cards=6)))
    worker, _ = system.worker()
    system.drain(worker)
    return system


def assert_same_end(expected: MemorySystem, actual: MemorySystem) -> None:
    """Every transaction has its decisions, all of them equal to those of a run without faults; so are the profiles."""
    wanted, found = expected.decisions(), actual.decisions()
    assert found.keys() == wanted.keys()
    for position, decisions in found.items():
        assert all(decision == wanted[position][0] for decision in decisions), position
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


def effects() -> int:
    counting, system = Crashing(), MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    worker, _ = system.worker(counting)
    system.drain(worker)
    return counting.calls


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_crash_around_every_single_effect_loses_nothing_and_repeats_equally(before: bool):
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


def test_what_is_folded_after_a_take_over_is_not_decided_again():
    system = MemorySystem(partitions=1)
    system.produce(to_columns(random_events(2, 40, cards=3)))
    at = 6  # claim, send, (send,) flush, commit: the apply of the first batch is among the next effects
    worker, _ = system.worker(Crashing(at))
    with pytest.raises(CrashError):
        system.drain(worker)
    committed = system.log.committed[TOPIC, 0]
    applied = system.grid.metas[TOPIC, 0].applied or 0
    assert applied < committed, "the crash must fall between commit and apply for this test to mean anything"

    successor, _ = system.worker()
    system.drain(successor)

    assert successor._metrics.value(m.RECOVERED) == committed - applied
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
    expected, system = reference(), MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    worker, _ = system.worker()
    worker.turn()
    flushed = []
    flush = worker._sink.flush

    def failing(timeout_s: float) -> bool:
        flushed.append(timeout_s)
        return len(flushed) > 4 and flush(timeout_s)

    worker._sink.flush = failing  # type: ignore[method-assign]
    system.drain(worker)

    assert len(flushed) > 4
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
        source.assign()
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
    owner, _ = system.worker()
    owner.turn()
    claimed = {k: meta.owner for k, meta in system.grid.metas.items()}
    records = zombie._source.poll(16, 0.0)
    assert len(records)
    with pytest.raises(AbandonedError, match="fenced"):
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


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda s: s.log.committed.clear(), "no committed offset"),
        (lambda s: s.log.committed.update({(TOPIC, 0): 1}), "ahead of the committed"),
        (lambda s: setattr(s.log, "topic_id", "another"), "topic id"),
    ],
    ids=["offsets-expired", "log-lost-its-end", "topic-recreated"],
)
def test_a_partition_whose_state_cannot_be_proved_halts_and_says_so(spoil, reason):
    system = reference()
    spoil(system)

    worker, _ = system.worker()
    worker.turn()

    assert reason in " ".join(worker._halted.values())
    assert not worker._health.ready
    assert 0 not in worker._owned


def test_told_to_stop_the_worker_gives_an_unfinished_batch_up_in_time():
    system = MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    worker, source = system.worker()
    worker.turn()
    system.log.available = True
    worker._sink.flush = lambda _: False  # type: ignore[method-assign, assignment]
    clock = worker._clock
    assert isinstance(clock, ManualClock)
    source.keep_alive = lambda _: clock.sleep(0.5)  # type: ignore[method-assign]
    begin = clock.monotonic_s()
    worker.stop()
    worker.turn()

    assert clock.monotonic_s() - begin <= STOP_WITHIN_S + 1.0
    assert system.log.committed == {}
