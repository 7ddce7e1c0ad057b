"""Workers of one process take turns: nobody waits for records of one topic while those of another one come."""

from __future__ import annotations

import pytest

from services.worker.turns import run_in_turn


class Taker:
    """Has records in some of its turns, and notes whether it might wait."""

    def __init__(self, comes: list[bool]) -> None:
        self._comes, self.patient = comes, []
        self.had_records = self.stopping = False
        self.ended: list[str] = []

    def open(self) -> None:
        self.ended.append("open")

    def turn(self, *, patient: bool = True) -> None:
        self.patient.append(patient)
        self.had_records = self._comes[len(self.patient) - 1]
        self.stopping = len(self.patient) == len(self._comes)

    def release(self) -> None:
        self.ended.append("release")

    def crash(self) -> None:
        self.ended.append("crash")

    def close(self) -> None:
        self.ended.append("close")


def test_after_a_round_with_records_nobody_waits_and_after_one_without_all_may():
    busy, idle = Taker([True, True, False, False]), Taker([False] * 4)

    run_in_turn([busy, idle])

    assert busy.patient == idle.patient == [True, False, False, True]
    assert busy.ended == ["open", "release", "close"]


def test_one_alone_always_may_wait():
    alone = Taker([True, True, False])

    run_in_turn([alone])

    assert alone.patient == [True, True, True]


def test_an_exception_gives_nothing_back():
    class Failing(Taker):
        def turn(self, *, patient: bool = True) -> None:  # noqa: ARG002
            raise KeyError

    one, other = Taker([False] * 9), Failing([])
    with pytest.raises(KeyError):
        run_in_turn([one, other])

    assert one.ended == ["open", "crash", "close"]
