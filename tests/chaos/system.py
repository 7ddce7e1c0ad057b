"""The system under attack: Kafka, Redis, victims behind proxies, a load, and those who watch it all the while."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Any, Final

import numpy as np

from services.core.policy import Action
from services.core.rules.rule_set import Mode, Rule, RuleSet
from services.grid.connection import GridConnection
from services.offline.replay.producer import TransactionProducer
from services.offline.replay.reference import send_reference
from services.offline.simulator.reference import SimulatedReference
from services.registry import BY_NAME, LOGS, group_of
from services.rulebook.book import Rulebook
from services.runtime.children import ServiceChild
from services.runtime.clock import SystemClock
from services.runtime.settings import Settings
from services.stack.embedded import EmbeddedStack
from services.stack.kafka import EmbeddedKafka
from services.stack.processes import free_port
from services.stack.redis import EmbeddedRedis
from services.stack.temporary import emptied
from services.streams.admin import KafkaAdmin
from services.streams.connection import KafkaConnection
from services.streams.sink import KafkaSink
from services.subprocesses import start_tied
from tests.chaos.errors import PATIENCE_S, ChaosError
from tests.chaos.load import Load
from tests.chaos.watchers import LiveReader, Sampler, where_of

TOPIC: Final = "card-transactions"
RESTART_AFTER_S: Final = 0.5
WORKERS: Final = 3
HELPERS: Final = tuple(name for name in BY_NAME if name != "scorer")
RULES: Final = (
    Rule(
        "large-at-night",
        "transaction.amount > 400 && transaction.is_night == 1",
        Action.REVIEW,
        reason="large, at night",
    ),
    Rule("small", "transaction.amount < 2 && score < 0.01", Action.APPROVE, priority=5),
    Rule("in-the-shadow", "card.count_1h > 3", Action.BLOCK, mode=Mode.SHADOW),
)
"""What is live in every worker under attack."""


class ProxyProcess:
    """The proxy's process, and its orders."""

    def __init__(self, log: Path) -> None:
        self._process = start_tied(
            [sys.executable, "-m", "tests.chaos.proxy"], stdin=PIPE, stdout=PIPE,
            stderr=log.open("ab"), text=True, start_new_session=True,
        )  # fmt: skip
        self._lock = threading.Lock()

    def order(self, order: str, **arguments: Any) -> Any:
        """Give an order and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps({"order": order, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise ChaosError("the proxy has ended")
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


@dataclass(slots=True)
class Victim:
    """One worker's slot: its process is started again whenever it ends, as long as it is wanted."""

    number: int
    child: ServiceChild
    folder: Path
    wanted: bool = True
    deaths: int = 0
    died_at_s: float | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        return self.child.process.pid

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it still runs."""
        if self.child.process.poll() is None:
            os.kill(self.pid, number)

    def order(self, point: str, what: str) -> None:
        """Leave an order at a point."""
        (self.folder / f".{point}").write_text(what)
        (self.folder / f".{point}").rename(self.folder / point)

    def reached(self, point: str, timeout_s: float) -> bool:
        """Wait until an order was found; take it back if it was not."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            if not (self.folder / point).exists():
                return True
            time.sleep(0.01)
        (self.folder / point).unlink(missing_ok=True)
        return False


