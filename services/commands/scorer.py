"""``proact scorer``."""

from __future__ import annotations

import click

from services.commands.options import UserError, example, with_settings
from services.runtime.config import ConfigError, Settings


@click.command(epilog=example("proact scorer --workers 2 --metrics-port 9108"))
@with_settings(
    "kafka_bootstrap_servers", "redis_url", "group_id", "workers", "batch_records_max", "poll_timeout_ms",
    "guarantee", "transactional_id", "breaker_share", "session_timeout_ms", "near_cache_mb", "grid_timeout_ms", "model_path", "metrics_host", "metrics_port", "log_format",
)  # fmt: skip
def scorer(settings: Settings) -> None:
    """Run scorers until SIGTERM or Ctrl-C: one process each, under one supervisor that starts a dead one again."""
    from services.inference import ModelError
    from services.inference.artifact import load_manifest
    from services.inference.released import newest_model
    from services.runtime.supervisor import supervise
    from services.runtime.worker import DoubleError

    try:
        load_manifest(newest_model()) if not settings.model_path else None
        if settings.workers == 1:
            from services.scorer.__main__ import run_scorer

            run_scorer(settings)
        else:
            supervise("services.scorer", settings)
    except (ConfigError, ModelError, DoubleError) as error:
        raise UserError(str(error)) from None
