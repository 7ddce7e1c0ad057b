"""What the benchmark measures: one scorer of a workload on a Kafka and a Redis of its own, and how their processor time is reported."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from services.offline.replay.producer import Pace, TransactionProducer
from services.offline.replay.reference import send_reference
from services.offline.simulator.generate import simulate
from services.offline.simulator.reference import simulate_reference
from services.offline.simulator.traffic import Traffic
from services.registry import process_of
from services.rulebook.book import Rulebook
from services.runtime.children import ChildError, ServiceChild
from services.runtime.clock import SystemClock
from services.runtime.settings import Settings
from services.stack.embedded import EmbeddedStack
from services.stack.kafka import QUICKLY, Compiling
from services.stack.processes import free_port
from services.stack.temporary import temporary_stack
from services.streams.admin import KafkaAdmin
from services.streams.sink import KafkaSink
from tests.benchmarks.costs import some_rules

START_MS: Final = 1_767_225_600_000
TOPIC: Final = "card-transactions"
DRAIN_TIMEOUT_S: Final = 300.0
QUIET_TIMEOUT_S: Final = 30.0
QUIET_CORES: Final = 0.1
RULES: Final = 20


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked of a decision."""

    name: str
    scorer: tuple[str, ...]
    """What starts its scorer, as arguments of ``python -m``."""
    beside: tuple[str, ...]
    """The services that run beside the scorer."""


CORE: Final = Workload("core", ("tests.benchmarks.core_scorer",), ())
"""The card's own profile and the champion alone; see :mod:`tests.benchmarks.core_only`."""
FULL: Final = Workload("full", process_of("scorer"), ("profiler", "reference", "reassessor"))
"""Everything that Proact does."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: a workload, and the settings that its services have."""

    workload: Workload
    settings: Settings

    def of(self, **changes: Any) -> Subject:
        """Return the same with other settings."""
        return replace(self, settings=self.settings.with_values(**changes))

    def on(self, stack: EmbeddedStack) -> Subject:
        """Return the same on a Kafka and a Redis of its own."""
        connected = self.settings.connected_to(stack.kafka_connection, stack.grid_connection)
        return Subject(self.workload, connected).of(log_format="json")


def traffic_of(count: int, cards: int, seed: int) -> Traffic:
    """Return ``count`` transactions of ``cards`` cards. Raises ValueError."""
    days = int(1.2 * count / (1.5 * cards)) + 3
    traffic = simulate(cards, days, seed, START_MS)
    if len(traffic) < count:
        raise ValueError(f"{cards} cards made only {len(traffic)} transactions")
    return traffic.take(np.arange(count))


def cpu_seconds(pid: int | None) -> float:
    """Return the CPU time that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


@dataclass(frozen=True, slots=True)
class BenchSystem:
    """A Kafka and a Redis with the topics, and who works on them."""

    stack: EmbeddedStack
    subject: Subject
    folder: Path

    @property
    def settings(self) -> Settings:
        """The settings of the services."""
        return self.subject.settings

    def of(self, **changes: Any) -> BenchSystem:
        """Return the same for services with other settings."""
        return replace(self, subject=self.subject.of(**changes))

    def child(self, service: str) -> ServiceChild:
        """Return a service to start, on a port of its own; the scorer is that of the workload."""
        own = self.settings.with_values(metrics_port=free_port())
        process = self.subject.workload.scorer if service == "scorer" else process_of(service)
        return ServiceChild(process, own, self.folder / f"{service}.log")

    @contextmanager
    def beside(self, traffic: Traffic) -> Iterator[dict[str, ServiceChild]]:
        """Run what runs beside the scorer of a workload; for ``full`` all accounts and customers of some traffic are known, and rules live."""
        names = self.subject.workload.beside
        with ExitStack() as started:
            children = {name: started.enter_context(self.child(name)) for name in names}
            for child in children.values():
                child.wait_ready(120)
            if names:
                self._make_known(traffic)
            yield children

    def _make_known(self, traffic: Traffic) -> None:
        sink = KafkaSink(self.stack.kafka_connection)
        send_reference(sink, simulate_reference(traffic.columns, traffic.scenario == 0, 4), START_MS)
        sink.flush(60)
        sink.close()
        book = Rulebook(self.stack.kafka_connection, SystemClock())
        book.put_live(book.save(some_rules(RULES, seldom=True), "bench"), "bench")
        for topic in ("accounts", "customers"):
            self.wait_drained(topic, self.settings.reference_group(topic))

    def send(self, traffic: Traffic) -> None:
        """Send traffic as fast as it goes."""
        sink = KafkaSink(self.stack.kafka_connection)
        TransactionProducer(sink, SystemClock()).send(traffic, Pace(None))
        sink.close()

    def wait_quiet(self) -> None:
        """Wait until Kafka has finished what nobody asked it for: what was sent makes Java compile, which takes longer than the sending."""
        before_s, deadline_s = cpu_seconds(self.stack.kafka.pid), time.monotonic() + QUIET_TIMEOUT_S
        while time.monotonic() < deadline_s:
            time.sleep(1.0)
            now_s = cpu_seconds(self.stack.kafka.pid)
            if now_s - before_s < QUIET_CORES:
                return
            before_s = now_s

    def wait_drained(self, topic: str, group: str, each: Callable[[int], None] = lambda _: None) -> None:
        """Wait until a group has worked a topic off; ``each`` is given the lag, some times a second. Raises ChildError."""
        admin, deadline_s = KafkaAdmin(self.stack.kafka_connection), time.monotonic() + DRAIN_TIMEOUT_S
        while (lag := admin.group_lag(topic, group)) != 0:
            each(lag or 0)
            if time.monotonic() > deadline_s:
                raise ChildError(f"{topic} was not worked off within {DRAIN_TIMEOUT_S:.0f} s; lag {lag}")
            time.sleep(0.25)


@contextmanager
def bench_system(subject: Subject, folder: Path, compiling: Compiling = QUICKLY) -> Iterator[BenchSystem]:
    """Start an empty Kafka and Redis; stop them whatever happens. Raises StackError, StreamsError."""
    with temporary_stack(folder, lambda _: None, subject.settings.topic_counts, compiling) as stack:
        own = subject.on(stack)
        yield BenchSystem(stack, own, folder)
