"""Which service reads and writes which topic, as ``schemas/*/topic.yaml`` say."""

from __future__ import annotations

from services.codec.schemas import Topic, topics


def edges() -> list[tuple[str, str, str]]:
    """Return (producer, topic, consumer) for every way through a topic."""
    return [(p, t.name, c) for t in topics().values() for p in t.producers for c in t.consumers]


def describe_topic(topic: Topic) -> str:
    """Return one line on a topic."""
    return (
        f"{topic.name}: key {topic.key}, {topic.partitions} partition{'s'[: topic.partitions != 1]}, kept {topic.retention_days} days, "
        f"schema v{topic.latest.version}, at most {topic.max_message_bytes} bytes"
    )


def render() -> str:
    """Return the topology as text, one topic with its writers and readers."""
    return "\n".join(
        f"{' + '.join(t.producers)}  ->  [{t.name}]  ->  {' + '.join(t.consumers)}" for t in topics().values()
    )
