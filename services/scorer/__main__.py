"""``python -m services.scorer``: one scorer process, wired to Kafka and Redis by its settings."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from typing import Any

from services.inference import ModelError
from services.runtime.clock import SystemClock
from services.runtime.config import ConfigError, Settings, resolve_settings
from services.runtime.health import Health, serve_health
from services.runtime.logs import fields, set_up_logging
from services.runtime.metrics import MetricsRegistry
from services.runtime.worker import DoubleError, Worker
from services.scorer.wiring import build

log = logging.getLogger("proact.scorer")


Build = Callable[[Settings, Health, MetricsRegistry], Worker[Any, Any]]


def run_scorer(settings: Settings, build_worker: Build = build) -> None:
    """Run one scorer until SIGTERM or SIGINT.

    Raises:
        ConfigError, ModelError: before it begins.
        DoubleError: another process works under its name.
    """
    set_up_logging(settings.log_format)
    for number in (signal.SIGTERM, signal.SIGINT):
        # A container's first process ignores signals that it has no handler for; nothing is under way yet.
        signal.signal(number, lambda *_: sys.exit(0))
    health, metrics = Health(SystemClock()), MetricsRegistry()
    server = serve_health(settings.metrics_host, settings.metrics_port, health, metrics)
    worker = build_worker(settings, health, metrics)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    log.info("scorer runs", extra=fields(metrics=f"{settings.metrics_host}:{settings.metrics_port}"))
    worker.run()
    server.shutdown()
    log.info("scorer stopped")


def main() -> None:
    """Run with settings from the environment and ``proact.toml``."""
    try:
        run_scorer(resolve_settings({}))
    except (ConfigError, ModelError, DoubleError) as error:
        sys.exit(f"proact: {error}")


if __name__ == "__main__":
    if not __debug__:
        sys.exit("proact: assertions must stay on; do not run Python with -O")
    main()
