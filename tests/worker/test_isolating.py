"""Records that raise an exception are found, refused alone, and left out of every fold; what is no record's fault refuses nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from services.codec.records import encode_written
from services.codec.transactions import TOPIC
from services.core.columns import Text
from services.core.validation import Reject
from services.grid import GridUnavailableError
from services.grid.memory import GridMemory, MemoryGrid
from services.runtime import catalogue as m
from services.runtime.logs import _Formatter, frames_of
from services.scorer.processor import PreparedTransactions, ScoredOutcome, ScorerProcessor
from services.streams import Records, StreamsError
from services.worker import excluded as recalling
from services.worker.dead_letters import DEAD_LETTERS
from services.worker.excluded import (
    CHUNK_RECORDS,
    CLOCKS_MS,
    Excluded,
    Letter,
    letters_of,
    recall,
    written_since,
)
from services.worker.folding import FoldError, fold_log
from services.worker.isolating import AHEAD_MAX, Lead, LeadInBatch, isolate
from services.worker.outages import PROBE_EVERY_S
from services.worker.processor import LateOutputs, ProcessingError, guarded
from tests.codec.fuzzing import examples_of
from tests.generators import random_events, to_columns
from tests.worker.memory_system import EVENTS, KAFKA_TIMESTAMP_MS, SAFE, MemorySystem, reference, released_model

MARK = b"card-raises"
WHERE = ("prepare", "decide", "encode")
CARD_OF_NOBODY = b"5105105105105100"


class Faulty(ScorerProcessor):
    """A scorer with a mistake that a card brings about; ``mended`` when it was rolled out without it."""

    where: str = "prepare"
    error: Callable[[], BaseException] = staticmethod(lambda: KeyError("secret " + CARD_OF_NOBODY.decode()))
    mended = False
    every = False

    def raise_in(self, where: str, records: Records, excluded: Any) -> None:
        if self.mended or where != self.where:
            return
        for i, key in enumerate(records.keys):
            if (self.every or (key or b"").startswith(MARK)) and not np.asarray(excluded)[i]:
                raise self.error()

    def prepare(self, records: Records, excluded: Any) -> PreparedTransactions:
        self.raise_in("prepare", records, excluded)
        return super().prepare(records, excluded)

    def decide(self, prepared: Any, profiles: Any, found: Any, emit: Any, now_ms: int) -> ScoredOutcome:
        self.raise_in("decide", prepared.records, prepared.status)
        outcome = super().decide(prepared, profiles, found, emit, now_ms)

        def encode() -> list[Any]:
            self.raise_in("encode", prepared.records, prepared.status)
            return list(outcome.outputs)

        return replace(outcome, outputs=LateOutputs(bool(outcome.outputs), encode, []))


class Lettered:
    """The dead letters of a system in memory."""

    def __init__(self, system: MemorySystem) -> None:
        self._system = system

    def _all(self) -> list[Letter]:
        visible = [r for p in range(self._system.partitions) for r in self._system.log.visible(DEAD_LETTERS, p)]
        n = len(visible)
        zeros = np.zeros(n, np.int64)
        values = [record.value for record in visible]
        return list(letters_of(Records(DEAD_LETTERS, zeros, zeros, zeros, [None] * n, values)))

    def extent(self, since_ms: int) -> tuple[int, int]:  # noqa: ARG002 - it knows no times
        return 0, len(self._all())

    def read(self, extent: tuple[int, int]) -> Any:
        yield self._all()[slice(*extent)]


def columns_with(*marked: int) -> Any:
    """Return transactions, those at some places of cards that bring the mistake about."""
    columns = to_columns(random_events(1, EVENTS, cards=6))
    cards = columns.card_id.tolist()
    for at in marked:
        cards[at] = MARK + b"-%d" % at
    return replace(columns, card_id=Text.of(cards))


def faulty_worker(system: MemorySystem, **settings: Any) -> Any:
    worker, _ = system.worker(processor=faulty(**settings), letters=Lettered(system))
    return worker


def faulty(**settings: Any) -> Faulty:
    processor = Faulty(released_model(), SAFE)
    for name, value in settings.items():
        setattr(processor, name, value)
    return processor


def refused(system: MemorySystem) -> dict[tuple[int, int], str]:
    letters = system.records(DEAD_LETTERS)
    assert len({(one["source_partition"], one["source_offset"]) for one in letters}) == len(letters), "refused twice"
    return {(one["source_partition"], one["source_offset"]): one["reason"] for one in letters}


def positions_of(system: MemorySystem) -> set[tuple[int, int]]:
    return {
        (p, offset)
        for p in range(system.partitions)
        for offset, record in enumerate(system.log.partition_log(TOPIC, p))
        if (record.key or b"").startswith(MARK)
    }


def without_the_marked() -> MemorySystem:
    """A run in which those records are rubbish, so that they are in no fold."""
    system = MemorySystem()
    system.produce(columns_with(7, 30, 31, 80))
    for p in range(system.partitions):
        log = system.log.partition_log(TOPIC, p)
        log[:] = [replace(r, value=b"rubbish") if (r.key or b"").startswith(MARK) else r for r in log]
    worker, _ = system.worker()
    system.drain(worker)
    return system


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("error", [KeyError, AssertionError, RecursionError, UnicodeError], ids=lambda e: e.__name__)
def test_what_raises_is_refused_alone_and_its_neighbours_are_decided_as_if_it_were_not_there(where, error, guarantee):
    system = MemorySystem()
    system.produce(columns_with(7, 30, 31, 80))
    worker, _ = system.worker(processor=faulty(where=where, error=error), guarantee=guarantee)
    system.drain(worker)

    expected = without_the_marked()
    assert refused(system) == dict.fromkeys(positions_of(system), "INTERNAL_ERROR")
    assert len(refused(system)) == 4
    assert system.decisions().keys() == expected.decisions().keys()
    assert all(len(one) == 1 for one in system.decisions().values())
    assert system.grid.profiles == expected.grid.profiles
    assert worker.metrics.value(m.INTERNAL_ERRORS, "refused") == 4


@pytest.mark.parametrize("where", WHERE)
def test_a_lost_grid_is_folded_without_what_was_refused_even_if_the_mistake_is_mended(where: str):
    system = MemorySystem()
    system.produce(columns_with(7, 30, 31, 80))
    system.drain(faulty_worker(system, where=where))
    before = dict(system.grid.profiles)
    system.grid.metas.clear()
    system.grid.profiles.clear()

    system.drain(faulty_worker(system, mended=True))

    assert system.grid.profiles == before
    assert len(refused(system)) == 4
    noted = {p: meta.errors for (_, p), meta in system.grid.metas.items()}
    assert {(p, offset) for p, offsets in noted.items() for offset in offsets} == positions_of(system)


def test_letters_of_another_topic_of_that_name_leave_nothing_out():
    expected, system = reference(), MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    worker, _ = system.worker()
    system.drain(worker)
    system.grid.metas.clear()
    system.grid.profiles.clear()
    stale = [Letter(TOPIC, 0, 1, Excluded(Reject.INTERNAL_ERROR, 5))]

    class Stale(Lettered):
        def _all(self) -> list[Letter]:
            return stale

    successor, _ = system.worker(letters=Stale(system))
    system.drain(successor)

    assert system.grid.profiles == expected.grid.profiles


def test_a_record_that_a_newer_program_refused_for_a_reason_unknown_here_is_left_out():
    letter = examples_of(DEAD_LETTERS)[0] | {"reason": "OTHER", "source_topic": TOPIC, "source_partition": 0}
    values = [encode_written(DEAD_LETTERS, letter | {"source_offset": offset}) for offset in (3, 8)]
    zeros = np.zeros(2, np.int64)
    letters = list(letters_of(Records(DEAD_LETTERS, zeros, zeros, zeros, [None] * 2, values)))

    class Written(_OtherLetters):
        def read(self, extent: tuple[int, int]) -> Iterator[list[Letter]]:  # noqa: ARG002
            yield letters

    assert recall(Written(2), TOPIC, {0: (0, 5)}, 0) == {0: {3: letters[0].excluded_of}}


def test_an_exception_that_does_not_come_again_refuses_nothing():
    expected, system, raised = reference(), MemorySystem(), []
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))

    class Once(Faulty):
        def raise_in(self, where: str, records: Records, excluded: Any) -> None:  # noqa: ARG002
            if not raised and where == "decide" and records.offset[0] > 3:
                raised.append(where)
                raise OSError

    worker, _ = system.worker(processor=Once(released_model(), SAFE))
    system.drain(worker)

    assert raised
    assert refused(system) == {}
    assert system.grid.profiles == expected.grid.profiles
    assert worker.metrics.value(m.INTERNAL_ERRORS, "not_again") == 1
    assert worker.metrics.value(m.INTERNAL_ERRORS, "refused") == 0


@pytest.mark.parametrize("batch", [1, 16, 500])
@pytest.mark.parametrize("where", WHERE)
def test_what_comes_for_every_record_halts_the_partition_before_it_becomes_dead_letters(where: str, batch: int):
    system = MemorySystem(batch_records_max=batch)
    system.produce(columns_with())
    worker = faulty_worker(system, where=where, every=True)
    for _ in range(300):
        worker.turn()

    assert sorted(worker.partitions.halted) == [0, 1]
    assert "internal errors: KeyError" in str(worker.partitions.halted[0])
    assert all(sum(p == at for p, _ in refused(system)) < AHEAD_MAX for at in (0, 1))
    assert system.decisions() == {}

    for p in (0, 1):
        MemoryGrid(system.grid, "people").resume(TOPIC, p, 0)
    mended = faulty_worker(system, mended=True)
    system.clock.sleep(PROBE_EVERY_S)
    system.drain(mended)
    assert len(system.decisions()) + len(refused(system)) == EVENTS


def test_an_exception_while_the_grid_is_away_is_refused_at_once_and_noted_when_it_is_back():
    system = MemorySystem()
    system.produce(columns_with(7))
    processor = faulty(where="decide")
    processor.decide_without_profiles = lambda prepared, found, now_ms: (  # type: ignore[method-assign]
        processor.raise_in("decide", prepared.records, prepared.status)
        or ScorerProcessor.decide_without_profiles(processor, prepared, found, now_ms)
    )
    worker, _ = system.worker(processor=processor, without_profiles="fallback")
    worker.turn()
    system.grid.available = False
    for _ in range(60):
        worker.turn()
    assert refused(system) == dict.fromkeys(positions_of(system), "INTERNAL_ERROR")

    system.grid.available = True
    system.clock.sleep(PROBE_EVERY_S)
    system.drain(worker)

    noted = {(p, offset) for (_, p), meta in system.grid.metas.items() for offset in meta.errors}
    assert noted == positions_of(system)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_what_says_nothing_of_a_record_ends_the_worker_which_then_counts_as_dead(error):
    system = MemorySystem()
    system.produce(columns_with(7))
    worker = faulty_worker(system, error=error)

    with pytest.raises(error):
        worker.run()

    assert refused(system) == {}
    assert any(meta.process for meta in system.grid.metas.values()), "it was given back as if all were well"


def test_an_outage_is_no_record_s_fault():
    system = MemorySystem()
    system.produce(columns_with(7))
    calls = []

    def error() -> Exception:
        calls.append(1)
        return GridUnavailableError("away")

    worker = faulty_worker(system, error=error)
    with pytest.raises(GridUnavailableError):
        system.drain(worker)
    assert refused(system) == {}


def test_a_traceback_is_logged_without_what_the_record_holds(caplog):
    system = MemorySystem()
    system.produce(columns_with(7))
    with caplog.at_level(logging.ERROR, "proact.worker"):
        system.drain(faulty_worker(system))

    [line] = [one for one in caplog.records if "raises an exception" in one.getMessage()]
    reported = json.loads(_Formatter(as_json=True).format(line))
    assert reported["error"] == "KeyError"
    assert any("test_isolating.py" in frame and "raise_in" in frame for frame in reported["traceback"])
    assert "secret" not in json.dumps(reported)
    assert CARD_OF_NOBODY.decode() not in json.dumps(reported)


# -- the search itself -------------------------------------------------------------------------------------------------


def some(n: int) -> Records:
    zeros = np.zeros(n, np.int64)
    return Records("t", zeros, np.arange(n), zeros, [None] * n, [b"%d" % i for i in range(n)])


@pytest.mark.parametrize(
    "bad", [[0], [99], [0, 99], [5, 6, 7], list(range(40, 60)), list(range(0, 100, 2)), [99, 0, 50, 51]]
)
def test_the_search_names_every_record_that_raises_and_no_other(bad: list[int]):
    tries, named = [], []

    def work(records: Records, excluded: Any) -> int:
        tries.append(len(records))
        if any(i in bad and not excluded[i] for i in range(len(records))):
            raise ProcessingError(ValueError())
        return len(records)

    assert isolate(some(100), np.zeros(100, np.int64), work, lambda row, _: named.append(row)) == 100
    assert named == sorted(bad)
    assert len(tries) <= 2 + 16 * len(bad)


def test_a_record_that_raises_after_another_one_is_the_one_that_is_named():
    named = []

    def work(records: Records, excluded: Any) -> None:
        if len(records) > 8 and not excluded[8] and not excluded[3]:
            raise ProcessingError(ValueError())

    isolate(some(20), np.zeros(20, np.int64), work, lambda row, _: named.append(row))
    assert named == [8]


def test_the_lead_of_what_raises_is_counted_against_the_others():
    lead = Lead()
    assert not any(lead.add(0, 1, 2) for _ in range(10_000)), "one in three never halts"
    assert [lead.add(1, 1, 0) for _ in range(AHEAD_MAX)] == [False] * (AHEAD_MAX - 1) + [True]


def test_a_record_counts_once_however_often_its_batch_is_given_up_and_decided_again():
    lead, records = Lead(), some(10)
    for _ in range(3 * AHEAD_MAX):
        assert not LeadInBatch(lead, records).add(4)
    LeadInBatch(lead, records).finish()

    assert [lead.add(0, 1, 0) for _ in range(AHEAD_MAX)] == [False] * (AHEAD_MAX - 1) + [True], (
        "the five behind it paid"
    )
    lead.forget(0)
    assert not LeadInBatch(lead, records).add(4)
    assert [lead.add(0, 1, 0) for _ in range(AHEAD_MAX - 1)][-1], "what was forgotten counts anew"


def test_the_same_is_left_out_of_a_fold_and_a_broken_program_folds_nothing():
    columns = columns_with(7, 30)
    system = MemorySystem(partitions=1)
    system.produce(columns)
    log = system.log.partition_log(TOPIC, 0)
    n = len(log)
    zeros = np.zeros(n, np.int64)
    records = Records(
        TOPIC, zeros, np.arange(n), zeros + KAFKA_TIMESTAMP_MS, [r.key for r in log], [r.value for r in log]
    )

    folded = fold_log(faulty(where="decide"), [records], {}, lambda *_: None)
    again = fold_log(
        faulty(mended=True), [records], dict.fromkeys(folded.errors, Excluded(Reject.INTERNAL_ERROR)), lambda *_: None
    )

    assert folded.errors == {7, 30}
    assert again == folded
    assert not any(card.startswith(MARK) for card in folded.profiles)
    with pytest.raises(FoldError, match="most records raise"):
        fold_log(faulty(every=True), [records], {}, lambda *_: None)


def test_letters_are_read_from_their_end_until_an_earlier_one_of_each_partition_was_seen():
    read = []

    class Many:
        def extent(self, since_ms: int) -> tuple[int, int]:  # noqa: ARG002 - all are of one time
            return 10, 100_000

        def read(self, extent: tuple[int, int]) -> Any:
            read.append(extent)
            yield [Letter("t", 0, i, Excluded(Reject.INTERNAL_ERROR, i)) for i in range(*extent)]

    found = recall(Many(), "t", {0: (99_990, 99_995)})

    assert sorted(found[0]) == list(range(99_990, 99_995))
    assert len(read) == 1
    assert recall(Many(), "another", {0: (0, 5)}) == {}
    assert recall(Many(), "t", {}) == {}


class _OtherLetters:
    """Letters of another topic, one a second; what was read of them and what was done in between is in ``order``."""

    def __init__(self, letters: int) -> None:
        self.letters, self.order, self.read_letters = letters, [], 0

    def extent(self, since_ms: int) -> tuple[int, int]:
        return min(self.letters, -(-since_ms // 1000)), self.letters

    def read(self, extent: tuple[int, int]) -> Any:
        for at in range(extent[0], extent[1], CHUNK_RECORDS):
            some = range(at, min(extent[1], at + CHUNK_RECORDS))
            self.read_letters += len(some)
            self.order.append("letters")
            yield [Letter("other", 0, i, Excluded(Reject.EMPTY, 1000 * i)) for i in some]


def test_of_a_partition_that_never_had_a_letter_those_since_its_first_record_are_read_and_no_more():
    system = MemorySystem(partitions=1)
    letters = _OtherLetters(5_000_000)
    now_ms = 5_000_000_000
    for i in range(100):  # a record a second, the last one now
        system.log.append(TOPIC, b"k", b"v", now_ms - 1000 * (99 - i), 0)
    _, source = system.worker()

    since_ms = written_since(source, {0: (50, 100)}, now_ms, lambda: None)
    assert recall(letters, TOPIC, {0: (50, 100)}, since_ms) == {}

    assert now_ms - 4 * 60_000 - CLOCKS_MS <= since_ms < now_ms - 49_000
    assert letters.read_letters <= (now_ms - since_ms) // 1000


def test_a_record_before_all_times_that_are_known_has_letters_of_any_time():
    system = MemorySystem(partitions=1)
    system.log.append(TOPIC, b"k", b"v", 5, 0)
    _, source = system.worker()

    assert written_since(source, {0: (0, 1)}, 10**12, lambda: None) == 0


def test_however_many_letters_are_read_the_place_in_the_group_is_kept(monkeypatch):
    monkeypatch.setattr(recalling, "LETTERS_MAX", most := 50_000)
    letters = _OtherLetters(3 * most)

    recall(letters, TOPIC, {0: (0, 1)}, 0, lambda: letters.order.append("kept"))

    assert letters.read_letters == most
    assert letters.order == ["letters", "kept"] * (len(letters.order) // 2)


def test_a_worker_stays_in_its_group_while_it_reads_letters():
    system = MemorySystem(partitions=1)
    system.produce(columns_with())
    system.drain(system.worker()[0])
    system.grid = GridMemory()  # it is lost: all is folded again
    letters = _OtherLetters(50 * CHUNK_RECORDS)
    letters.extent = lambda _: (0, letters.letters)

    def reported(name: str, request: Callable[[], Any]) -> Any:
        letters.order.append(name)
        return request()

    second, _ = system.worker(reported, letters=letters)
    system.drain(second)

    reads = [i for i, name in enumerate(letters.order) if name == "letters"]
    assert len(reads) >= 50
    assert all("keep_alive" in letters.order[a:b] for a, b in pairwise(reads))


@pytest.mark.parametrize("answer", [StreamsError("away"), {}], ids=["away", "held"])
def test_what_cannot_be_encoded_is_found_where_the_source_does_not_say_how_far_it_read(monkeypatch, answer: Any):
    system = MemorySystem()
    system.produce(columns_with(7))
    worker, source = system.worker(processor=faulty(where="encode"), letters=Lettered(system))

    def positions() -> Any:
        if isinstance(answer, StreamsError):
            raise answer
        return answer

    monkeypatch.setattr(source, "positions", positions)
    system.drain(worker)

    assert len(refused(system)) == 1
    assert worker.metrics.value(m.ABANDONED, "internal_error") == 1, (
        "else it is encoded beside the thread again and again"
    )


def test_a_guard_says_what_was_raised_by_its_kind_alone():
    def work() -> None:
        raise ValueError("secret")

    with pytest.raises(ProcessingError, match=r"^ValueError$") as caught:
        guarded(work)
    assert "secret" not in " ".join(frames_of(caught.value))
