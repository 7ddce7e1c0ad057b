"""``python -m services.monitor``: looks at Kafka and Redis every few seconds until it is asked to stop."""

from __future__ import annotations

import logging
import threading

from services.signals import end_at_once

if __name__ == "__main__":
    end_at_once()  # before what takes its time to import, and may swallow an interrupt

from services.grid.status import RedisStatus
from services.monitor.stores import measure_grid, measure_kafka
from services.registry import LOGS, group_of
from services.runtime.clock import SystemClock
from services.runtime.health import Health, serve_health
from services.runtime.logs import fields, set_up_logging
from services.runtime.looking import run_until_stopped
from services.runtime.metrics import MetricsRegistry
from services.runtime.observing_metrics import MONITOR_METRICS
from services.runtime.settings import Settings
from services.streams.admin import KafkaAdmin

log = logging.getLogger("proact.monitor")

EVERY_S = 2.0


def run_monitor(settings: Settings, stop: threading.Event) -> None:
    """Look until ``stop`` is set. Raises ConfigError before it begins."""
    set_up_logging(settings.log_format)
    health, metrics = Health(SystemClock(), {"looked": False}), MetricsRegistry(MONITOR_METRICS)
    server = serve_health(settings.metrics_host, settings.metrics_port, health, metrics)
    admin, grid = KafkaAdmin(settings.kafka), RedisStatus(settings.grid)
    log.info("monitor runs", extra=fields(metrics=f"{settings.metrics_host}:{settings.metrics_port}"))
    groups = {name: (log.topic, group_of(settings, name)) for name, log in LOGS.items()}
    before: dict[str, str | None] = {"kafka": None, "redis": None}
    while not stop.is_set():
        health.beat()
        now = {
            "kafka": measure_kafka(admin, groups, metrics),
            "redis": measure_grid(grid, metrics),
        }
        for store, problem in now.items():
            if (problem is None) != (before[store] is None):
                log.warning("%s %s", store, "is back" if problem is None else "is away", extra=fields(error=problem))
        before = now
        health.set("looked", holds=True)
        stop.wait(EVERY_S)
    server.shutdown()
    log.info("monitor stopped")


if __name__ == "__main__":
    run_until_stopped(run_monitor)
