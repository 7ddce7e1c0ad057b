"""Where tasks run that have nothing in common: one after the other here, or beside each other on a Dask cluster."""

from __future__ import annotations

import ctypes
import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pyarrow as pa

from services.offline.code_revision import code_revision

CONNECT_TIMEOUT_S: Final = 10
ANSWER_TIMEOUT_S: Final = 60
"""How long workers may take to say which code they have and what they see: the first import of a new one takes seconds."""


class ClusterError(ValueError):
    """A cluster is not there, or cannot do the work: said in one line."""


def run_and_tidy(function: Callable[..., Any], *task: Any) -> Any:
    """Run a task, and give the memory back that it took: allocators keep what was freed, each its own, and tasks use several of them."""
    try:
        return function(*task)
    finally:
        gc.collect()
        pa.default_memory_pool().release_unused()
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's
            trim(0)


class TaskRunner(ABC):
    """Runs a function on many arguments; the results come in the order of these."""

    @abstractmethod
    def run(self, what: str, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run a function of a module once for each tuple of arguments.

        Args:
            what: what is done, for people.
            function: it may run in another process, and twice where a worker dies; what it writes it writes whole, and the same each time.
            tasks: arguments and results are small: what is large lies in files.

        Raises:
            ClusterError: the cluster is gone.
            Exception: what the function raised.
        """


class InThisProcess(TaskRunner):
    """One task after the other: memory for one of them is enough."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self._progress = progress

    def run(self, what: str, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See :class:`TaskRunner`."""
        found = []
        for i, task in enumerate(tasks, 1):
            found.append(run_and_tidy(function, *task))
            self._progress(f"{what}: {i} of {len(tasks)}")
        return found


class OnDask(TaskRunner):
    """Each task on some worker of a cluster. A worker that is lost has its tasks done again by others."""

    def __init__(self, client: Any, progress: Callable[[str], None]) -> None:
        """Take a connected ``distributed.Client``."""
        self.client = client
        self._progress = progress

    @property
    def worker_count(self) -> int:
        """How many workers there are now."""
        return len(self.client.scheduler_info(n_workers=-1)["workers"])

    def run(self, what: str, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See :class:`TaskRunner`."""
        from distributed import as_completed  # noqa: PLC0415 - of an extra
        from distributed.client import FutureCancelledError  # noqa: PLC0415
        from distributed.scheduler import KilledWorker  # noqa: PLC0415

        # A task writes files, so that an equal one of before must not stand for it.
        futures = [self.client.submit(run_and_tidy, function, *task, pure=False) for task in tasks]
        try:
            for i, _ in enumerate(as_completed(futures, loop=self.client.loop, raise_errors=False), 1):
                self._progress(f"{what}: {i} of {len(tasks)}")
            return self.client.gather(futures)
        except KilledWorker as error:
            raise ClusterError(f"{what}: workers died of it, for want of memory perhaps: {error}") from None
        except (OSError, FutureCancelledError) as error:
            raise ClusterError(f"{what}: the cluster is gone: {error}") from None
        finally:
            self.client.cancel(futures)


@contextmanager
def connected(address: str, folder: Path, progress: Callable[[str], None]) -> Iterator[OnDask]:
    """Connect to a Dask cluster whose workers have this code and see a folder.

    Args:
        address: of its scheduler, such as ``tcp://10.0.0.7:8786``.
        folder: it is there, and every worker has to see what is written into it.
        progress: takes what to tell people.

    Raises:
        ClusterError: there is no such cluster.
        ModuleNotFoundError: Dask is not installed.
    """
    from distributed import Client  # noqa: PLC0415 - of an extra

    try:
        client = Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ClusterError(f"no Dask scheduler answers at {address}: {said}") from None
    try:
        runner = OnDask(client, progress)
        _check_workers(client, address, folder)
        progress(f"{runner.worker_count} Dask workers at {address}")
        yield runner
    finally:
        client.close()


def _check_workers(client: Any, address: str, folder: Path) -> None:
    """See that there are workers, that they run this very code, and that they see the folder. Raises ClusterError."""
    if not client.scheduler_info(n_workers=-1)["workers"]:
        raise ClusterError(f"the Dask scheduler at {address} has no workers: start some with `dask worker {address}`")
    mark = folder / f".seen-{uuid4().hex}"
    mark.touch()
    try:
        seen = client.run(_seen, str(mark))
    except Exception as error:  # noqa: BLE001 - whatever a worker raises that has other code
        raise ClusterError(f"the workers cannot run proact, install the same version there: {error}") from None
    finally:
        mark.unlink()
    for worker, (revision, sees) in sorted(seen.items()):
        if revision != code_revision():
            raise ClusterError(f"worker {worker} runs {revision}, not {code_revision()}: results would not be equal")
        if not sees:
            raise ClusterError(f"worker {worker} does not see {folder}: it must be a folder that all of them share")


def _seen(mark: str) -> tuple[str, bool]:
    return code_revision(), Path(mark).exists()
