"""What the demo and the measurements share: a stack, a scorer and an independent observer, for the length of a command."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.observer.tally import DEAD_LETTERS, DECISIONS, OUTPUTS, Tally
from services.registry import BY_NAME, process_of
from services.runtime.children import ServiceChild
from services.runtime.settings import Settings
from services.stack.processes import free_port
from services.stack.temporary import temporary_stack
from services.streams.admin import KafkaAdmin
from services.streams.reader import KafkaReader

START_S: Final = 180.0
"""How long each may take to be ready: all of them start at once, and some machines compile their kernels first."""


@dataclass(slots=True)
class Session:
    """A running system and what is seen of it."""

    settings: Settings
    children: dict[str, ServiceChild]
    """The running services by name."""
    reader: KafkaReader
    tally: Tally
    admin: KafkaAdmin

    def observe(self, timeout_s: float = 0.02) -> None:
        """Take what has come out by now."""
        for records in self.reader.read(timeout_s):
            self.tally.add(records, time.time_ns() // 1_000_000, time.monotonic())

    @property
    def answered(self) -> int:
        """Decisions and dead letters seen so far."""
        return self.tally.records[DECISIONS] + self.tally.records[DEAD_LETTERS]

    def observe_until(self, answered: int, timeout_s: float, each: Callable[[], None] = lambda: None) -> bool:
        """Observe until so many records are answered; whether they were before the time was over."""
        deadline_s = time.monotonic() + timeout_s
        while self.answered < answered and time.monotonic() < deadline_s:
            self.observe()
            each()
        return self.answered >= answered


@contextmanager
def running_session(
    settings: Settings, folder: Path, progress: Callable[[str], None], *, keep_ids: bool = True
) -> Iterator[Session]:
    """Start everything on free ports; stop everything whatever happens. Raises StackError, StreamsError, ChildError."""
    with temporary_stack(folder, progress, settings.topic_counts) as stack:
        lake = str((folder / "lake").absolute())  # what is shown leaves nothing behind
        own = settings.connected_to(stack.kafka_connection, stack.grid_connection).with_values(
            log_format="json", lake_url=lake
        )
        progress(f"starting {', '.join(BY_NAME)}: model, kernels, partitions")
        with ExitStack() as started:
            children = {
                name: started.enter_context(
                    ServiceChild(process_of(name), own.with_values(metrics_port=free_port()), folder / f"{name}.log")
                )
                for name in BY_NAME
            }
            for child in children.values():
                child.wait_ready(START_S)
            reader = KafkaReader(stack.kafka_connection, OUTPUTS, from_beginning=False)
            try:
                yield Session(own, children, reader, Tally(keep_ids=keep_ids), KafkaAdmin(stack.kafka_connection))
            finally:
                reader.close()
