"""``/metrics``, ``/livez`` and ``/readyz`` over HTTP.

Live means that the worker's loop turned lately: an outage of Kafka or Redis does not end a life. Ready means that every
condition holds: partitions assigned and claimed, kernels compiled, model verified, grid reachable.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app

from services.runtime.catalogue import READY
from services.runtime.clock import Clock
from services.runtime.config import ConfigError
from services.runtime.metrics import MetricsRegistry

LIVE_WITHIN_S = 30.0
"""A loop that has not turned for so long is stuck."""
CONDITIONS = ("kernels_compiled", "partitions_assigned", "grid_reachable", "log_reachable", "nothing_waits")
"""Of every worker. ``nothing_waits``: no batch has waited for long for what others have not done yet."""


@dataclass(slots=True)
class Health:
    """What the worker says of itself; its thread writes, the HTTP threads read."""

    clock: Clock
    conditions: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(CONDITIONS, False))
    detail: dict[str, Any] = field(default_factory=dict)
    beat_s: float = 0.0
    parts: dict[str, Health] = field(default_factory=dict)
    """Of several workers in one process, by what each works on: all must be well, and this says nothing of its own."""

    def __post_init__(self) -> None:
        self.beat()

    def beat(self) -> None:
        """Note that the loop turned."""
        self.beat_s = self.clock.monotonic_s()

    def set(self, condition: str, holds: bool) -> None:
        """Set one of the conditions."""
        assert condition in self.conditions
        self.conditions[condition] = holds

    def part(self, name: str) -> Health:
        """Return the health of one of several workers."""
        self.parts[name] = Health(self.clock, dict.fromkeys(self.conditions, False))
        return self.parts[name]

    @property
    def live(self) -> bool:
        """Whether the loop turns."""
        if self.parts:
            return all(part.live for part in self.parts.values())
        return self.clock.monotonic_s() - self.beat_s < LIVE_WITHIN_S

    @property
    def holding(self) -> dict[str, bool]:
        """Which conditions hold, of every part."""
        if not self.parts:
            return dict(self.conditions)
        return {name: all(part.conditions[name] for part in self.parts.values()) for name in self.conditions}

    @property
    def ready(self) -> bool:
        """Whether every condition holds."""
        return all(self.holding.values())

    def as_json(self) -> dict[str, Any]:
        """Return what is shown."""
        details = {name: part.detail for name, part in self.parts.items()}
        return {"live": self.live, "ready": self.holding, **self.detail, **details}


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: a scrape every few seconds is no news."""


_StartResponse = Callable[[str, list[tuple[str, str]]], object]


def _application(
    health: Health, metrics: MetricsRegistry
) -> Callable[[dict[str, Any], _StartResponse], Iterable[bytes]]:
    registry = CollectorRegistry()
    registry.register(metrics)
    ProcessCollector(registry=registry)
    exposition = make_wsgi_app(registry)

    def application(environ: dict[str, Any], start_response: _StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            metrics.set(READY, health.ready)
            return exposition(environ, start_response)
        answers = {"/livez": health.live, "/readyz": health.ready}
        status = "404 Not Found" if path not in answers else "200 OK" if answers[path] else "503 Service Unavailable"
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(health.as_json()).encode() + b"\n"]

    return application


def serve_health(host: str, port: int, health: Health, metrics: MetricsRegistry) -> WSGIServer:
    """Serve from a thread of its own until the process ends.

    Raises:
        ConfigError: the port is taken.
    """
    try:
        server = make_server(host, port, _application(health, metrics), _Server, _Quiet)
    except OSError as error:
        raise ConfigError(f"cannot serve metrics on {host}:{port}: {error.strerror}; set --metrics-port") from None
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
