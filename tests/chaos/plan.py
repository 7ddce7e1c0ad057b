"""The fault plan: what a fault is, and what all of them share.

A fault gets the system, hurts, heals, and returns what it measured; it raises NotFiredError when what it was to hit was not hit,
since such a run proves nothing.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.chaos.errors import PATIENCE_S, ChaosError
from tests.chaos.system import ChaosSystem, Victim

Measured = dict[str, Any]
TAKE_OVER_S: Final = 30.0


class NotFiredError(ChaosError):
    """A fault did not come to pass."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the plan."""

    name: str
    title: str
    make: Callable[[ChaosSystem], Measured]


FAULTS: Final[dict[str, Fault]] = {}


def fault(name: str, title: str) -> Callable[[Callable[..., Measured]], Callable[..., Measured]]:
    """Enter a fault into the plan."""

    def enter(make: Callable[..., Measured]) -> Callable[..., Measured]:
        FAULTS[name] = Fault(name, title, make)
        return make

    return enter


def taken_over(system: ChaosSystem) -> float:
    """Wait until all workers are ready and own everything; return the seconds. Raises ChaosError."""
    took_s = system.owned_within(TAKE_OVER_S)
    if took_s is None:
        raise ChaosError(f"the partitions were not taken over within {TAKE_OVER_S:.0f} s")
    return round(took_s, 2)


def restart_with(system: ChaosSystem, victim: Victim, **environment: str) -> None:
    """Start a worker again with other environment variables; wait until all partitions are owned. Raises ChaosError."""
    victim.child.environment.update(environment)
    victim.signal(signal.SIGTERM)
    victim.child.process.wait(10)
    time.sleep(0.1)
    if system.owned_within(PATIENCE_S) is None:  # how long a process takes to start is not what is measured
        raise ChaosError("a worker that was started again did not become ready")


def at_point(victim: Victim, point: str, order: str, timeout_s: float = 15.0) -> None:
    """Leave an order at a point of a worker, and wait until it is found. Raises NotFiredError."""
    victim.order(point, order)
    if not victim.reached(point, timeout_s):
        raise NotFiredError(f"worker {victim.number} did not come to {point}")


def freeze(pid: int | None, seconds: float) -> None:
    """Stop a process of ours for a while."""
    if pid is None:
        raise NotFiredError("what was to be frozen does not run")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(pid, signal.SIGCONT)


def hit(hits: int, what: str) -> int:
    """Return how often something was hit. Raises NotFiredError when it was not."""
    if not hits:
        raise NotFiredError(f"nothing was hit: {what}")
    return hits


def wait_for_progress(system: ChaosSystem, timeout_s: float) -> None:
    """Wait until new decisions come."""
    before, until_s = system.live.decided, time.monotonic() + timeout_s
    while system.live.decided <= before:
        if time.monotonic() > until_s:
            raise ChaosError(f"nothing was decided within {timeout_s:.0f} s")
        time.sleep(0.05)
