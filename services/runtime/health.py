"""``/metrics``, ``/livez`` and ``/readyz`` over HTTP.

Live means that the worker's loop turned lately: an outage of Kafka or Redis does not end a life. Ready means that every
condition holds: partitions assigned and claimed, kernels compiled, model verified, grid reachable.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from services.runtime.catalogue import READY
from services.runtime.clock import Clock
from services.runtime.metrics import MetricsRegistry
from services.runtime.settings import ConfigError

LIVE_WITHIN_S = 30.0
"""A loop that has not turned for so long is stuck."""
CONNECTIONS_MAX: Final = 128
"""Open at once; one more, and the oldest is closed."""
REQUEST_WITHIN_S: Final = 5.0
"""How long a client may take to ask and to be answered."""
REQUEST_BYTES_MAX: Final = 16 * 1024
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

    def show(self, detail: dict[str, Any]) -> None:
        """Show this beside the conditions from now on."""
        self.detail = detail

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


class HealthServer:
    """Answers from one thread, however many connect: who says nothing holds a socket for some seconds, and no thread."""

    def __init__(self, listening: socket.socket, health: Health, metrics: MetricsRegistry) -> None:
        self._listening, self._health, self._metrics = listening, health, metrics
        self._registry = CollectorRegistry()
        self._registry.register(metrics)
        ProcessCollector(registry=self._registry)
        self._open: dict[asyncio.StreamWriter, None] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)
        self._thread.start()

    @property
    def server_port(self) -> int:
        """Where it listens."""
        return int(self._listening.getsockname()[1])

    @property
    def open_connections(self) -> int:
        """How many clients are connected."""
        return len(self._open)

    def shutdown(self) -> None:
        """Stop answering."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._listening.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        # A task, since whoever is asked to end at once stops the loop before it listens.
        listening = self._loop.create_task(
            asyncio.start_server(self._serve, sock=self._listening, limit=REQUEST_BYTES_MAX, backlog=CONNECTIONS_MAX)
        )
        self._loop.run_forever()
        if not listening.done():
            listening.cancel()
            with suppress(asyncio.CancelledError):
                self._loop.run_until_complete(listening)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = None
        if len(self._open) > CONNECTIONS_MAX:  # whoever came first has had the most time
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.transport.abort()
        try:
            async with asyncio.timeout(REQUEST_WITHIN_S):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(request))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()  # it is too slow, says too much, or is gone
        finally:
            self._open.pop(writer, None)
            writer.close()

    def _answer(self, request: bytes) -> bytes:
        first, *lines = request.decode("latin-1").split("\r\n")
        method, _, rest = first.partition(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status, content_type, body = self._page(rest.split(" ")[0].partition("?")[0], headers.get("accept", ""))
        if method not in ("GET", "HEAD"):
            status, body = "405 Method Not Allowed", b""
        head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return head.encode() + (b"" if method == "HEAD" else body)

    def _page(self, path: str, accept: str) -> tuple[str, str, bytes]:
        """Return status, type and body."""
        if path == "/metrics":
            self._metrics.set(READY, self._health.ready)
            encode, content_type = choose_encoder(accept)
            return "200 OK", content_type, encode(self._registry)
        answers = {"/livez": self._health.live, "/readyz": self._health.ready}
        status = "404 Not Found" if path not in answers else "200 OK" if answers[path] else "503 Service Unavailable"
        return status, "application/json", json.dumps(self._health.as_json()).encode() + b"\n"


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises ConfigError when the port is taken."""
    try:
        return socket.create_server((host, port), backlog=CONNECTIONS_MAX)
    except OSError as error:
        said = os.strerror(error.errno) if error.errno else str(error)  # its own words repeat the address
        raise ConfigError(f"cannot serve metrics on {host}:{port}: {said}; set --metrics-port") from None


def serve_health(host: str, port: int, health: Health, metrics: MetricsRegistry) -> HealthServer:
    """Serve from a thread of its own until the process ends.

    Raises:
        ConfigError: the port is taken.
    """
    return HealthServer(listen(host, port), health, metrics)
