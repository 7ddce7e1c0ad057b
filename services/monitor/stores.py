"""One look at Kafka and at Redis, into metrics."""

from __future__ import annotations

from collections.abc import Mapping

from services.grid.base import GridUnavailableError
from services.grid.status import RedisStatus
from services.runtime import observing_metrics as m
from services.runtime.metrics import MetricsRegistry
from services.streams import StreamsError
from services.streams.admin import KafkaAdmin


def measure_kafka(admin: KafkaAdmin, groups: Mapping[str, tuple[str, str]], metrics: MetricsRegistry) -> str | None:
    """Set Kafka's metrics; return why it could not be asked. Its offsets then stay away: old ones would look alive.

    Args:
        admin: asks.
        groups: by log, its topic and the group that works it off.
        metrics: changed.
    """
    series = (m.TOPIC_START, m.TOPIC_END, m.GROUP_LAG)
    try:
        brokers, extents = admin.brokers(), admin.extents()
        lags = {log: admin.group_lags(topic, group, extents) for log, (topic, group) in groups.items()}
    except StreamsError as error:
        metrics.set(m.KAFKA_UP, 0)
        metrics.set(m.KAFKA_BROKERS, 0)
        for metric in series:
            metrics.replace(metric, {})
        return str(error)
    metrics.set(m.KAFKA_UP, 1)
    metrics.set(m.KAFKA_BROKERS, brokers)
    metrics.replace(m.TOPIC_START, {(t, str(p)): start for (t, p), (start, _) in extents.items()})
    metrics.replace(m.TOPIC_END, {(t, str(p)): end for (t, p), (_, end) in extents.items()})
    metrics.replace(m.GROUP_LAG, {(log, str(p)): lag for log, found in lags.items() for p, lag in found.items()})
    return None


def measure_grid(status: RedisStatus, metrics: MetricsRegistry) -> str | None:
    """Set the grid's metrics; return why it could not be asked."""
    try:
        now = status.ask()
    except GridUnavailableError as error:
        metrics.set(m.GRID_UP, 0)
        return str(error)
    metrics.set(m.GRID_UP, 1)
    for metric, value in (
        (m.GRID_MEMORY, now.memory_bytes), (m.GRID_MEMORY_MAX, now.memory_max_bytes), (m.GRID_PROFILES, now.profiles),
        (m.GRID_CLIENTS, now.clients), (m.GRID_COMMANDS, now.commands), (m.GRID_EVICTED, now.evicted_keys),
        (m.GRID_LOG_BYTES, now.log_bytes), (m.GRID_LOG_OK, now.log_ok),
    ):  # fmt: skip
        metrics.set(metric, value)
    return None
