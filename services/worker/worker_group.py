"""Several workers of one process, which take turns on one thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from services.worker.loop import Worker
from services.worker.turns import run_in_turn


class Runnable(Protocol):
    """What a service runs."""

    def run(self) -> None:
        """Work until :meth:`stop`. Raises DuplicateWorkerError."""
        ...

    def stop(self) -> None:
        """Ask it to end; safe to call from a signal handler."""
        ...


class WorkerGroup:
    """Each worker has a topic of its own; while one waits for a store, the others do too: it is the same store."""

    def __init__(self, workers: Sequence[Worker[Any, Any]]) -> None:
        self._workers = tuple(workers)

    def stop(self) -> None:
        """See :class:`Runnable`."""
        for worker in self._workers:
            worker.stop()

    def run(self) -> None:
        """See :class:`Runnable`."""
        run_in_turn(self._workers)
