"""Those who watch a run while it goes on: what they see must agree with what is there in the end."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from typing import Any

import confluent_kafka
import numpy as np
import redis

from services.checker.evidence import INPUTS, OUTPUTS, Log, Profiles, Sample, Seen, Where, applied_of
from services.checker.verdict import seen_hash
from services.observer.tally import DECISIONS, Tally
from services.runtime.settings import Settings
from services.streams import StreamsError
from services.streams.connection import KafkaConnection
from services.streams.reader import KafkaReader

SAMPLE_EVERY_S = 0.2


class _Watcher(ABC):
    """A thread that looks again and again."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self.failure: Exception | None = None
        """Why it looks no more, though nobody stopped it."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - whatever it is: who concludes must know that nobody looked
                self.failure = error
                return

    @abstractmethod
    def _look(self) -> None:
        """Look once; come back within a second."""

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        self._thread.join(10)


def where_of(settings: Settings) -> Where:
    """Return where the checker is to look."""
    return Where(settings.kafka.admin({}), settings.grid.address, settings.grid.arguments())


class LiveReader(_Watcher):
    """A consumer of committed records: remembers the hash of everything that it saw, and when decisions came."""

    def __init__(self, kafka: KafkaConnection) -> None:
        self._reader = KafkaReader(kafka, OUTPUTS, from_beginning=True)
        self._tally = Tally()
        self.seen: dict[str, dict[tuple[int, int], int]] = {topic: {} for topic in OUTPUTS}
        self.latencies: list[tuple[float, Any]] = []
        super().__init__()

    @property
    def reasons(self) -> Counter[str]:
        """Why records were refused, by reason."""
        return self._tally.dead_letter_reasons

    @property
    def decided(self) -> int:
        """Decisions seen so far."""
        return len(self.seen[DECISIONS])

    def _look(self) -> None:
        try:
            for records in self._reader.read(0.1):
                now_ms, seen = time.time_ns() // 1_000_000, self.seen[records.topic]
                self._tally.add(records, now_ms, time.monotonic())
                if records.topic == DECISIONS:
                    self.latencies.append((time.monotonic(), self._tally.latencies_ms[-1]))
                columns = (records.partition.tolist(), records.offset.tolist(), records.keys, records.values)
                for partition, offset, key, value in zip(*columns, strict=True):
                    seen[partition, offset] = seen_hash(Seen(partition, offset, 0, key, value))
        except StreamsError:
            time.sleep(0.1)

    def latencies_between(self, begin_s: float, end_s: float) -> list[np.ndarray]:
        """Return the latencies, in ms from when a transaction was due, of decisions that came within a time."""
        return [latencies for at_s, latencies in list(self.latencies) if begin_s <= at_s <= end_s]


class Sampler(_Watcher):
    """Looks at applied offset, epoch and committed offset of every partition, five times a second."""

    def __init__(self, where: Where, group_id: str) -> None:
        self._log, self._grid = Log(where, group_id), Profiles(where)
        self._partitions = sorted(self._log.ends(INPUTS, committed=False))
        self.samples: list[Sample] = []
        self._begin_s = time.monotonic()
        super().__init__()

    def now_s(self) -> float:
        """Return the time on the samples' clock."""
        return time.monotonic() - self._begin_s

    def retarget(self, where: Where) -> None:
        """Look at another Redis from now on."""
        self._grid = Profiles(where)

    def _look(self) -> None:
        self._stopped.wait(SAMPLE_EVERY_S)
        at_s = self.now_s()
        try:
            # The grid first: what it holds must be committed already, when Kafka is asked after it.
            metas = {p: self._grid.meta(p) for p in self._partitions}
            # Stable offsets only where it matters: a busy worker always has a commit under way, for which they would wait.
            committed = self._log.committed(self._partitions, stable=False)
            if any((applied_of(meta) or 0) > committed.get(p, 0) for p, meta in metas.items()):
                committed = self._log.committed(self._partitions)
        except (confluent_kafka.KafkaException, redis.exceptions.RedisError, OSError):
            return
        self.samples += [
            Sample(at_s, p, applied_of(meta), int(meta.get(b"epoch", 0)), committed.get(p)) for p, meta in metas.items()
        ]
