"""``proact scorer``, ``profiler``, ``router``, ``reference`` and ``reassessor``: a service, in one process or several under a supervisor."""

from __future__ import annotations

import importlib

import click

from services.commands.options import UserError, example, with_settings
from services.runtime.config import ConfigError, Settings
from services.signals import end_at_once

_COMMON = (
    "kafka_bootstrap_servers", "redis_url", "workers", "batch_records_max", "poll_timeout_ms", "guarantee",
    "transactional_id", "breaker_share", "session_timeout_ms", "near_cache_mb", "grid_timeout_ms", "metrics_host",
    "metrics_port", "log_format",
)  # fmt: skip


_DECIDING = ("lookup_timeout_ms", "model_path", "safe_challenge_from", "safe_review_from")


def _run(name: str, settings: Settings, *, decides: bool = False) -> None:
    end_at_once()  # before what takes its time to import, and may swallow an interrupt
    if decides:
        _check_model(settings)
    from services.runtime.fencings import DoubleError
    from services.runtime.service import run_service
    from services.runtime.supervisor import supervise

    try:
        if settings.workers == 1:
            run_service(name, settings, importlib.import_module(f"services.{name}.wiring").build)
        else:
            supervise(f"services.{name}", settings)
    except (ConfigError, DoubleError) as error:
        raise UserError(str(error)) from None


@click.command(epilog=example("proact scorer --workers 2 --metrics-port 9108"))
@with_settings(*_COMMON, *_DECIDING, "group_id", "without_profiles")
def scorer(settings: Settings) -> None:
    """Run scorers until SIGTERM or Ctrl-C: one process each, under one supervisor that starts a dead one again."""
    _run("scorer", settings, decides=True)


@click.command(epilog=example("proact reassessor --metrics-port 9148"))
@with_settings(*_COMMON, *_DECIDING, "reassessor_group_id")
def reassessor(settings: Settings) -> None:
    """Run reassessors until SIGTERM or Ctrl-C: they say what would have been decided where something was missing."""
    _run("reassessor", settings, decides=True)


def _check_model(settings: Settings) -> None:
    """Tell a person at once of a model that cannot be used; a service that runs would go down the ladder. Raises UserError."""
    from services.inference import ModelError
    from services.inference.artifact import load_manifest
    from services.runtime.model_keeper import released_folder

    try:
        load_manifest(released_folder(settings))
    except ModelError as error:
        raise UserError(str(error)) from None


@click.command(epilog=example("proact profiler --metrics-port 9118"))
@with_settings(*_COMMON, "profiler_group_id")
def profiler(settings: Settings) -> None:
    """Run profilers until SIGTERM or Ctrl-C: they fold transactions and labels into what is known of each terminal."""
    _run("profiler", settings)


@click.command(epilog=example("proact router --metrics-port 9128"))
@with_settings(*_COMMON, "router_group_id")
def router(settings: Settings) -> None:
    """Run routers until SIGTERM or Ctrl-C: they put fraud labels into the log of their terminals."""
    _run("router", settings)


@click.command(epilog=example("proact reference --metrics-port 9138"))
@with_settings(*_COMMON, "reference_group_id")
def reference(settings: Settings) -> None:
    """Run reference services until SIGTERM or Ctrl-C: they keep in the grid what is known of accounts and customers."""
    _run("reference", settings)
