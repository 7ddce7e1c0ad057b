"""The worker's order, and what crashes, outages and take-overs do to it, over twins in memory."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from services.codec.transactions import TOPIC
from services.grid import GridUnavailableError
from services.runtime import catalogue as m
from services.runtime.clock import ManualClock
from services.runtime.rate_limited_log import REPEAT_S
from services.worker.outages import PROBE_EVERY_S, STOP_WITHIN_S
from tests.generators import random_events, to_columns
from tests.worker.memory_system import (
    EVENTS,
    CrashError,
    Crashing,
    MemorySystem,
    assert_same_end,
    expected_vectors,
    reference,
)


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

    assert successor.metrics.value(m.RECOVERED) == committed
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
        assert not worker.health.ready
        system.clock.sleep(1.0)
        if len(kept) == 5:
            system.grid.available = True

    source.keep_alive = keep_alive  # type: ignore[method-assign]
    system.drain(worker)

    assert len(kept) == 5
    assert worker.metrics.value(m.OUTAGES, "redis") == pytest.approx(5.0)
    assert worker.health.conditions["grid_reachable"]
    assert_same_end(expected, system)


@pytest.mark.parametrize("store", ["log", "grid"])
def test_an_idle_worker_notices_that_a_store_is_away_and_that_it_is_back(store: str):
    system = MemorySystem()
    worker, _ = system.worker()
    worker.health.set("kernels_compiled", True)
    worker.turn()
    worker.turn()
    assert worker.health.ready
    for available in (False, True):
        getattr(system, store).available = available
        system.clock.sleep(PROBE_EVERY_S)
        worker.turn()

        assert worker.health.ready == available
        assert worker.health.live


def test_a_log_that_is_away_is_waited_out():
    expected, system, calls = reference(), MemorySystem(), []
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))

    def away_for_a_while(name: str, request):
        calls.append(name)
        system.log.available = not 6 < len(calls) < 13
        return request()

    worker, _ = system.worker(away_for_a_while)
    system.drain(worker)

    assert worker.metrics.value(m.OUTAGES, "kafka") > 0
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

    assert first.metrics.value(m.ABANDONED, "abandoned") == 1
    assert_same_end(expected, system)


def test_a_worker_that_lost_its_partition_without_noticing_writes_nothing():
    expected, system = reference(), MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    zombie, source = system.worker()
    for _ in range(3):
        zombie.turn()
    records = source.poll(16, 0.0)
    assert len(records)
    owner, _ = system.worker()
    owner.turn()
    claimed = {k: meta.owner for k, meta in system.grid.metas.items()}

    source.poll = lambda *_: records  # type: ignore[method-assign] - it has not heard of the other one

    def given_up() -> float:
        return sum(zombie.metrics.value(m.ABANDONED, cause) for cause in ("abandoned", "fenced", "log"))

    for _ in range(3):
        if not given_up():
            zombie.turn()

    assert given_up() == 1
    assert {k: meta.owner for k, meta in system.grid.metas.items()} == claimed
    system.drain(owner)
    assert_same_end(expected, system)


def test_reported_to_stop_the_worker_gives_an_unfinished_batch_up_in_time():
    system = MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    worker, source = system.worker()
    worker.turn()
    system.grid.available = False
    clock = system.clock
    assert isinstance(clock, ManualClock)
    source.keep_alive = lambda _: clock.sleep(0.5)  # type: ignore[method-assign]
    begin = clock.monotonic_s()
    worker.stop()
    worker.turn()

    assert clock.monotonic_s() - begin <= STOP_WITHIN_S + 1.0
    assert system.log.committed == {}


def test_lookups_that_do_not_come_in_time_are_logged_first_at_once_and_then_as_a_count_now_and_again(caplog):
    def late(name: str, request: Any) -> Any:
        if name == "look_up":
            raise GridUnavailableError("TimeoutError: no answer in time")
        return request()

    system, columns = MemorySystem(), to_columns(random_events(1, EVENTS, cards=6))
    worker, _ = system.worker(late)
    with caplog.at_level(logging.WARNING, "proact.worker"):
        system.produce(columns)
        system.drain(worker)
        at_first = [record.fields for record in caplog.records if "did not come in time" in record.message]
        system.clock.sleep(REPEAT_S)
        system.produce(columns)
        system.drain(worker)
        worker.close()
    lines = [record.fields for record in caplog.records if "did not come in time" in record.message]

    marked = sum("REFERENCE_MISSED" in decision["degraded"] for decision in system.records("card-decisions"))
    assert marked > 50
    assert len(at_first) == 1
    assert at_first[0]["error"] == "TimeoutError: no answer in time"
    assert len(lines) == 3
    # What was not logged by itself is in the next line, and the rest in the last.
    assert sum(line["records"] for line in lines) == marked
    assert lines[1]["batches"] > 1
