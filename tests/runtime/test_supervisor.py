"""Several workers: their ports are looked at before any is started, and the lines of their logs can be distinguished."""

from __future__ import annotations

import json
import logging
import socket

import pytest

from services.runtime import supervisor
from services.runtime.logs import set_up_logging
from services.runtime.settings import ConfigError, resolve_settings
from services.stack.processes import free_port


def pair() -> tuple[int, socket.socket]:
    """A free port whose neighbour is taken."""
    while True:
        port = free_port()
        try:
            return port, socket.create_server(("127.0.0.1", port + 1))
        except OSError:
            continue


def test_a_taken_port_of_any_worker_is_reported_before_one_is_started(monkeypatch):
    port, taken = pair()

    def start(*_: object) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(supervisor, "_start", start)
    with taken, pytest.raises(ConfigError) as refused:
        supervisor.supervise("scorer", resolve_settings({"workers": 2, "metrics_port": port}, {}))

    said = str(refused.value)
    assert said.startswith(f"cannot serve metrics on 127.0.0.1:{port + 1}: Address already in use; set --metrics-port")
    assert "worker i of several uses this setting + i, so that is worker 1's" in said


@pytest.mark.parametrize(("log_format", "number"), [("json", "1"), ("json", None), ("text", "1")])
def test_a_line_says_which_worker_it_is_from(monkeypatch, capsys, log_format, number):
    if number is not None:
        monkeypatch.setenv("PROACT_SUPERVISED_WORKER", number)
    try:
        set_up_logging(log_format)
        logging.getLogger("proact.test").info("something")
    finally:
        logging.basicConfig(handlers=[], force=True)

    said = capsys.readouterr().out
    if log_format == "text":
        assert said.endswith("something worker=1\n")
    else:
        assert json.loads(said).get("worker") == (None if number is None else 1)
