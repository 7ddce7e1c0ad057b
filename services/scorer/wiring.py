"""One scorer, wired to Kafka and Redis by its settings."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

from services.grid import UnsafeGridError
from services.grid.base import GridUnavailableError
from services.grid.redis import RedisGrid
from services.inference.artifact import XgboostModel, load_model
from services.inference.released import newest_model
from services.runtime.catalogue import MODEL_INFO
from services.runtime.clock import Clock, SystemClock
from services.runtime.config import ConfigError, Settings
from services.runtime.health import Health
from services.runtime.logs import fields
from services.runtime.metrics import MetricsRegistry
from services.runtime.sandbox import ProcessSandbox, sandbox_command
from services.runtime.worker import Ports, Worker, WorkerLimits
from services.scorer.processor import PreparedTransactions, ScoredOutcome, ScorerProcessor
from services.scorer.warm_up import warm_up
from services.streams import Publisher
from services.streams.atomic import AtomicPublisher
from services.streams.kafka import KafkaSource
from services.streams.publishers import KafkaAtomicProducer, RepeatingPublisher

log = logging.getLogger("proact.scorer")

SANDBOX = "services.scorer.sandbox"


def released_model(settings: Settings) -> XgboostModel:
    """Load and verify the model that the settings name, or the newest one. Raises ModelError."""
    return load_model(Path(settings.model_path) if settings.model_path else newest_model())


def build_processor(settings: Settings, health: Health, metrics: MetricsRegistry) -> ScorerProcessor:
    """Verify the model and compile the kernels. Raises ModelError."""
    model = released_model(settings)
    health.set("model_verified", True)
    metrics.set(MODEL_INFO, 1, model.name, model.version)
    processor = ScorerProcessor(model)
    warm_up(processor)
    health.set("kernels_compiled", True)
    log.info("model verified, kernels compiled", extra=fields(model=model.name, version=model.version))
    return processor


def transactional_id(settings: Settings) -> str:
    """Return the name of this worker's producers: the same when it is started again, so that it fences its old self."""
    return settings.transactional_id or f"{settings.group_id}-{socket.gethostname()}-{settings.metrics_port}"


def build_ports(settings: Settings, clock: Clock, sandbox: str = SANDBOX) -> Ports:
    """Connect to Kafka and Redis. Raises ConfigError when Redis is not set up as it must be."""
    grid = RedisGrid(settings.redis_url, settings.grid_timeout_ms / 1000)
    try:
        grid.check()
    except UnsafeGridError as error:
        raise ConfigError(str(error)) from None
    except GridUnavailableError:
        pass  # waited out by the worker
    servers = settings.kafka_bootstrap_servers
    source = KafkaSource(servers, settings.group_id, ScorerProcessor.topic, settings.session_timeout_ms)
    publisher: Publisher
    if settings.guarantee == "exactly_once":
        name = transactional_id(settings)
        publisher = AtomicPublisher(lambda: KafkaAtomicProducer(servers, source, name), clock.monotonic_s)
    else:
        publisher = RepeatingPublisher(servers, source)
    return Ports(source, publisher, grid, clock, lambda outages: ProcessSandbox(sandbox_command(sandbox), outages.stay))


def build_worker(
    settings: Settings, processor: ScorerProcessor, ports: Ports, health: Health, metrics: MetricsRegistry
) -> Worker[PreparedTransactions, ScoredOutcome]:
    """Wire a worker."""
    limits = WorkerLimits(
        batch_records_max=settings.batch_records_max,
        poll_timeout_s=settings.poll_timeout_ms / 1000,
        near_cache_bytes=settings.near_cache_mb * 1024 * 1024,
        breaker_share=settings.breaker_share,
    )
    return Worker(processor, ports, health, metrics, limits)


def build(settings: Settings, health: Health, metrics: MetricsRegistry) -> Worker[PreparedTransactions, ScoredOutcome]:
    """Build everything. Raises ConfigError and ModelError."""
    processor = build_processor(settings, health, metrics)
    return build_worker(settings, processor, build_ports(settings, SystemClock()), health, metrics)
