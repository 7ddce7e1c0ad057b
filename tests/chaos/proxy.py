"""A TCP proxy between one worker and one store, that knows Kafka's frames: ``python -m tests.chaos.proxy``.

It runs in a process of its own and takes orders as lines of JSON on its standard input, one answer a line. A *link* is one
listening port and where it leads; a *rule* says what happens to the requests of some API keys on it, a *mode* to all bytes.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

PRODUCE, OFFSET_COMMIT, ADD_PARTITIONS, ADD_OFFSETS, END_TXN, TXN_OFFSET_COMMIT = 0, 8, 24, 25, 26, 28
HOLD, DROP_REQUEST, DROP_REPLY, DELAY = "hold", "drop-request", "drop-reply", "delay"
OPEN, BLACK_HOLE, ONE_WAY = "open", "black-hole", "one-way"
CHUNK: Final = 65_536


@dataclass(slots=True)
class ProxyRule:
    """What happens to the next ``count`` requests of these API keys."""

    what: str
    keys: tuple[int, ...]
    count: int
    delay_s: float = 0.0
    hits: int = 0


@dataclass(slots=True)
class Link:
    """One listening port, and where it leads."""

    name: str
    upstream: int
    kafka: bool
    mode: str = OPEN
    rules: list[ProxyRule] = field(default_factory=list)
    held: list[bytes] = field(default_factory=list)
    drop_replies: int = 0
    """How many answers of a store without frames are swallowed; its connection ends with each."""
    hits: int = 0
    connections: set[socket.socket] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def match(self, key: int) -> ProxyRule | None:
        """Return the rule for a request, and count it."""
        with self.lock:
            for rule in self.rules:
                if key in rule.keys and rule.hits < rule.count:
                    rule.hits += 1
                    self.hits += 1
                    return rule
        return None

    def reset(self) -> int:
        """Break every connection off, without a goodbye."""
        with self.lock:
            broken, self.connections = list(self.connections), set()
        for one in broken:
            try:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()
        return len(broken)


def _receive(source: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = source.recv(min(count, CHUNK))
        if not part:
            raise OSError("closed")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _frame(source: socket.socket) -> bytes:
    head = _receive(source, 4)
    return head + _receive(source, struct.unpack(">i", head)[0])


def _wait_open(link: Link, *, replies: bool) -> None:
    while link.mode == BLACK_HOLE or (replies and link.mode == ONE_WAY):
        time.sleep(0.02)


class _Connection:
    """Both directions of one connection."""

    def __init__(self, link: Link, client: socket.socket) -> None:
        self._link, self._client = link, client
        self._server = socket.create_connection(("127.0.0.1", link.upstream), 5)
        self._server.settimeout(None)
        for one in (client, self._server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with link.lock:
            link.connections |= {client, self._server}
        self._swallow: set[int] = set()
        up, down = (self._requests, self._replies) if link.kafka else (self._bytes_up, self._bytes_down)
        for work in (up, down):
            threading.Thread(target=self._guard, args=(work,), daemon=True).start()

    def _guard(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(OSError):
            work()
        for one in (self._client, self._server):
            with self._link.lock:
                self._link.connections.discard(one)
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _requests(self) -> None:
        while True:
            frame = _frame(self._client)
            key, _, correlation = struct.unpack(">hhi", frame[4:12])
            _wait_open(self._link, replies=False)
            rule = self._link.match(key)
            if rule is not None and rule.what == DELAY:
                time.sleep(rule.delay_s)
            elif rule is not None and rule.what == DROP_REPLY:
                self._swallow.add(correlation)
            elif rule is not None:
                if rule.what == HOLD:
                    self._link.held.append(frame)
                continue
            self._server.sendall(frame)

    def _replies(self) -> None:
        while True:
            frame = _frame(self._server)
            _wait_open(self._link, replies=True)
            if struct.unpack(">i", frame[4:8])[0] in self._swallow:
                continue
            self._client.sendall(frame)

    def _bytes_up(self) -> None:
        while data := self._client.recv(CHUNK):
            _wait_open(self._link, replies=False)
            self._server.sendall(data)

    def _bytes_down(self) -> None:
        while data := self._server.recv(CHUNK):
            _wait_open(self._link, replies=True)
            with self._link.lock:
                dropped = self._link.drop_replies > 0
                self._link.drop_replies -= dropped
                self._link.hits += dropped
            if dropped:
                raise OSError("dropped")
            self._client.sendall(data)


class Proxy:
    """All links of a run, and the orders they take."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}

    def link(self, name: str, port: int, upstream: int, kafka: bool) -> None:
        """Open a link."""
        link = self._links[name] = Link(name, upstream, kafka)
        listener = socket.create_server(("127.0.0.1", port))

        def serve() -> None:
            while True:
                client, _ = listener.accept()
                try:
                    _Connection(link, client)
                except OSError:
                    client.close()

        threading.Thread(target=serve, daemon=True).start()

    def retarget(self, name: str, upstream: int) -> int:
        """Lead a link elsewhere, and break what was connected."""
        self._links[name].upstream = upstream
        return self._links[name].reset()

    def rule(self, name: str, what: str, keys: list[int], count: int, delay_s: float = 0.0) -> None:
        """Add a rule."""
        self._links[name].rules.append(ProxyRule(what, tuple(keys), count, delay_s))

    def mode(self, name: str, mode: str) -> None:
        """Set a link's mode."""
        self._links[name].mode = mode

    def drop_replies(self, name: str, count: int) -> None:
        """Swallow the next answers, each with its connection."""
        self._links[name].drop_replies = count

    def reset(self, name: str) -> int:
        """Break a link's connections."""
        return self._links[name].reset()

    def release(self, name: str) -> int:
        """Let held requests arrive now, over a connection of their own, as late ones do; return how many."""
        link = self._links[name]
        held, link.held = link.held, []
        for frame in held:
            with socket.create_connection(("127.0.0.1", link.upstream), 5) as late:
                late.sendall(frame)
                late.settimeout(2)
                with contextlib.suppress(OSError):
                    late.recv(CHUNK)
        return len(held)

    def heal(self, name: str) -> int:
        """End all rules and modes; return how many requests they hit."""
        link = self._links[name]
        link.rules, link.mode, link.drop_replies = [], OPEN, 0
        hits, link.hits = link.hits, 0
        return hits

    def held(self, name: str) -> int:
        """Return how many requests are held."""
        return len(self._links[name].held)


def main() -> None:
    """Take orders until the standard input ends."""
    proxy = Proxy()
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        answer = getattr(proxy, order.pop("order"))(**order)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
