"""One suite over the grid in memory and the grid in Redis."""

from __future__ import annotations

import uuid

import pytest

from services.grid import Applied, Grid, GridUnavailableError, GridWrite, RefusedClaimError
from services.grid.memory import MemoryGrid
from services.grid.near_cache import NearCache
from services.grid.redis import RedisGrid


@pytest.fixture(params=["memory", "redis"])
def grid(request: pytest.FixtureRequest) -> Grid:
    return MemoryGrid() if request.param == "memory" else RedisGrid(request.getfixturevalue("stack").redis_url)


@pytest.fixture
def topic() -> str:
    return f"topic-{uuid.uuid4().hex[:8]}"


CARDS, PROFILES = [b"card-1", b"card-\xc3\xa9 {x}*"], [b"\x00\xff" * 10, b"two"]


def test_a_new_partition_holds_nothing(grid: Grid, topic: str):
    claim = grid.claim(topic, 0, "id", 1)

    assert (claim.applied, claim.epoch) == (None, 1)
    assert grid.read(topic, [0, 0], CARDS) == [None, None]


def test_what_is_applied_is_read_and_the_offset_moves_with_it(grid: Grid, topic: str):
    claim = grid.claim(topic, 0, "id", 1)

    assert grid.apply(topic, [GridWrite(claim, None, 7, CARDS, PROFILES)]) == [Applied.APPLIED]

    assert grid.read(topic, [0, 0], CARDS) == PROFILES
    assert grid.read(topic, [1, 1], CARDS) == [None, None]
    assert grid.claim(topic, 0, "id", 1).applied == 7


def test_repeating_a_write_whose_answer_was_lost_is_success_and_changes_nothing(grid: Grid, topic: str):
    claim = grid.claim(topic, 0, "id", 1)
    write = GridWrite(claim, None, 7, CARDS, PROFILES)
    grid.apply(topic, [write])

    assert grid.apply(topic, [write]) == [Applied.APPLIED]


def test_a_write_of_an_earlier_owner_is_refused(grid: Grid, topic: str):
    old = grid.claim(topic, 0, "id", 1)
    new = grid.claim(topic, 0, "id", 1)

    assert grid.apply(topic, [GridWrite(old, None, 7, CARDS, PROFILES)]) == [Applied.FENCED]

    assert grid.read(topic, [0, 0], CARDS) == [None, None]
    assert new.epoch == old.epoch + 1


def test_a_write_from_another_base_is_refused_whole(grid: Grid, topic: str):
    claim = grid.claim(topic, 0, "id", 1)
    grid.apply(topic, [GridWrite(claim, None, 7, CARDS, PROFILES)])

    assert grid.apply(topic, [GridWrite(claim, 5, 9, CARDS, [b"x", b"y"])]) == [Applied.MOVED]

    assert grid.read(topic, [0, 0], CARDS) == PROFILES
    assert grid.claim(topic, 0, "id", 1).applied == 7


def test_each_partition_is_judged_by_itself(grid: Grid, topic: str):
    mine, stale = grid.claim(topic, 0, "id", 1), grid.claim(topic, 1, "id", 1)
    grid.claim(topic, 1, "id", 1)

    answers = grid.apply(topic, [GridWrite(mine, None, 3, CARDS, PROFILES), GridWrite(stale, None, 3, CARDS, PROFILES)])

    assert answers == [Applied.APPLIED, Applied.FENCED]


def test_a_batch_without_profiles_still_moves_the_offset(grid: Grid, topic: str):
    claim = grid.claim(topic, 0, "id", 1)

    assert grid.apply(topic, [GridWrite(claim, None, 4, [], [])]) == [Applied.APPLIED]
    assert grid.claim(topic, 0, "id", 1).applied == 4


@pytest.mark.parametrize(("topic_id", "layout"), [("other", 1), ("id", 2)])
def test_a_recreated_topic_and_another_layout_are_noticed(grid: Grid, topic: str, topic_id: str, layout: int):
    grid.claim(topic, 0, "id", 1)

    with pytest.raises(RefusedClaimError):
        grid.claim(topic, 0, topic_id, layout)


def test_profiles_that_stand_for_no_offset_are_not_used(grid: Grid, topic: str):
    """As after the loss of the partition's meta alone: what is left is of an unknown point of the log."""
    claim = grid.claim(topic, 0, "id", 1)
    grid.apply(topic, [GridWrite(claim, None, 7, CARDS, PROFILES)])
    forget_meta(grid, topic)

    assert grid.apply(topic, [GridWrite(claim, 7, 8, CARDS, PROFILES)]) == [Applied.MOVED]
    assert grid.claim(topic, 0, "id", 1).applied is None
    assert grid.read(topic, [0, 0], CARDS) == [None, None]


def forget_meta(grid: Grid, topic: str) -> None:
    if isinstance(grid, MemoryGrid):
        del grid.metas[topic, 0]
    else:
        assert isinstance(grid, RedisGrid)
        grid._client.delete(f"{{{topic}:0}}:meta")


def test_an_applied_offset_never_goes_back(grid: Grid, topic: str):
    claim = grid.claim(topic, 0, "id", 1)

    with pytest.raises(AssertionError):
        GridWrite(claim, 8, 7, [], [])


def test_a_redis_that_is_not_there_is_an_outage():
    with pytest.raises(GridUnavailableError):
        RedisGrid("redis://127.0.0.1:1/0", 0.2).check()


def test_the_client_does_not_retry_by_itself(stack):
    """redis-py's default of ten retries would run a write again whose answer was lost."""
    retry = RedisGrid(stack.redis_url)._client.get_retry()

    assert retry.get_retries() == 0


def test_the_near_cache_is_bounded_and_forgets_the_oldest_first():
    cache = NearCache(3 * (NearCache.OVERHEAD_BYTES + 100))
    for i in range(5):
        cache.put(0, [b"card-%d" % i], [b"x" * 100])

    assert len(cache) == 3
    assert cache.get([0, 0, 1], [b"card-0", b"card-4", b"card-4"]) == [None, b"x" * 100, None]
    cache.drop([0])
    assert len(cache) == 0
    assert cache._bytes == 0
