"""``proact scorer`` and the commands of all other services: a service, in one process or several under a supervisor."""

from __future__ import annotations

from typing import Final

import click

from services.cli.options import UserError, example, with_settings
from services.registry import SERVICES, ServiceSpec, load
from services.runtime.settings import ConfigError, Settings
from services.signals import end_at_once

_COMMON = (
    "kafka_bootstrap_servers", "redis_url", "workers", "batch_records_max", "poll_timeout_ms", "guarantee",
    "transactional_id", "breaker_share", "session_timeout_ms", "near_cache_mb", "grid_timeout_ms", "metrics_host",
    "metrics_port", "log_format",
)  # fmt: skip


def _run(spec: ServiceSpec, settings: Settings) -> None:
    end_at_once()  # before what takes its time to import, and may swallow an interrupt
    try:
        if spec.check:
            load(spec.check)(settings)
        _serve(spec, settings)
    except ConfigError as error:
        raise UserError(str(error)) from None


def _serve(spec: ServiceSpec, settings: Settings) -> None:
    """Run it. Raises ConfigError, UserError."""
    from services.runtime.supervisor import supervise
    from services.worker.fencing import DuplicateWorkerError
    from services.worker.service import run_service

    try:
        if settings.workers == 1:
            run_service(spec, settings)
        else:
            supervise(spec.name, settings)
    except DuplicateWorkerError as error:
        raise UserError(str(error)) from None


def _command(spec: ServiceSpec) -> click.Command:
    group = () if spec.group_setting is None else (spec.group_setting,)

    @with_settings(*_COMMON, *spec.settings, *group)
    def run(settings: Settings) -> None:
        _run(spec, settings)

    run.__doc__ = spec.purpose
    return click.command(spec.name, epilog=example(f"proact {spec.name} {spec.example}".rstrip()))(run)


COMMANDS: Final = {spec.name: _command(spec) for spec in SERVICES}
