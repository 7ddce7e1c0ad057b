"""Both parts of the embedded stack as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from services.stack.folders import make_folder
from services.stack.kafka import EmbeddedKafka
from services.stack.processes import StackError
from services.stack.redis import EmbeddedRedis
from services.streams.admin import KafkaAdmin
from services.topology import topic_plans


class EmbeddedStack:
    """A Kafka and a Redis."""

    def __init__(self, kafka: EmbeddedKafka, redis: EmbeddedRedis) -> None:
        self.kafka, self.redis = kafka, redis
        self.kafka_address, self.redis_url = kafka.address, redis.url
        self.kafka_connection, self.grid_connection = kafka.connection, redis.connection

    @classmethod
    def of(cls, folder: Path, kafka_port: int, redis_port: int, *, outlives: bool = False) -> Self:
        """Return both, whose data lie in one folder; ``outlives``: they go on when the process has ended that started them."""
        kafka, redis = (
            EmbeddedKafka(folder, kafka_port, outlives=outlives),
            EmbeddedRedis(folder, redis_port, outlives=outlives),
        )
        return cls(kafka, redis)

    def up(self, progress: Callable[[str], None], timeout_s: float = 60.0) -> None:
        """Start what does not run and wait until both answer; when that fails, what was started for it is stopped. Raises StackError."""
        self._make_folders()
        with self._undone_if_it_fails():
            for part in (self.redis, self.kafka):
                part.refuse_taken_port()
            self.redis.up(progress, timeout_s)
            self.kafka.up(progress, timeout_s)

    def up_with_topics(
        self, progress: Callable[[str], None], counts: Mapping[str, int], timeout_s: float = 60.0
    ) -> None:
        """Do that, and create the topics as :meth:`apply_topics` does; all of it or nothing. Raises StackError, StreamsError."""
        self._make_folders()
        with self._undone_if_it_fails():
            self.up(progress, timeout_s)
            self.apply_topics(counts)

    def _make_folders(self) -> None:
        for part in (self.kafka, self.redis):
            make_folder(part.data_folder)

    @contextmanager
    def _undone_if_it_fails(self) -> Iterator[None]:
        new = [part for part in (self.kafka, self.redis) if part.pid is None]
        try:
            yield
        except BaseException as error:  # an interrupt, too
            for part in new:
                part.down()
            if isinstance(error, OSError):
                raise StackError(f"{error.filename or 'the data folder'}: {error.strerror}") from None
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
