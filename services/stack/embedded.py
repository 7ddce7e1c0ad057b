"""Both parts of the embedded stack as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from services.stack.kafka import QUICKLY, Compiling, EmbeddedKafka
from services.stack.redis import EmbeddedRedis
from services.streams.admin import KafkaAdmin
from services.topology import topic_plans


class EmbeddedStack:
    """A Kafka and a Redis whose data lie in one folder."""

    def __init__(
        self,
        folder: Path,
        kafka_port: int,
        redis_port: int,
        kafka_doors: Sequence[tuple[int, int]] = (),
        compiling: Compiling = QUICKLY,
    ) -> None:
        self.kafka = EmbeddedKafka(folder, kafka_port, kafka_doors, compiling)
        self.redis = EmbeddedRedis(folder, redis_port)
        self.kafka_address = f"127.0.0.1:{kafka_port}"
        self.redis_url = f"redis://127.0.0.1:{redis_port}/0"

    def up(self, progress: Callable[[str], None], timeout_s: float = 60.0) -> None:
        """Start what does not run and wait until both answer. Raises StackError."""
        self.redis.up(progress, timeout_s)
        self.kafka.up(progress, timeout_s)

    def apply_topics(self, counts: Mapping[str, int]) -> dict[str, str]:
        """Create the topics, with numbers of partitions by the setting that scales them. Raises StreamsError."""
        return KafkaAdmin(self.kafka_address).apply(topic_plans(counts))

    def status(self) -> dict[str, dict[str, Any]]:
        """Return, for each part, whether it answers, where, and its process id."""
        return {
            "kafka": {"answers": self.kafka.answers(), "address": self.kafka_address, "pid": self.kafka.pid},
            "redis": {"answers": self.redis.answers(), "address": self.redis_url, "pid": self.redis.pid},
        }

    def down(self) -> list[str]:
        """Stop both; return the names of those that ran."""
        return [name for name, part in (("Kafka", self.kafka), ("Redis", self.redis)) if part.down()]
