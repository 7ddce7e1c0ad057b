"""One suite over the grid in memory and the grid in Redis."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import redis

from services.grid import (
    Applied,
    Attempt,
    Grid,
    GridMovedError,
    GridRead,
    GridRefusedError,
    GridUnavailableError,
    GridWrite,
    HaltedError,
    Lookup,
    RefusedClaimError,
    UnsafeGridError,
)
from services.grid.base import ERRORS_MAX
from services.grid.connection import GridConnection
from services.grid.near_cache import NearCache
from services.grid.redis import READ_CARDS_MAX, RedisGrid, connect
from tests.contracts.stores import CARDS, HERE, PROFILES, Store, claim_of, read, written


def test_a_new_partition_holds_nothing(grid: Grid, topic: str):
    claim = claim_of(grid, topic)

    assert (claim.applied, claim.epoch, claim.died) == (None, 1, False)
    assert read(grid, topic, claim, None) == [None, None]


def test_what_is_applied_is_read_and_the_offset_moves_with_it(grid: Grid, topic: str):
    claim = written(grid, topic)

    assert read(grid, topic, claim, 7) == PROFILES
    assert grid.dump(topic, 0) == dict(zip(CARDS, PROFILES, strict=True))
    assert claim_of(grid, topic).applied == 7
    assert claim_of(grid, topic, 1).applied is None


def test_reading_of_several_partitions_keeps_them_apart_however_many_cards_there_are(grid: Grid, topic: str):
    many = [b"card-%d" % i for i in range(READ_CARDS_MAX + 10)]
    first, second = claim_of(grid, topic), claim_of(grid, topic, 1)
    grid.apply(topic, [GridWrite(first, None, 7, many, many), GridWrite(second, None, 3, CARDS, PROFILES)])

    found = grid.read(topic, [GridRead(first, 7, many), GridRead(second, 3, CARDS)]).profiles

    assert found == [many, PROFILES]


def test_repeating_a_write_whose_answer_was_lost_is_success_and_changes_nothing(grid: Grid, topic: str):
    claim = claim_of(grid, topic)
    write = GridWrite(claim, None, 7, CARDS, PROFILES)
    grid.apply(topic, [write])

    assert grid.apply(topic, [write]) == [Applied.APPLIED]


def test_a_write_and_a_read_of_an_earlier_owner_are_refused(grid: Grid, topic: str):
    old = claim_of(grid, topic)
    new = claim_of(grid, topic)

    assert grid.apply(topic, [GridWrite(old, None, 7, CARDS, PROFILES)]) == [Applied.FENCED]
    with pytest.raises(GridMovedError):
        read(grid, topic, old, None)

    assert read(grid, topic, new, None) == [None, None]
    assert new.epoch == old.epoch + 1


def test_a_write_from_another_base_is_refused_whole(grid: Grid, topic: str):
    claim = written(grid, topic)

    assert grid.apply(topic, [GridWrite(claim, 5, 9, CARDS, [b"x", b"y"])]) == [Applied.MOVED]

    assert read(grid, topic, claim, 7) == PROFILES
    assert claim_of(grid, topic).applied == 7


def test_each_partition_is_judged_by_itself(grid: Grid, topic: str):
    mine, stale = claim_of(grid, topic), claim_of(grid, topic, 1)
    claim_of(grid, topic, 1)

    answers = grid.apply(topic, [GridWrite(mine, None, 3, CARDS, PROFILES), GridWrite(stale, None, 3, CARDS, PROFILES)])

    assert answers == [Applied.APPLIED, Applied.FENCED]


def test_a_batch_without_profiles_still_moves_the_offset(grid: Grid, topic: str):
    claim = claim_of(grid, topic)

    assert grid.apply(topic, [GridWrite(claim, None, 4, [], [])]) == [Applied.APPLIED]
    assert claim_of(grid, topic).applied == 4


@pytest.mark.parametrize("change", [{"topic_id": "other"}, {"partitions": 4}])
def test_a_recreated_topic_and_another_number_of_partitions_are_noticed(grid: Grid, topic: str, change: dict):
    written(grid, topic)

    with pytest.raises(RefusedClaimError) as refused:
        grid.claim(topic, 0, replace(HERE, **change))

    assert refused.value.found == HERE
    assert claim_of(grid, topic).applied == 7


def test_profiles_of_another_layout_are_dropped_and_never_mixed(grid: Grid, topic: str):
    written(grid, topic)

    claim = grid.claim(topic, 0, replace(HERE, layout=2))

    assert claim.applied is None
    assert read(grid, topic, claim, None) == [None, None]


def test_the_loss_of_a_partitions_meta_is_found_before_anything_is_read_or_written(store: Store, topic: str):
    grid = store.connect()
    claim = written(grid, topic)
    store.forget_meta(topic)

    with pytest.raises(GridMovedError):
        read(grid, topic, claim, 7)
    assert grid.apply(topic, [GridWrite(claim, 7, 8, CARDS, PROFILES)]) == [Applied.MOVED]
    again = claim_of(grid, topic)
    assert again.applied is None
    assert read(grid, topic, again, None) == [None, None]


def test_the_loss_of_one_profile_is_found_before_its_card_looks_new(store: Store, topic: str):
    grid = store.connect()
    claim = written(grid, topic)
    store.forget_profile(topic, CARDS[0])

    with pytest.raises(GridMovedError):
        grid.read(topic, [GridRead(claim, 7, [b"another card"])])
    assert grid.apply(topic, [GridWrite(claim, 7, 8, [b"another card"], [b"x"])]) == [Applied.MOVED]
    assert claim_of(grid, topic).applied is None


def test_an_applied_offset_never_goes_back(grid: Grid, topic: str):
    claim = claim_of(grid, topic)

    with pytest.raises(AssertionError):
        GridWrite(claim, 8, 7, [], [])


def test_a_process_that_did_not_release_has_died_and_leaves_what_it_tried(store: Store, topic: str):
    first, second, third = store.connect(), store.connect(), store.connect()
    claim = claim_of(first, topic)
    assert not claim_of(first, topic).died, "the same process again"
    claim = claim_of(first, topic)
    first.note_attempt(topic, claim, Attempt(3, 9, ((12, 15), (20, 21))))
    first.note_poison(topic, claim, 5)
    first.note_poison(topic, claim, 4)
    first.note_errors(topic, claim, [7, 6])
    first.note_errors(topic, claim, {8})
    first.note_errors(topic, claim, ())

    successor = claim_of(second, topic)

    assert (successor.died, successor.attempt, successor.poison) == (
        True,
        Attempt(3, 9, ((12, 15), (20, 21))),
        frozenset({4, 5}),
    )
    assert successor.errors == second.status(topic, [0])[0].errors == frozenset({6, 7, 8})
    second.note_errors(topic, successor, range(9, 9 + ERRORS_MAX))
    assert second.status(topic, [0])[0].errors == frozenset(range(9, 9 + ERRORS_MAX))
    second.note_attempt(topic, successor, None)
    second.release(topic, [successor])
    last = claim_of(third, topic)
    assert (last.died, last.attempt, last.poison) == (False, None, frozenset({4, 5}))


def test_only_the_owner_releases_and_notes(store: Store, topic: str):
    first, second, third = store.connect(), store.connect(), store.connect()
    old = claim_of(first, topic)
    claim_of(second, topic)
    first.release(topic, [old])
    first.note_attempt(topic, old, Attempt(1, 2))
    first.note_poison(topic, old, 1)
    first.note_errors(topic, old, {2})

    claim = claim_of(third, topic)

    assert (claim.died, claim.attempt, claim.poison, claim.errors) == (True, None, frozenset(), frozenset())


def test_a_halted_partition_is_nobodys_until_it_is_resumed(grid: Grid, topic: str):
    claim = written(grid, topic)
    grid.halt(topic, 0, "somebody looks at it")

    with pytest.raises(HaltedError, match="looks at it"):
        claim_of(grid, topic)
    assert grid.apply(topic, [GridWrite(claim, 7, 9, CARDS, PROFILES)]) == [Applied.FENCED]
    assert grid.status(topic, [0])[0].halted == "somebody looks at it"
    assert grid.claim(topic, 0, HERE, even_if_halted=True).applied == 7
    assert grid.resumed(topic, [0, 1]) == [0, 0]
    grid.resume(topic, 0, 9)
    assert grid.resumed(topic, [0, 1]) == [1, 0]
    again = claim_of(grid, topic)
    assert (again.applied, again.accepted) == (7, 9)


def test_before_what_time_nothing_is_known_is_kept_as_long_as_the_profiles_are(grid: Grid, topic: str):
    claim = claim_of(grid, topic)
    assert claim.begins_ms is None
    grid.note_beginning(topic, claim, 5_000)
    grid.apply(topic, [GridWrite(claim, None, 7, CARDS, PROFILES)])
    assert claim_of(grid, topic).begins_ms == 5_000
    grid.note_beginning(topic, claim, 9_000)
    assert grid.status(topic, [0])[0].begins_ms == 5_000, "an older claim says nothing any more"

    assert grid.claim(topic, 0, replace(HERE, layout=HERE.layout + 1)).begins_ms is None
    grid.note_beginning(topic, claim_of(grid, topic), 5_000)
    grid.halt(topic, 0, "is rebuilt", drop=True)
    assert grid.claim(topic, 0, HERE, even_if_halted=True).begins_ms is None


def test_a_halt_that_drops_forgets_whose_fold_it_was(grid: Grid, topic: str):
    written(grid, topic)
    grid.halt(topic, 0, "is rebuilt", drop=True)

    claim = grid.claim(topic, 0, replace(HERE, topic_id="another"), even_if_halted=True)

    assert (claim.applied, claim.epoch) == (None, 2)
    assert grid.dump(topic, 0) == {}


def test_the_status_says_what_there_is(grid: Grid, topic: str):
    written(grid, topic)
    here, nothing = grid.status(topic, [0, 1])

    assert (here.identity, here.epoch, here.applied, here.profiles, here.halted) == (HERE, 1, 7, 2, None)
    assert (nothing.identity, nothing.epoch, nothing.applied, nothing.profiles) == (None, 0, None, 0)


@pytest.mark.parametrize(
    ("setting", "bad", "words"),
    [("maxmemory-policy", "allkeys-lru", "noeviction"), ("replicaof", None, "slave")],
)
def test_a_redis_that_would_lose_profiles_in_silence_is_refused(own_stack, setting, bad, words):
    stack = own_stack()
    client, grid = redis.Redis.from_url(stack.redis_url), RedisGrid(stack.grid_connection)
    grid.check()
    if setting == "replicaof":
        client.replicaof("127.0.0.1", 1)
    else:
        client.config_set(setting, bad)

    with pytest.raises(UnsafeGridError, match=words):
        grid.check()


def test_a_redis_that_forgot_the_scripts_gets_them_again(stack, topic: str):
    grid = RedisGrid(stack.grid_connection)
    claim = written(grid, topic)
    redis.Redis.from_url(stack.redis_url).script_flush()

    assert grid.apply(topic, [GridWrite(claim, 7, 8, CARDS, PROFILES)]) == [Applied.APPLIED]


def test_a_redis_that_does_not_take_scripts_is_refused(stack):
    client = redis.Redis.from_url(stack.redis_url)
    client.acl_setuser("noscript", enabled=True, nopass=True, keys=["*"], categories=["+@all"], commands=["-script"])
    client.script_flush()
    url = stack.redis_url.replace("redis://", "redis://noscript:x@")
    try:
        with pytest.raises(UnsafeGridError, match="scripts"):
            RedisGrid(GridConnection.of(url)).check()
    finally:
        client.acl_deluser("noscript")


def test_a_redis_that_is_not_there_is_an_outage():
    with pytest.raises(GridUnavailableError):
        RedisGrid(GridConnection.of("redis://127.0.0.1:1/0"), 0.2).check()


def test_the_client_does_not_retry_by_itself(stack):
    """redis-py's default of ten retries would run a write again whose answer was lost."""
    retry = connect(stack.grid_connection, 1.0).get_retry()

    assert retry.get_retries() == 0


