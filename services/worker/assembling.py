"""A service of :mod:`services.registry`, assembled: the parts that are its own, and around them what is the same for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from services.registry import LogSpec, ServiceSpec, load, sandbox_of
from services.runtime.clock import Clock, SystemClock
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.settings import Settings
from services.streams import NoPlaceReader, PlaceReader
from services.worker.deciding import WithoutProfiles
from services.worker.followers import Follower, NoFollower
from services.worker.loop import Worker
from services.worker.ports import Ports
from services.worker.processor import Processor
from services.worker.wiring import Membership, build_ports, build_worker
from services.worker.worker_group import Runnable, WorkerGroup

TURN_POLL_TIMEOUT_MS: Final = 20
"""How long the workers of one process wait for records, one after the other, while another may have one."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a service brings to its worker."""

    processor: Processor[Any, Any]
    follower: Follower = field(default_factory=NoFollower)
    places: PlaceReader = field(default_factory=NoPlaceReader)
    without_profiles: WithoutProfiles[Any, Any] | None = None
    """See :meth:`services.worker.loop.Worker.go_without_profiles`; None: the grid is waited for."""
    saved_within_s: float | None = None
    """After how long what is published is made safe at the latest; None: as the settings say."""
    adapt: Callable[[Ports], Ports] = lambda ports: ports
    """Puts its own in the place of some of a worker's ports."""

    def into(self, ports: Ports) -> Ports:
        """Return ports with these parts among them."""
        return self.adapt(replace(ports, follower=self.follower, places=self.places))


Build = Callable[[LogSpec, Settings, Clock, MetricsRegistry, Health], Parts]
"""See :attr:`services.registry.ServiceSpec.build`."""


def membership(spec: ServiceSpec, log: LogSpec, settings: Settings) -> Membership:
    """Return what one worker of a service reads, and as whom."""
    return Membership(log.topic, spec.group_id(settings, log.topic), sandbox_of(spec.name))


def parts_of(spec: ServiceSpec, log: LogSpec) -> Callable[[Settings, Clock, MetricsRegistry, Health], Parts]:
    """Return what makes the parts of one worker, with its kernels compiled. It may raise ConfigError."""

    def build(settings: Settings, clock: Clock, metrics: MetricsRegistry, health: Health) -> Parts:
        own: Build | None = load(spec.build) if spec.build else None
        parts = Parts(load(log.processor)()) if own is None else own(log, settings, clock, metrics, health)
        made = parts.processor.topic, parts.processor.log, parts.processor.layout
        assert made == (log.topic, log.name, log.layout), f"the registry's entry of {spec.name} says otherwise"
        if spec.warm_up:
            load(spec.warm_up)(parts.processor)
        health.set("kernels_compiled", holds=True)
        return parts

    return build


def _build_one(
    spec: ServiceSpec, log: LogSpec, settings: Settings, health: Health, metrics: MetricsRegistry
) -> Worker[Any, Any]:
    clock = SystemClock()
    parts = parts_of(spec, log)(settings, clock, metrics, health)
    ports = parts.into(build_ports(settings, clock, membership(spec, log, settings)))
    if parts.saved_within_s is not None:
        settings = settings.with_values(save_interval_ms=round(1000 * parts.saved_within_s))
    worker = build_worker(settings, parts.processor, ports, health, metrics)
    if parts.without_profiles is not None:
        worker.go_without_profiles(parts.without_profiles)
    return worker


def build_service(spec: ServiceSpec, settings: Settings, health: Health, metrics: MetricsRegistry) -> Runnable:
    """Build a service: its worker, or one for each of its logs, which take turns on one thread. Raises ConfigError."""
    if len(spec.logs) == 1:
        return _build_one(spec, spec.logs[0], settings, health, metrics)
    workers = []
    for log in spec.logs:
        # Of two producers with one name each would fence the other.
        name = f"{settings.transactional_id}-{log.topic}" if settings.transactional_id else ""
        poll_timeout_ms = min(settings.poll_timeout_ms, max(1, TURN_POLL_TIMEOUT_MS // len(spec.logs)))
        own = settings.with_values(poll_timeout_ms=poll_timeout_ms, transactional_id=name)
        workers.append(_build_one(spec, log, own, health.part(log.topic), metrics.part()))
    return WorkerGroup(workers)


def sandbox_processor(spec: ServiceSpec, settings: Settings, topic: str | None = None) -> Processor[Any, Any]:
    """Return what decides on records of one of a service's topics, its first one if none is named, in its sandbox."""
    log = spec.logs[0] if topic is None else next(log for log in spec.logs if log.topic == topic)
    made: Processor[Any, Any] = load(spec.sandbox)(settings) if spec.sandbox else load(log.processor)()
    return made
