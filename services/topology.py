"""The topics as ``schemas/*/topic.yaml`` say: which service reads and writes which, and what each is on the broker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.codec.schemas import Topic, topics
from services.streams.admin import TopicPlan

STRICT: Final = (None, "partitions")
"""What scales the topics whose wanted number of partitions is insisted on; of the others a number that is there already does no harm."""


def edges() -> list[tuple[str, str, str]]:
    """Return (producer, topic, consumer) for every way through a topic."""
    return [(p, t.name, c) for t in topics().values() for p in t.producers for c in t.consumers]


def describe_topic(topic: Topic) -> str:
    """Return one line on a topic."""
    kept = "compacted" if topic.retention_days is None else f"kept {topic.retention_days} days"
    return (
        f"{topic.name}: key {topic.key}, {topic.partitions} partition{'s'[: topic.partitions != 1]}, {kept}, "
        f"schema v{topic.latest.version}, at most {topic.max_message_bytes} bytes"
    )


def render() -> str:
    """Return the topology as text, one topic with its writers and readers."""
    return "\n".join(
        f"{' + '.join(t.producers)}  ->  [{t.name}]  ->  {' + '.join(t.consumers)}" for t in topics().values()
    )


def topic_plans(counts: Mapping[str, int]) -> list[TopicPlan]:
    """Return what every topic of ``schemas/`` should be; ``counts`` are numbers of partitions by the setting that scales topics."""
    return [
        TopicPlan(
            t.name,
            t.partitions if t.scaled_by is None else counts.get(t.scaled_by, t.partitions),
            t.retention_days,
            t.max_message_bytes,
            strict=t.scaled_by in STRICT,
        )
        for t in topics().values()
    ]
