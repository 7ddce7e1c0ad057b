"""The states of a partition, and what must not happen to one: each of these would be our own mistake."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.grid import Claim
from services.worker.halting import Cause, Halt
from services.worker.partition_state import Partitions, PartitionState

HALT = Halt(Cause.MARKED, "somebody looks at it")


def owned(applied: int | None = 5, committed: int = 8) -> PartitionState:
    state = PartitionState(0)
    state.take_over(Claim(0, "me", 1, applied), committed, applied or 0, "topic")
    return state


def halted() -> PartitionState:
    state = PartitionState(0)
    state.leave_alone(HALT)
    return state


def released() -> PartitionState:
    state = owned()
    state.release()
    return state


def offsets(state: PartitionState) -> tuple[int | None, int | None, int, int]:
    return state.applied, state.saved, state.committed, state.published


def test_a_partition_goes_its_way_in_one_order():
    state = owned()
    assert (offsets(state), state.start, state.halt, state.stale) == ((5, 5, 8, 8), 5, None, False)
    state.publish(11)
    assert offsets(state) == (5, 5, 8, 11)
    state.commit()
    state.save(10)
    assert offsets(state) == (5, 10, 11, 11)
    state.publish(13)
    state.apply()
    assert offsets(state) == (10, 10, 11, 13)
    assert state.release() == Claim(0, "me", 1, 5)


@pytest.mark.parametrize(
    "step",
    [
        lambda: owned(applied=9),
        lambda: owned().publish(7),
        lambda: owned().save(9),
        lambda: owned().save(4),
        lambda: (state := owned(), state.save(7), state.save(8)),
        lambda: (state := owned(), state.fall_behind(), state.save(7)),
        lambda: owned().leave_alone(HALT),
        lambda: owned().take_over(Claim(0, "me", 2, 5), 8, 5, "topic"),
        lambda: owned().carried_over(4),
    ],
    ids=[
        "grid-ahead",
        "published-back",
        "save-uncommitted",
        "save-back",
        "two-writes",
        "stale",
        "halt",
        "twice",
        "carried-back",
    ],
)
def test_what_is_out_of_order_is_refused(step: Callable[[], object]):
    with pytest.raises(AssertionError):
        step()


@pytest.mark.parametrize("make", [halted, released, lambda: PartitionState(0)], ids=["halted", "released", "new"])
@pytest.mark.parametrize(
    "step",
    [
        lambda state: state.publish(100),
        lambda state: state.commit(),
        lambda state: state.save(8),
        lambda state: state.apply(),
        lambda state: state.fall_behind(),
        lambda state: state.release(),
    ],
    ids=["publish", "commit", "save", "apply", "fall-behind", "release"],
)
def test_nothing_changes_of_a_partition_that_is_not_owned(
    make: Callable[[], PartitionState], step: Callable[..., object]
):
    state = make()
    before = offsets(state)

    with pytest.raises(AssertionError):
        step(state)
    assert offsets(state) == before


def test_what_a_take_over_could_not_ask_the_grid_about_is_stale():
    state = owned()
    state.save(7)
    state.apply()
    again, still = state.carried_over(9), halted().carried_over(0)

    assert (offsets(again), again.start, again.stale) == ((7, 7, 9, 9), 9, True)
    assert (still.halt, still.stale) == (HALT, True)


def test_partitions_show_who_is_owned_and_halted_and_whether_any_is_stale():
    partitions, one, other = Partitions(), owned(), PartitionState(1)
    other.leave_alone(HALT)
    seen = partitions.owned
    partitions.add(one)
    partitions.add(other)

    assert (dict(seen), partitions.halted, partitions.stale) == ({0: one}, {1: HALT}, False)
    with pytest.raises(AssertionError):
        partitions.add(owned())
    with pytest.raises(TypeError):
        seen[1] = one  # type: ignore[index]
    partitions.fall_behind()
    assert partitions.stale
    assert partitions.take_out_owned() == [one]
    assert (dict(seen), partitions.halted, partitions.stale) == ({}, {1: HALT}, False)
    assert partitions.take_out() == [other]
    assert partitions.halted == {}
