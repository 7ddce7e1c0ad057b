"""``python -m services.scorer``: one scorer process, wired to Kafka and Redis by its settings."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path

from services.grid.redis import RedisGrid
from services.inference import ModelError
from services.inference.artifact import load_model
from services.inference.released import newest_model
from services.runtime.catalogue import MODEL_INFO
from services.runtime.clock import SystemClock
from services.runtime.config import ConfigError, Settings, resolve_settings
from services.runtime.health import Health, serve_health
from services.runtime.logs import fields, set_up_logging
from services.runtime.metrics import MetricsRegistry
from services.runtime.worker import Worker, WorkerLimits
from services.scorer.processor import PreparedTransactions, ScoredOutcome, ScorerProcessor
from services.scorer.warm_up import warm_up
from services.streams.kafka import KafkaSink, KafkaSource

log = logging.getLogger("proact.scorer")


def build_worker(
    settings: Settings, health: Health, metrics: MetricsRegistry
) -> Worker[PreparedTransactions, ScoredOutcome]:
    """Verify the model, compile the kernels, and wire a worker. Raises ModelError."""
    clock = SystemClock()
    model = load_model(Path(settings.model_path) if settings.model_path else newest_model())
    health.set("model_verified", True)
    metrics.set(MODEL_INFO, 1, model.name, model.version)
    processor = ScorerProcessor(model)
    warm_up(processor)
    health.set("kernels_compiled", True)
    log.info("model verified, kernels compiled", extra=fields(model=model.name, version=model.version))
    return Worker(
        processor,
        KafkaSource(settings.kafka_bootstrap_servers, settings.group_id, processor.topic, settings.session_timeout_ms),
        KafkaSink(settings.kafka_bootstrap_servers),
        RedisGrid(settings.redis_url, settings.grid_timeout_ms / 1000),
        clock=clock,
        health=health,
        metrics=metrics,
        limits=WorkerLimits(
            batch_records_max=settings.batch_records_max,
            poll_timeout_s=settings.poll_timeout_ms / 1000,
            near_cache_bytes=settings.near_cache_mb * 1024 * 1024,
        ),
    )


def run_scorer(settings: Settings) -> None:
    """Run one scorer until SIGTERM or SIGINT. Raises ConfigError and ModelError before it begins."""
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
    except (ConfigError, ModelError) as error:
        sys.exit(f"proact: {error}")


if __name__ == "__main__":
    if not __debug__:
        sys.exit("proact: assertions must stay on; do not run Python with -O")
    main()
