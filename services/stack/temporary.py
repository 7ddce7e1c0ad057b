"""A stack for the length of a command: free ports, a folder of its own, gone afterwards."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from services.stack.embedded import EmbeddedStack
from services.stack.folders import claimed
from services.stack.kafka import QUICKLY, Compiling, EmbeddedKafka
from services.stack.processes import COMMAND, Daemon, free_port
from services.stack.redis import EmbeddedRedis


@contextmanager
def emptied(folder: Path) -> Iterator[None]:
    """Empty a folder for this command alone, for as long as it lasts. Raises StackError when another command uses it."""
    with claimed(folder):
        shutil.rmtree(folder, ignore_errors=True)
        Daemon(COMMAND, folder).note(os.getpid())
        yield


@contextmanager
def temporary_stack(
    folder: Path, progress: Callable[[str], None], counts: Mapping[str, int], compiling: Compiling = QUICKLY
) -> Iterator[EmbeddedStack]:
    """Start an empty Kafka and Redis with the topics; stop them whatever happens. Raises StackError, StreamsError."""
    with emptied(folder):
        kafka_port, redis_port = free_port(), free_port()
        while redis_port == kafka_port:
            redis_port = free_port()
        stack = EmbeddedStack(EmbeddedKafka(folder, kafka_port, compiling=compiling), EmbeddedRedis(folder, redis_port))
        try:
            stack.up(progress)
            stack.apply_topics(counts)
            yield stack
        finally:
            stack.down()
            # The logs stay, for who wants to know what happened; the data are of no more use.
            shutil.rmtree(folder / "kafka" / "data", ignore_errors=True)
            (folder / "redis" / "appendonly.aof").unlink(missing_ok=True)
