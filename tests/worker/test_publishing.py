"""What is published and saved beside the next batch: with real threads, seldom, and with no room for what is not saved yet."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from services.streams import StreamsError
from services.streams.background import LateBackground, PromptBackground, ThreadBackground
from services.worker.write_behind import EVERY_BATCH, WriteBehindBuffer, WriteBehindLimits
from tests.generators import random_events, to_columns
from tests.worker.memory_system import EVENTS, MemorySystem, assert_same_end, reference

SELDOM = WriteBehindLimits(0.3, 1_000)


def run(system: MemorySystem, worker) -> None:
    for _ in range(400):
        worker.turn()
        system.clock.sleep(0.05)
    worker.release()


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("background", [ThreadBackground, LateBackground, PromptBackground])
@pytest.mark.parametrize("saving", [EVERY_BATCH, SELDOM], ids=["every-batch", "seldom"])
def test_however_batches_are_finished_the_end_is_the_same(guarantee, background, saving):
    expected, system = reference(), MemorySystem(background=background, saving=saving)
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    worker, _ = system.worker(guarantee=guarantee)

    run(system, worker)
    worker.close()

    assert_same_end(expected, system)


def test_a_profile_that_changes_often_is_written_once_an_interval():
    written: dict[str, Counter[str]] = {}
    for name, saving in (("every batch", EVERY_BATCH), ("seldom", WriteBehindLimits(60.0, 1_000))):
        system, written[name] = MemorySystem(saving=saving, batch_records_max=4), Counter()
        system.produce(to_columns(random_events(1, EVENTS, cards=6)))

        def wire(request, call, counted=written[name]):
            counted[request] += 1
            return call()

        worker, _ = system.worker(wire)
        run(system, worker)
        assert_same_end(reference(), system)

    assert written["every batch"]["apply"] > 10
    assert written["seldom"]["apply"] == 1, "all of it at the end"
    assert written["seldom"]["end_commit"] == written["every batch"]["end_commit"]


def test_too_many_records_are_written_before_the_time():
    system, applies = MemorySystem(saving=WriteBehindLimits(60.0, 20), batch_records_max=8), []
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))

    def wire(request, call):
        applies.append(request == "apply")
        return call()

    worker, _ = system.worker(wire)
    for _ in range(30):
        worker.turn()

    assert sum(applies) >= EVENTS // 40


def test_a_commit_that_fails_beside_the_next_batch_takes_that_batch_with_it():
    expected, system, failing = reference(), MemorySystem(background=ThreadBackground), iter([False, False, True])
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))

    def wire(request, call):
        if request == "end_commit" and next(failing, False):
            raise StreamsError("the answer is lost")
        return call()

    worker, _ = system.worker(wire)
    run(system, worker)

    assert_same_end(expected, system)


def test_who_waits_for_what_is_written_does_not_wait_for_the_batch_in_the_air():
    """A read that finds the grid moved waits for the worker's own write, which takes less than what Kafka is waited for."""
    system, in_flight, released = MemorySystem(background=ThreadBackground), threading.Event(), threading.Event()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))

    def wire(request, call):
        if request == "end_commit":
            in_flight.set()
            assert released.wait(20)
        return call()

    worker, _ = system.worker(wire)
    while not worker.completion.in_flight:
        worker.turn()
    assert in_flight.wait(20)

    worker.completion.written()
    assert worker.completion.in_flight
    released.set()
    worker.release()
    worker.close()


def test_what_a_thread_raises_is_raised_where_it_is_waited_for():
    background, begun = ThreadBackground(), threading.Event()

    def fail() -> None:
        begun.wait(5)
        raise StreamsError("no")

    background.start(fail)
    assert not background.ended()
    begun.set()
    with pytest.raises(StreamsError, match="no"):
        background.join()
    background.start(lambda: None)
    background.wait(5)
    assert background.ended()
    background.join()
    background.close()


def test_a_profile_is_found_wherever_it_waits_and_the_newest_one_first():
    buffer = WriteBehindBuffer(WriteBehindLimits(1.0, 1_000))
    buffer.add(0, 1, now_s=0.0).add(1, {b"card": b"first"}, None)
    assert not buffer.due(0.5)
    assert buffer.due(1.0)
    buffer.seal()
    buffer.add(0, 1, now_s=1.0).add(2, {b"card": b"second"}, None)
    taken = buffer.take(buffer.next())

    assert taken[0].profiles == {b"card": b"first"}
    assert buffer.in_doubt
    assert buffer.get(0, b"card") == b"second"
    buffer.written()
    assert buffer.due(2.0)
    buffer.seal()
    buffer.take(buffer.next())
    assert buffer.get(0, b"card") == b"second"
    buffer.written()
    assert buffer.get(0, b"card") is None
