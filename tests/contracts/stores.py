"""A grid's store, in memory or in Redis, as several processes are connected to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.grid import Applied, Claim, Grid, GridRead, GridWrite, LogIdentity

HERE = LogIdentity("id", 3, 1)
CARDS, PROFILES = [b"card-1", b"card-\xc3\xa9 {x}*"], [b"\x00\xff" * 10, b"two"]


@dataclass
class Store:
    """A store that several processes are connected to, and what can befall it."""

    connect: Callable[[], Grid]
    forget_meta: Callable[[str], None]
    forget_profile: Callable[[str, bytes], None]
    connect_refused: Callable[[], Grid]
    """Connects as somebody whom the store does not serve."""


def claim_of(grid: Grid, topic: str, partition: int = 0) -> Claim:
    return grid.claim(topic, partition, HERE)


def read(grid: Grid, topic: str, claim: Claim, expected: int | None) -> list[bytes | None]:
    return grid.read(topic, [GridRead(claim, expected, CARDS)]).profiles[0]


def written(grid: Grid, topic: str) -> Claim:
    claim = claim_of(grid, topic)
    assert grid.apply(topic, [GridWrite(claim, None, 7, CARDS, PROFILES)]) == [Applied.APPLIED]
    return claim
