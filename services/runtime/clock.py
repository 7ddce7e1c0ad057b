"""The one place that reads clocks; everything else is given the time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Wall-clock time for stamps, monotonic time for durations."""

    def now_ms(self) -> int:
        """Return UTC epoch milliseconds."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds that never go back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """See :class:`Clock`."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """See :class:`Clock`."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See :class:`Clock`."""
        time.sleep(seconds)


@dataclass(slots=True)
class ManualClock:
    """A clock that tests move."""

    at_ms: int = 0

    def now_ms(self) -> int:
        """See :class:`Clock`."""
        return self.at_ms

    def monotonic_s(self) -> float:
        """See :class:`Clock`."""
        return self.at_ms / 1000.0

    def sleep(self, seconds: float) -> None:
        """See :class:`Clock`."""
        self.at_ms += int(seconds * 1000)
