"""What a system under attack can do: the highest even rate at which all of its services keep up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from services.offline.replay.producer import Pace
from services.offline.simulator.traffic import Traffic
from tests.chaos.errors import ChaosError
from tests.chaos.system import ChaosSystem

CAPACITY_FIRST_PER_S: Final = 3_000.0
CAPACITY_STEP: Final = 1.25
CAPACITY_WARM_UP: Final = 2
CAPACITY_TRIES: Final = 3
CAPACITY_LEAST_PER_S: Final = 100.0
CAPACITY_MOST_PER_S: Final = 12_500.0
"""Where the search ends: of a higher load's transactions, which are judged one by one, a round takes longer to judge than to run."""
CAPACITY_LAG_S: Final = 0.3
"""Whoever is further behind an even load does not keep up with it."""


def measure_capacity(system: ChaosSystem, load: Callable[[float], Traffic]) -> float:
    """Return the highest even rate, to ``CAPACITY_MOST_PER_S``, at which all services keep up, with all who watch and break beside them.

    A backlog is worked off faster, in larger batches; but what is decided while it comes is what a load is a share of.
    The first steps are not judged: what is cold is slow, and would be taken for what the machine can do.

    Args:
        system: that runs.
        load: returns transactions for one step at a rate.
    """
    rate = CAPACITY_FIRST_PER_S
    for _ in range(CAPACITY_WARM_UP):
        _keeps_up(system, load(rate), rate)
    higher = _keeps_up_of(system, load, rate)
    while rate > CAPACITY_LEAST_PER_S:
        following = min(rate * CAPACITY_STEP, CAPACITY_MOST_PER_S) if higher else rate / CAPACITY_STEP
        if _keeps_up_of(system, load, following) != higher:
            return min(rate, following)
        rate = following
        if rate == CAPACITY_MOST_PER_S:
            return rate
    raise ChaosError(f"the workers do not keep up with {rate:.0f} transactions a second")


def _keeps_up(system: ChaosSystem, step: Traffic, rate: float) -> bool:
    """Send transactions at an even rate, and return whether nobody is behind at their end. Raises ChaosError."""
    system.load.producer.send(step, Pace.at_rate(len(step), rate), flush_s=120)
    lags = system.lags()
    if system.drained_within(60) is None:
        raise ChaosError("the capacity could not be measured")
    return bool(lags) and all(lag is not None and lag <= CAPACITY_LAG_S * rate for lag in lags)


def _keeps_up_of(system: ChaosSystem, load: Callable[[float], Traffic], rate: float) -> bool:
    """Return whether all keep up in any of some tries: another user of the machine spoils one."""
    return any(_keeps_up(system, load(rate), rate) for _ in range(CAPACITY_TRIES))
