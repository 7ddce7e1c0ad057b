"""Workers of one process take turns on one thread."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Protocol


class TurnTaker(Protocol):
    """A worker as far as its turns go; see :class:`services.worker.loop.Worker`."""

    @property
    def stopping(self) -> bool:
        """Whether it was asked to end."""
        ...

    def open(self) -> None:
        """Begin."""
        ...

    had_records: bool
    """Whether records came in its last turn."""

    def turn(self, *, patient: bool = True) -> None:
        """Do what there is to do, without waiting for long, or at all if it is not patient. May raise DuplicateWorkerError."""
        ...

    def release(self) -> None:
        """Give everything back in good order."""
        ...

    def crash(self) -> None:
        """Give nothing back from now on."""
        ...

    def close(self) -> None:
        """Release what was held."""
        ...


def run_in_turn(workers: Sequence[TurnTaker]) -> None:
    """Let workers take turns on this thread until one is asked to end, then give everything back. Raises DuplicateWorkerError."""
    with ExitStack() as ending:
        for worker in workers:
            ending.callback(worker.close)
            worker.open()
        try:
            patient = True
            while not any(worker.stopping for worker in workers):
                for worker in workers:
                    worker.turn(patient=patient)
                # Nobody waits for records of one topic while those of another one come.
                patient = len(workers) == 1 or not any(worker.had_records for worker in workers)
        except BaseException:
            for worker in workers:
                worker.crash()
            raise
        for worker in workers:
            worker.release()