class ChaosSystem:
    """Everything of one round."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.folder, self._settings = folder, settings.with_values(lake_url=str((folder / "lake").absolute()))
        doors = [(free_port(), free_port()) for _ in range(WORKERS + len(HELPERS))]
        self.redis_doors = [free_port() for _ in doors]
        self.redis_port = free_port()
        self.stack = EmbeddedStack(EmbeddedKafka(folder, free_port(), doors), EmbeddedRedis(folder, self.redis_port))
        self._doors = doors
        self.victims: list[Victim] = []
        """The scorers."""
        self.helpers: list[Victim] = []
        """The other services."""
        self._watch: threading.Thread | None = None
        self._ended = threading.Event()
        self.settings = self._settings.connected_to(self.stack.kafka_connection, self.stack.grid_connection)
        self.admin = KafkaAdmin(self.stack.kafka_connection)
        self.extra_redis: list[Any] = []
        self.capacity = 0.0
        self.rng = np.random.default_rng(0)
        self.set_backs: list[float] = []

    def up(self, progress: Callable[[str], None]) -> None:
        """Start everything, and wait until all partitions are owned."""
        self.stack.up(progress)
        self.stack.apply_topics(self._settings.topic_counts)
        self.proxy = ProxyProcess(self.folder / "proxy.log")
        for i, (upstream, port) in enumerate(self._doors):
            self.proxy.order("link", name=f"kafka-{i}", port=port, upstream=upstream, kafka=True)
            self.proxy.order("link", name=f"redis-{i}", port=self.redis_doors[i], upstream=self.redis_port, kafka=False)
            if i < WORKERS:
                self.victims.append(self._victim(i, "scorer"))
            else:
                self.helpers.append(self._victim(i, HELPERS[i - WORKERS]))
        for victim in self.everybody:
            victim.child.start()
        self._watch = threading.Thread(target=self._supervise, daemon=True)
        self._watch.start()
        sink = KafkaSink(self.stack.kafka_connection)
        self.load = Load(sink, TransactionProducer(sink, SystemClock()))
        if self.owned_within(PATIENCE_S) is None:
            raise ChaosError(f"the workers do not become ready: see {self.folder}")
        book = Rulebook(self.stack.kafka_connection, SystemClock())
        book.put_live(book.save(RuleSet(RULES), "chaos"), "chaos")
        self.live = LiveReader(self.stack.kafka_connection)
        self.sampler = Sampler(where_of(self.settings), self._settings.group_id)

    @property
    def everybody(self) -> list[Victim]:
        """All workers of all services."""
        return [*self.victims, *self.helpers]

    def _victim(self, i: int, service: str) -> Victim:
        kafka = KafkaConnection(f"127.0.0.1:{self._doors[i][1]}")
        grid = GridConnection.of(f"redis://127.0.0.1:{self.redis_doors[i]}/0")
        own = self._settings.connected_to(kafka, grid).with_values(metrics_port=free_port(), log_format="json")
        folder = self.folder / f"victim-{i}"
        folder.mkdir(parents=True, exist_ok=True)
        environment = {
            "PROACT_CHAOS_FOLDER": str(folder.absolute()),
            "PROACT_TRANSACTIONAL_ID": f"victim-{i}",
            "PROACT_CHAOS_SERVICE": service,
        }
        child = ServiceChild(["tests.chaos.victim"], own, self.folder / f"victim-{i}.log", environment)
        return Victim(i, child, folder)

    def _supervise(self) -> None:
        while not self._ended.wait(0.05):
            for victim in self.everybody:
                if victim.child.process.poll() is None or not victim.wanted:
                    continue
                now_s = time.monotonic()
                if victim.died_at_s is None:
                    victim.died_at_s, victim.deaths = now_s, victim.deaths + 1
                elif now_s - victim.died_at_s > RESTART_AFTER_S:
                    victim.died_at_s = None
                    victim.child.start()

    def owned_within(self, timeout_s: float, victims: list[Victim] | None = None) -> float | None:
        """Wait until these victims, or all, are ready and own every partition; return the seconds, None when they do not."""
        begin_s, wanted = time.monotonic(), victims or self.victims
        while time.monotonic() - begin_s < timeout_s:
            healths = [victim.child.health() or {} for victim in wanted]
            owned = [p for health in healths for p in health.get("partitions", [])]
            ready = [*healths, *(helper.child.health() or {} for helper in self.helpers)]
            if sorted(owned) == list(range(self._settings.partitions)) and all(h.get("status") == 200 for h in ready):
                return time.monotonic() - begin_s
            time.sleep(0.05)
        return None

    def drained_within(self, timeout_s: float, left: int = 0) -> float | None:
        """Wait until all is committed but for what an even load has just brought; return the seconds, None when it is not."""
        begin_s = time.monotonic()
        while time.monotonic() - begin_s < timeout_s:
            if all(lag is not None and lag <= left for lag in self.lags()):
                return time.monotonic() - begin_s
            time.sleep(0.1)
        return None

    def lags(self) -> list[int | None]:
        """Return how many records wait for each service; None where Kafka does not tell."""
        return [self.admin.group_lag(log.topic, group_of(self._settings, name)) for name, log in LOGS.items()]

    def announce(self, people: SimulatedReference) -> None:
        """Send what the bank knows of some people."""
        sink = KafkaSink(self.stack.kafka_connection)
        send_reference(sink, people, SystemClock().now_ms())
        sink.flush(60)
        sink.close()

    def any_victim(self) -> Victim:
        """Return one of the workers."""
        return self.victims[int(self.rng.integers(0, len(self.victims)))]

    def set_back(self) -> None:
        """Note that the grid is emptied or set back now: its offsets may go back."""
        self.set_backs.append(self.sampler.now_s())

    def use_redis(self, port: int) -> None:
        """Lead everybody to another Redis, which is the grid from now on."""
        self.redis_port = port
        url = f"redis://127.0.0.1:{port}/0"
        for i in range(len(self.everybody)):
            self.proxy.order("retarget", name=f"redis-{i}", upstream=port)
        self.settings = self.settings.with_values(redis_url=url)
        self.sampler.retarget(where_of(self.settings))
        self.stack.redis = self.extra_redis[-1]

    def heal(self) -> None:
        """End whatever a fault that failed has left behind."""
        for i, victim in enumerate(self.everybody):
            self.proxy.order("heal", name=f"kafka-{i}")
            self.proxy.order("heal", name=f"redis-{i}")
            victim.signal(signal.SIGCONT)
            victim.wanted = True
        for pid in (self.stack.kafka.pid, self.stack.redis.pid):
            if pid is not None:
                os.kill(pid, signal.SIGCONT)
        self.stack.redis.up(lambda _: None)
        self.stack.kafka.up(lambda _: None)
        self.owned_within(30)

    def stop_victims(self) -> None:
        """Stop all workers in good order."""
        for victim in self.everybody:
            victim.wanted = False
            victim.signal(signal.SIGCONT)
            victim.child.process.terminate()
        for victim in self.everybody:
            victim.child.stop(15)

    def down(self) -> None:
        """Stop everything, whatever its state."""
        self._ended.set()
        for watcher in (getattr(self, "live", None), getattr(self, "sampler", None)):
            if watcher is not None:
                watcher.stop()
        for victim in self.everybody:
            victim.wanted = False
            try:
                victim.signal(signal.SIGCONT)
                victim.child.process.kill()
                victim.child.process.wait()
            except AssertionError:
                continue  # never started
        for pid in (self.stack.kafka.pid, self.stack.redis.pid):
            if pid is not None:
                os.kill(pid, signal.SIGCONT)
        if hasattr(self, "proxy"):
            self.proxy.close()
        for extra in self.extra_redis:
            extra.down()
        self.stack.down()
        shutil.rmtree(self.folder / "kafka" / "data", ignore_errors=True)


@contextmanager
def running(settings: Settings, folder: Path, progress: Callable[[str], None]) -> Iterator[ChaosSystem]:
    """Run a system for the length of a with block."""
    with emptied(folder):
        system = ChaosSystem(settings, folder)
        try:
            system.up(progress)
            yield system
        finally:
            system.down()


def percentile(values: list[Any], share: float) -> float | None:
    """Return a percentile of joined arrays, None where there is nothing."""
    joined = np.concatenate(values) if values else np.empty(0)
    return round(float(np.percentile(joined, share)), 1) if len(joined) else None
