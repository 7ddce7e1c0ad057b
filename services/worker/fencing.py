"""A worker that is fenced again and again has a double."""

from __future__ import annotations

from typing import Final

from services.runtime.clock import Clock

FENCED_MAX: Final = 3
FENCED_WITHIN_S: Final = 30.0
"""A worker that is fenced so often has a double: being taken for dead happens once."""


class DuplicateWorkerError(Exception):
    """Another process works under this worker's name."""


class FencingMonitor:
    """Counts how often one worker was fenced lately."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at_s: list[float] = []

    def note(self, error: Exception) -> None:
        """Note that it was. Raises DuplicateWorkerError when that is too often."""
        now_s = self._clock.monotonic_s()
        self._at_s = [at for at in self._at_s if at > now_s - FENCED_WITHIN_S] + [now_s]
        if len(self._at_s) >= FENCED_MAX:
            raise DuplicateWorkerError(f"another process uses this worker's transactional id: {error}") from error
