"""Which producer an atomic commit is made by, and when one is made anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from services.runtime.clock import ManualClock
from services.streams import Output, StreamsError
from services.streams.atomic import CLEAN_WITHIN_S, AtomicPublisher

OUTPUTS = [Output("out", [b"key"], [b"value"])]


@dataclass
class Story:
    """What producers were made and asked to do, in order, and what goes wrong with the next commits."""

    clock: ManualClock = field(default_factory=lambda: ManualClock(0))
    calls: list[str] = field(default_factory=list)
    slow: bool = False
    failing: bool = False

    def publisher(self) -> AtomicPublisher:
        publisher = AtomicPublisher("name", lambda name: Producer(self, name), lambda: None, self.clock.monotonic_s)
        publisher.open()
        return publisher


@dataclass
class Producer:
    story: Story
    name: str

    def __post_init__(self) -> None:
        self.story.calls.append(f"make {self.name}")

    def begin(self) -> None: ...

    def add_offsets(self, offsets: Mapping[int, int], member: Any) -> None: ...

    def queue(self, output: Output) -> None: ...

    def flush(self) -> None: ...

    def commit(self) -> None:
        if self.story.failing:
            raise StreamsError("in doubt")
        if self.story.slow:
            self.story.clock.sleep(2 * CLEAN_WITHIN_S)
        self.story.calls.append(f"commit {self.name}")

    def troubled(self) -> bool:
        return False

    def close(self) -> None:
        self.story.calls.append(f"close {self.name}")


def commit(publisher: AtomicPublisher, offset: int) -> None:
    publication = publisher.publish(OUTPUTS, {0: offset})
    assert publication is not None
    publication()


def test_two_producers_are_made_before_anything_is_read_and_take_turns():
    story = Story()
    publisher = story.publisher()

    assert story.calls == ["make name", "make name-2"]
    for offset in range(3):
        commit(publisher, offset)
    assert story.calls[2:] == ["commit name", "commit name-2", "commit name"]


def test_a_producer_whose_commit_was_slow_is_made_anew_before_anything_else_is_committed():
    story = Story()
    publisher, story.slow = story.publisher(), True
    commit(publisher, 1)
    story.slow = False
    commit(publisher, 2)
    commit(publisher, 3)

    assert story.calls[2:] == [
        "commit name", "close name", "make name", "commit name-2", "commit name",
    ]  # fmt: skip


def test_a_commit_in_doubt_costs_both_producers_which_are_made_anew_with_the_next_beginning():
    story = Story()
    publisher, story.failing = story.publisher(), True
    with pytest.raises(StreamsError):
        commit(publisher, 1)
    story.failing = False
    publisher.open()

    assert story.calls[2:] == ["close name", "close name-2", "make name", "make name-2"]
    commit(publisher, 1)
    assert story.calls[6:] == ["commit name-2"]
