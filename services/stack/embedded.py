"""Both parts of the embedded stack as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.grid.connection import GridConnection
from services.stack.kafka import QUICKLY, Compiling, EmbeddedKafka
from services.stack.redis import EmbeddedRedis
from services.streams.admin import KafkaAdmin
from services.streams.connection import KafkaConnection
from services.topology import topic_plans


class EmbeddedStack:
    """A Kafka and a Redis whose data lie in one folder; ``outlives``: they go on when the process has ended that started them."""

    def __init__(
        self,
        folder: Path,
        kafka_port: int,
        redis_port: int,
        kafka_doors: Sequence[tuple[int, int]] = (),
        compiling: Compiling = QUICKLY,
        *,
        outlives: bool = False,
    ) -> None:
        self.kafka = EmbeddedKafka(folder, kafka_port, kafka_doors, compiling, outlives=outlives)
        self.redis = EmbeddedRedis(folder, redis_port, outlives=outlives)
        self.kafka_address = f"127.0.0.1:{kafka_port}"
        self.redis_url = f"redis://127.0.0.1:{redis_port}/0"
        self.kafka_connection, self.grid_connection = (
            KafkaConnection(self.kafka_address),
            GridConnection.of(self.redis_url),
        )

    def up(self, progress: Callable[[str], None], timeout_s: float = 60.0) -> None:
        """Start what does not run and wait until both answer; when that fails, what was started for it is stopped. Raises StackError."""
        with self._undone_if_it_fails():
            for part in (self.redis, self.kafka):
                part.refuse_taken_port()
            self.redis.up(progress, timeout_s)
            self.kafka.up(progress, timeout_s)

    def up_with_topics(
        self, progress: Callable[[str], None], counts: Mapping[str, int], timeout_s: float = 60.0
    ) -> None:
        """Do that, and create the topics as :meth:`apply_topics` does; all of it or nothing. Raises StackError, StreamsError."""
        with self._undone_if_it_fails():
            self.up(progress, timeout_s)
            self.apply_topics(counts)

    @contextmanager
    def _undone_if_it_fails(self) -> Iterator[None]:
        new = [part for part in (self.kafka, self.redis) if part.pid is None]
        try:
            yield
        except BaseException:  # an interrupt, too
            for part in new:
                part.down()
            raise

    def apply_topics(self, counts: Mapping[str, int]) -> dict[str, str]:
        """Create the topics, with numbers of partitions by the setting that scales them. Raises StreamsError."""
        return KafkaAdmin(self.kafka_connection).apply(topic_plans(counts))

    def status(self) -> dict[str, dict[str, Any]]:
        """Return, for each part, whether it answers, where, and its process id."""
        return {
            "kafka": {"answers": self.kafka.answers(), "address": self.kafka_address, "pid": self.kafka.pid},
            "redis": {"answers": self.redis.answers(), "address": self.redis_url, "pid": self.redis.pid},
        }

    def down(self) -> list[str]:
        """Stop both; return the names of those that ran."""
        return [name for name, part in (("Kafka", self.kafka), ("Redis", self.redis)) if part.down()]
