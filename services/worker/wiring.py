"""A worker of any service, wired to Kafka and Redis by its settings."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from services.grid import UnsafeGridError
from services.grid.base import GridUnavailableError
from services.grid.redis import RedisGrid
from services.runtime.clock import Clock
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.settings import ConfigError, Settings
from services.streams import Publisher
from services.streams.atomic import AtomicProducer, AtomicPublisher
from services.streams.kafka import KafkaSource
from services.streams.publishers import KafkaAtomicProducer, RepeatingPublisher
from services.worker.excluded import KafkaDeadLetters
from services.worker.loop import Worker
from services.worker.ports import Ports, WorkerLimits
from services.worker.processor import P, Processor, R
from services.worker.sandbox import ProcessSandbox, sandbox_command
from services.worker.write_behind import WriteBehindLimits

SEEN_WITHIN_S: Final = 0.1
"""After how long profiles are saved at the latest that other services decide by."""


@dataclass(frozen=True, slots=True)
class Membership:
    """What a service reads, as which group, and what starts the sandbox that its suspected poison records are tried in, as arguments of ``python -m``."""

    topic: str
    group_id: str
    sandbox: Sequence[str]


def transactional_id(settings: Settings, group_id: str) -> str:
    """Return the name of this worker's producers: the same when it is started again, so that it fences its old self."""
    return settings.transactional_id or f"{group_id}-{socket.gethostname()}-{settings.metrics_port}"


def build_ports(
    settings: Settings,
    clock: Clock,
    member: Membership,
    make_producer: Callable[..., AtomicProducer] = KafkaAtomicProducer,
) -> Ports:
    """Connect to Kafka and Redis. Raises ConfigError when Redis is not set up as it must be.

    Args:
        settings: whom to connect to, and how.
        clock: the time.
        member: what is read, and as whom.
        make_producer: makes the producers of atomic commits, with the arguments of :class:`KafkaAtomicProducer`.
    """
    grid = RedisGrid(settings.grid, settings.grid_timeout_ms / 1000, settings.lookup_timeout_ms / 1000)
    try:
        grid.check()
    except UnsafeGridError as error:
        raise ConfigError(str(error)) from None
    except GridUnavailableError:
        pass  # waited out by the worker
    kafka = settings.kafka
    source = KafkaSource(kafka, member.group_id, member.topic, settings.session_timeout_ms)
    publisher: Publisher
    if settings.guarantee == "exactly_once":
        name = transactional_id(settings, member.group_id)
        publisher = AtomicPublisher(
            name, partial(make_producer, kafka, source.topic), source.group_metadata, clock.monotonic_s
        )
    else:
        publisher = RepeatingPublisher(kafka, source)
    command = sandbox_command(member.sandbox)
    sandbox = lambda outages: ProcessSandbox(command, outages.keep_membership)  # noqa: E731
    return Ports(source, publisher, grid, clock, sandbox, letters=KafkaDeadLetters(kafka))


def build_worker(
    settings: Settings, processor: Processor[P, R], ports: Ports, health: Health, metrics: MetricsRegistry
) -> Worker[P, R]:
    """Wire a worker."""
    saved_within_s = settings.save_interval_ms / 1000
    if processor.read_by_others:
        saved_within_s = min(saved_within_s, SEEN_WITHIN_S)
    limits = WorkerLimits(
        batch_records_max=settings.batch_records_max,
        poll_timeout_s=settings.poll_timeout_ms / 1000,
        near_cache_bytes=settings.near_cache_mb * 1024 * 1024,
        saving=WriteBehindLimits(saved_within_s, settings.save_records_max),
        foreign_cache_bytes=settings.foreign_cache_mb * 1024 * 1024,
        breaker_share=settings.breaker_share,
    )
    return Worker(processor, ports, health, metrics, limits)
