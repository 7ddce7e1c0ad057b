"""The life of a service's process: set up, run its worker until it is told to stop, say why it could not."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Final

from services.runtime.catalogue import PROFILER_METRICS, REASSESSOR_METRICS, SCORER_METRICS, WORKER_METRICS
from services.runtime.clock import SystemClock
from services.runtime.config import ConfigError, Settings, resolve_settings
from services.runtime.fencings import DoubleError
from services.runtime.health import CONDITIONS, Health, serve_health
from services.runtime.logs import fields, set_up_logging
from services.runtime.metrics import MetricsRegistry
from services.runtime.pauses import collect_seldom
from services.runtime.team import Runnable
from services.signals import end_at_once, end_in_order

Build = Callable[[Settings, Health, MetricsRegistry], Runnable]
"""Builds a service's worker, or several. May raise ConfigError."""


MORE_CONDITIONS: Final = {"scorer": ("model_verified",), "reassessor": ("model_verified",)}
"""What must hold of a service beside what must hold of every worker."""
METRICS: Final = {"scorer": SCORER_METRICS, "profiler": PROFILER_METRICS, "reassessor": REASSESSOR_METRICS}
"""What each service counts; the others count what every worker does."""


def run_service(name: str, settings: Settings, build: Build) -> None:
    """Run a service until SIGTERM, SIGINT or SIGHUP.

    Raises:
        ConfigError: before it begins.
        DoubleError: another process works under its name.
    """
    end_at_once()  # nothing is under way yet
    log = logging.getLogger(f"proact.{name}")
    set_up_logging(settings.log_format)
    conditions = dict.fromkeys((*CONDITIONS, *MORE_CONDITIONS.get(name, ())), False)
    health, metrics = Health(SystemClock(), conditions), MetricsRegistry(METRICS.get(name, WORKER_METRICS))
    server = serve_health(settings.metrics_host, settings.metrics_port, health, metrics)
    worker = build(settings, health, metrics)
    end_in_order(worker.stop)
    collect_seldom()
    log.info("%s runs", name, extra=fields(metrics=f"{settings.metrics_host}:{settings.metrics_port}"))
    worker.run()
    server.shutdown()
    log.info("%s stopped", name)


def service_main(name: str, build: Build) -> None:
    """Run with settings from the environment and ``proact.toml``."""
    if not __debug__:
        sys.exit("proact: assertions must stay on; do not run Python with -O")
    try:
        run_service(name, resolve_settings({}), build)
    except (ConfigError, DoubleError) as error:
        sys.exit(f"proact: {error}")
