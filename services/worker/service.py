"""The life of a service's process: set up, run its worker until it is asked to stop, say why it could not."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence

from services.registry import BY_NAME, ServiceSpec, load
from services.runtime.clock import SystemClock
from services.runtime.garbage_collection import tune_garbage_collection
from services.runtime.health import CONDITIONS, Health, serve_health
from services.runtime.logs import fields, set_up_logging
from services.runtime.metrics import MetricsRegistry
from services.runtime.settings import ConfigError, Settings, resolve_settings
from services.runtime.variables import WORKER_VARIABLE, unread_variables
from services.signals import end_at_once, end_in_order
from services.worker.assembling import build_service
from services.worker.fencing import DuplicateWorkerError
from services.worker.worker_group import Runnable

BuildService = Callable[[ServiceSpec, Settings, Health, MetricsRegistry], Runnable]


def run_service(spec: ServiceSpec, settings: Settings, build: BuildService = build_service) -> None:
    """Run a service until SIGTERM, SIGINT or SIGHUP.

    Raises:
        ConfigError: before it begins.
        DuplicateWorkerError: another process works under its name.
    """
    end_at_once()  # nothing is under way yet
    log = logging.getLogger(f"proact.{spec.name}")
    set_up_logging(settings.log_format)
    conditions = dict.fromkeys((*CONDITIONS, *spec.conditions), False)
    health, metrics = Health(SystemClock(), conditions), MetricsRegistry(load(spec.metrics))
    server = serve_health(settings.metrics_host, settings.metrics_port, health, metrics)
    worker = build(spec, settings, health, metrics)
    end_in_order(worker.stop)
    tune_garbage_collection()
    log.info("%s runs", spec.name, extra=fields(metrics=f"{settings.metrics_host}:{settings.metrics_port}"))
    worker.run()
    server.shutdown()
    log.info("%s stopped", spec.name)


def warn_of_unread_variables() -> None:
    """Say on standard error which variables look like settings and are none; a worker's supervisor has said it for all."""
    if WORKER_VARIABLE not in os.environ:
        sys.stderr.writelines(f"proact: {line}\n" for line in unread_variables(os.environ))


def service_main(arguments: Sequence[str]) -> None:
    """Run the service that the command line names, with settings from the environment and ``proact.toml``."""
    if len(arguments) != 1 or arguments[0] not in BY_NAME:
        sys.exit(f"proact: say python -m services NAME, one of {', '.join(BY_NAME)}")
    serve(BY_NAME[arguments[0]])


def serve(spec: ServiceSpec) -> None:
    """Run a service as a process of its own, with settings from the environment and ``proact.toml``; a mistake is one line."""
    if not __debug__:
        sys.exit("proact: assertions must stay on; do not run Python with -O")
    warn_of_unread_variables()
    try:
        run_service(spec, resolve_settings({}))
    except (ConfigError, DuplicateWorkerError) as error:
        sys.exit(f"proact: {error}")
