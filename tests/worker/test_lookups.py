"""What is looked up of other services, and what is kept of it: against a grid in memory, and a twin that keeps nothing."""

from __future__ import annotations

import numpy as np
import pytest

from services.core.columns import Text
from services.core.kernels import partitions_of
from services.core.packing import NEVER_MS
from services.grid import Claim, Found, GridWrite, LogIdentity
from services.grid.memory import GridMemory, MemoryGrid
from services.worker.lookups import ForeignCache, LookupPlan
from services.worker.processor import LookedUp

TOPIC, PARTITIONS = "others", 3


def look_up(grid: MemoryGrid, keys: list[bytes], foreign_cache: ForeignCache) -> tuple[LookedUp, int]:
    """Return what was found, and how many keys the grid was asked for."""
    plan, asked = LookupPlan({TOPIC: Text.of(keys)}, {TOPIC: PARTITIONS}, foreign_cache), 0
    while lookups := plan.lookups:
        asked += sum(len(lookup.keys) for lookup in lookups)
        plan.take(grid.look_up(lookups))
    return plan.found[TOPIC], asked


class Writer:
    """The owner of all partitions."""

    def __init__(self, memory: GridMemory, announced: bool = True) -> None:
        self.grid, self.announced = MemoryGrid(memory, "writer"), announced
        self.at = dict.fromkeys(range(PARTITIONS), 0)
        self.claim()

    def claim(self) -> None:
        self.claims: list[Claim] = [
            self.grid.claim(TOPIC, p, LogIdentity("id", PARTITIONS, 1)) for p in range(PARTITIONS)
        ]

    def write(self, key: bytes, profile: bytes) -> None:
        partition = int(partitions_of(Text.of([key]), PARTITIONS)[0])
        at, self.at[partition] = self.at[partition], self.at[partition] + 1
        claim = self.claims[partition]
        write = GridWrite(claim, at or None, at + 1, [key], [profile], at, self.announced)
        assert self.grid.apply(TOPIC, [write])[0].value == "applied"


def test_lookups_are_sorted_into_partitions_and_their_answers_back():
    keys = Text.of([b"terminal-%d" % i for i in range(50)])
    plan = LookupPlan({"some": keys}, {"some": 4}, ForeignCache(0))

    found = [
        Found([b"of " + key for key in lookup.keys], None if lookup.partition == 1 else lookup.partition)
        for lookup in plan.lookups
    ]
    plan.take(found)
    answer = plan.found["some"]

    assert answer.profiles == [b"of terminal-%d" % i for i in range(50)]
    home = partitions_of(keys, 4)
    assert answer.folded_until_ms.tolist() == [NEVER_MS if p == 1 else p for p in home.tolist()]
    assert LookupPlan({}, {}, ForeignCache(0)).found == {}


def test_what_was_read_is_not_read_again_until_it_changes():
    memory = GridMemory()
    writer, reader, foreign_cache = Writer(memory), MemoryGrid(memory, "reader"), ForeignCache(1_000_000)
    keys = [b"a", b"b", b"c", b"nobody"]
    for key in keys[:3]:
        writer.write(key, b"1")

    assert look_up(reader, keys, foreign_cache)[1] == 4
    found, asked = look_up(reader, keys, foreign_cache)
    assert (found.profiles, asked) == ([b"1", b"1", b"1", None], 0)
    writer.write(b"b", b"2")
    writer.write(b"nobody", b"somebody")
    found, asked = look_up(reader, keys, foreign_cache)
    assert (found.profiles, asked) == ([b"1", b"2", b"1", b"somebody"], 0)


def test_nothing_is_kept_of_what_is_not_announced():
    memory = GridMemory()
    writer, reader, foreign_cache = (
        Writer(memory, announced=False),
        MemoryGrid(memory, "reader"),
        ForeignCache(1_000_000),
    )
    look_up(reader, [b"a"], foreign_cache)
    writer.write(b"a", b"1")

    assert look_up(reader, [b"a"], foreign_cache)[0].profiles == [b"1"]
    writer.write(b"a", b"2")
    assert look_up(reader, [b"a"], foreign_cache)[0].profiles == [b"2"]
    assert len(foreign_cache) == 0


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("bytes_max", [0, 3_000, 1_000_000])
def test_copies_are_what_the_grid_says_whatever_happens(seed: int, bytes_max: int):
    rng, memory = np.random.default_rng(seed), GridMemory()
    writer, reader, foreign_cache = Writer(memory), MemoryGrid(memory, "reader"), ForeignCache(bytes_max)
    names = [b"key-%d" % i for i in range(20)]
    for turn in range(300):
        what = rng.random()
        if what < 0.5:
            wanted = [names[i] for i in rng.permutation(20)[: rng.integers(1, 8)]]
            found = look_up(reader, wanted, foreign_cache)[0]
            plain = look_up(reader, wanted, ForeignCache(0))[0]
            assert found.profiles == plain.profiles
            assert found.folded_until_ms.tolist() == plain.folded_until_ms.tolist()
        elif what < 0.97:
            writer.write(names[rng.integers(20)], b"" if rng.random() < 0.1 else b"%d" % turn)
        elif what < 0.98:
            writer.claim()
        elif what < 0.99:
            writer.announced = not writer.announced
        else:
            for _ in range(1_200):
                writer.write(names[rng.integers(20)], b"%d" % turn)
