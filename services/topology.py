"""The topics as ``schemas/*/topic.yaml`` say: which service reads and writes which, and what each is on the broker."""

from __future__ import annotations

from services.codec.schemas import Topic, topics
from services.streams.admin import TopicPlan


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


def topic_plans(partitions: int | None = None) -> list[TopicPlan]:
    """Return what every topic of ``schemas/`` should be; ``partitions`` replaces the number of those keyed by card."""
    return [
        TopicPlan(
            t.name,
            partitions if partitions is not None and t.partitions > 1 else t.partitions,
            t.retention_days,
            t.max_message_bytes,
        )
        for t in topics().values()
    ]