def test_the_near_cache_is_bounded_and_forgets_the_oldest_first():
    size, bound = NearCache.OVERHEAD_BYTES + 100, 40
    cache = NearCache(bound * size)
    for i in range(1_000):
        cache.put(i % 3, {b"card-%d" % (i // 2): b"%100d" % i})

        assert bound // 4 <= len(cache) <= bound + 1 or i < bound
        assert cache.get(i % 3, [b"card-%d" % (i // 2), b"nobody"]) == [b"%100d" % i, None]
        assert cache.get(7, [b"card-%d" % (i // 2)]) == [None]
    assert cache.get(0, [b"card-0"]) == [None]
    cache.drop(999 % 3)
    assert cache.get(999 % 3, [b"card-499"]) == [None]
    cache.clear()
    assert len(cache) == 0


def test_what_is_written_again_and_again_pushes_nothing_out():
    cache = NearCache(100 * (NearCache.OVERHEAD_BYTES + 100))
    cache.put(0, {b"quiet": b"x" * 100})
    for i in range(5_000):
        cache.put(0, {b"busy-%d" % (i % 20): b"%100d" % i})

    assert cache.get(0, [b"quiet"]) == [b"x" * 100]


def test_a_near_cache_without_room_keeps_nothing():
    cache = NearCache(0)
    cache.put(0, {b"card": b"x"})

    assert len(cache) == 0


def test_others_profiles_are_read_beside_the_own_ones_with_how_far_they_are(grid: Grid, store: Store, topic: str):
    others, other = f"{topic}-others", store.connect()
    theirs = claim_of(other, others)
    other.apply(others, [GridWrite(theirs, None, 7, CARDS, PROFILES, folded_until_ms=1_000)])
    mine = written(grid, topic)
    asked = [Lookup(others, 0, [CARDS[1], b"nobody", CARDS[0]]), Lookup(others, 1, [b"nobody"])]

    answer = grid.read(topic, [GridRead(mine, 7, CARDS)], asked)

    assert answer.profiles == [PROFILES]
    assert [(f.profiles, f.folded_until_ms) for f in answer.found] == [
        ([PROFILES[1], None, PROFILES[0]], 1_000),
        ([None], None),
    ]
    assert grid.look_up(asked) == answer.found


def test_how_far_a_fold_is_never_goes_back_and_is_forgotten_with_it(grid: Grid, store: Store, topic: str):
    claim = claim_of(grid, topic)
    asked = [Lookup(topic, 0, CARDS[:1])]
    for expected, target, newest in ((None, 7, 1_000), (7, 8, 400), (8, 9, None)):
        grid.apply(topic, [GridWrite(claim, expected, target, CARDS, PROFILES, newest)])
    assert grid.look_up(asked)[0].folded_until_ms == 1_000

    store.forget_profile(topic, CARDS[0])
    claim_of(store.connect(), topic)

    assert [(f.profiles, f.folded_until_ms) for f in grid.look_up(asked)] == [([None], None)]


def test_a_lookup_that_is_not_answered_in_time_says_so(own_stack, topic: str):
    stack = own_stack()
    grid = RedisGrid(stack.grid_connection, lookup_timeout_s=0.05)
    assert grid.look_up([Lookup(topic, 0, CARDS)])[0].profiles == [None, None]

    redis.Redis.from_url(stack.redis_url).execute_command("CLIENT", "PAUSE", "400")

    with pytest.raises(GridUnavailableError):
        grid.look_up([Lookup(topic, 0, CARDS)])
    time.sleep(0.5)
    assert grid.look_up([Lookup(topic, 0, CARDS)])[0].profiles == [None, None]


def test_whom_the_grid_does_not_serve_is_reported_so_and_others_are_served(store: Store, topic: str):
    served, refused = store.connect(), store.connect_refused()
    claim = claim_of(served, topic)
    calls: list[Callable[[], object]] = [
        refused.check,
        lambda: claim_of(refused, topic),
        lambda: refused.resumed(topic, [0]),
        lambda: read(refused, topic, claim, None),
    ]
    for call in calls:
        with pytest.raises(GridRefusedError):
            call()

    assert read(served, topic, claim, None) == [None] * len(CARDS)
