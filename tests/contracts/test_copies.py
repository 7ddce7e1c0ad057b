"""What those who keep copies of others' profiles are given: one suite over the grid in memory and the grid in Redis."""

from __future__ import annotations

import redis

from services.grid import Grid, GridWrite, Lookup
from services.grid.base import CHANGES_MAX
from services.grid.keys import changes_key
from services.grid.redis import RedisGrid
from tests.contracts.stores import CARDS, PROFILES, Store, claim_of


def test_whoever_keeps_a_copy_is_reported_what_changed(grid: Grid, store: Store, topic: str):
    claim = claim_of(grid, topic)
    grid.apply(topic, [GridWrite(claim, None, 7, CARDS, PROFILES, announced=True)])
    reader = store.connect()
    [first] = reader.look_up([Lookup(topic, 0, CARDS)])
    grid.apply(topic, [GridWrite(claim, 7, 8, CARDS[:1], [b"new"], announced=True)])
    grid.apply(topic, [GridWrite(claim, 8, 9, [*CARDS[:1], b"more"], [b"newest", b"!"], announced=True)])

    [then] = reader.look_up([Lookup(topic, 0, [b"more"], first.mark)])
    [later] = reader.look_up([Lookup(topic, 0, [], then.mark)])

    assert (first.profiles, first.changed) == (PROFILES, None)
    assert (then.profiles, then.changed) == ([b"!"], {CARDS[0]: b"newest", b"more": b"!"})
    assert (later.profiles, later.changed) == ([], {})


def test_a_copy_is_of_no_use_after_another_claim_too_many_changes_or_one_that_was_not_announced(
    grid: Grid, store: Store, topic: str
):
    claim, reader = claim_of(grid, topic), store.connect()

    def changed_since(mark):
        return reader.look_up([Lookup(topic, 0, [], mark)])[0].changed

    def mark():
        return reader.look_up([Lookup(topic, 0, [])])[0].mark

    begin = mark()
    names = [b"card-%d" % i for i in range(CHANGES_MAX)]
    grid.apply(topic, [GridWrite(claim, None, 7, names, names, announced=True)])
    assert changed_since(begin) == dict(zip(names, names, strict=True))
    grid.apply(topic, [GridWrite(claim, 7, 8, CARDS, PROFILES, announced=True)])
    assert changed_since(begin) is None
    full = mark()
    assert changed_since(full) == {}
    grid.halt(topic, 0, "somebody looks at it")
    assert changed_since(full) is None
    grid.resume(topic, 0, 0)
    second = claim_of(grid, topic)
    assert changed_since(full) is None
    fresh = mark()
    assert changed_since(fresh) == {}
    grid.apply(topic, [GridWrite(second, 8, 9, CARDS, PROFILES)])
    assert mark() is None
    assert changed_since(fresh) is None


def test_the_loss_of_the_announcements_is_noticed(stack, topic: str):
    grid = RedisGrid(stack.grid_connection)
    claim = claim_of(grid, topic)
    [first] = grid.look_up([Lookup(topic, 0, CARDS)])
    grid.apply(topic, [GridWrite(claim, None, 7, CARDS, PROFILES, announced=True)])
    redis.Redis.from_url(stack.redis_url).delete(changes_key(topic, 0))

    assert grid.look_up([Lookup(topic, 0, [], first.mark)])[0].changed is None
