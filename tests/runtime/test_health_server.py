"""Clients that say nothing, too much or nonsense cost no thread, and keep nobody from an answer."""

from __future__ import annotations

import http.client
import json
import resource
import socket
import threading
import urllib.error
import urllib.request
from contextlib import ExitStack

import pytest

from services.runtime.clock import SystemClock
from services.runtime.health import CONNECTIONS_MAX, REQUEST_BYTES_MAX, Health, serve_health
from services.runtime.metrics import MetricsRegistry
from services.runtime.settings import ConfigError
from services.stack.processes import free_port

IDLE = 800


@pytest.fixture
def server():
    found = serve_health("127.0.0.1", free_port(), Health(SystemClock()), MetricsRegistry())
    yield found
    found.shutdown()


def get(server, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{path}", timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize("said", [b"", b"GET /met", b"GET /metrics HTTP/1.1\r\nHost: x\r\n"])
def test_hundreds_of_idle_connections_make_no_thread_and_keep_nobody_from_an_answer(server, said):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4_096)), hard))
    threads = threading.active_count()
    with ExitStack() as stack:
        for _ in range(IDLE):
            idle = stack.enter_context(socket.create_connection(("127.0.0.1", server.server_port), timeout=30))
            try:
                idle.sendall(said)
            except OSError:
                continue  # closed for a younger one
        assert get(server, "/metrics")[0] == 200
        assert get(server, "/livez")[0] == 200
        assert get(server, "/readyz")[0] == 503
        assert threading.active_count() <= threads
        assert server.open_connections <= CONNECTIONS_MAX + 1


def test_requests_that_are_none_are_closed_and_others_answered(server):
    for said in (
        b"\0" * 100 + b"\r\n\r\n",
        b"A" * (3 * REQUEST_BYTES_MAX),
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n:::\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as client:
            client.sendall(said)
            try:
                while client.recv(65_536):
                    pass
            except ConnectionError:
                pass
    assert get(server, "/livez")[0] == 200


def test_pages_methods_and_headers(server):
    assert get(server, "/nowhere")[0] == 404
    assert b"# HELP" in get(server, "/metrics?x=1")[1]
    assert json.loads(get(server, "/readyz")[1])["live"]
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request("HEAD", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"")
    assert "openmetrics" in answer.getheader("Content-Type", "")
    connection.request("POST", "/metrics", b"x")
    assert connection.getresponse().status == 405


def test_a_taken_port_is_said_in_one_line(server):
    with pytest.raises(ConfigError, match="set --metrics-port"):
        serve_health("127.0.0.1", server.server_port, Health(SystemClock()), MetricsRegistry())


def test_a_server_that_is_stopped_before_it_listens_ends_without_a_word(monkeypatch):
    failures: list[object] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    for _ in range(100):
        serve_health("127.0.0.1", free_port(), Health(SystemClock()), MetricsRegistry()).shutdown()
    assert failures == []
