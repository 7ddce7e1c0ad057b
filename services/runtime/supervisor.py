"""Several workers of one service under one supervisor: started, started again when they die, stopped together."""

from __future__ import annotations

import logging
import os
import sys
import time
from dataclasses import dataclass
from subprocess import Popen, TimeoutExpired

from services.registry import process_of
from services.runtime.health import listen
from services.runtime.logs import fields, set_up_logging
from services.runtime.settings import ConfigError, Settings
from services.runtime.variables import WORKER_VARIABLE
from services.signals import end_in_order
from services.subprocesses import start_tied

log = logging.getLogger("proact.supervisor")

BACKOFF_S_MAX = 30.0
STEADY_AFTER_S = 60.0
"""A worker that lived so long is started again at once."""
STOP_WITHIN_S = 10.0


@dataclass(slots=True)
class _Child:
    number: int
    process: Popen[bytes]
    started_s: float
    backoff_s: float = 0.5
    restart_at_s: float | None = None


def _start(name: str, settings: Settings, number: int) -> Popen[bytes]:
    own = settings.with_values(metrics_port=settings.metrics_port + number, workers=1)
    return start_tied(
        [sys.executable, "-m", *process_of(name)],
        env={**os.environ, **own.environment(), WORKER_VARIABLE: str(number)},
        start_new_session=True,
    )


def supervise(name: str, settings: Settings) -> None:
    """Run ``settings.workers`` processes of a service until SIGTERM, SIGINT or SIGHUP; they end with this process, however it ends.

    Each has its own metrics port, counted up from the setting. A worker that dies is started again, after a pause that
    doubles up to ``BACKOFF_S_MAX`` as long as it keeps dying young. Raises ConfigError when the ports do not fit, or one of them is taken.
    """
    set_up_logging(settings.log_format)
    if settings.metrics_port + settings.workers - 1 > 65_535:
        raise ConfigError("the workers' metrics ports do not fit below 65536: choose a lower --metrics-port")
    _refuse_taken_ports(settings)
    stopping: list[bool] = []
    end_in_order(lambda: stopping.append(True))
    children = [_Child(i, _start(name, settings, i), time.monotonic()) for i in range(settings.workers)]
    log.info("supervises workers", extra=fields(workers=len(children), metrics_port=settings.metrics_port))
    while not stopping:
        for child in children:
            _look_after(child, name, settings)
        time.sleep(0.2)
    _stop(children)


def _refuse_taken_ports(settings: Settings) -> None:
    """Raise ConfigError for a port that a worker could not listen on: it would die of that again and again."""
    for number in range(settings.workers):
        try:
            listen(settings.metrics_host, settings.metrics_port + number).close()
        except ConfigError as error:
            raise ConfigError(
                f"{error} (worker i of several uses this setting + i, so that is worker {number}'s)"
            ) from None


def _look_after(child: _Child, name: str, settings: Settings) -> None:
    now_s = time.monotonic()
    if child.process.poll() is None:
        return
    if child.restart_at_s is None:
        if now_s - child.started_s > STEADY_AFTER_S:
            child.backoff_s = 0.5
        child.restart_at_s = now_s + child.backoff_s
        child.backoff_s = min(2 * child.backoff_s, BACKOFF_S_MAX)
        log.error("worker died", extra=fields(worker=child.number, exit_code=child.process.returncode))
    elif now_s >= child.restart_at_s:
        child.process, child.started_s, child.restart_at_s = _start(name, settings, child.number), now_s, None
        log.info("worker started again", extra=fields(worker=child.number, pid=child.process.pid))


def _stop(children: list[_Child]) -> None:
    for child in children:
        child.process.terminate()
    deadline_s = time.monotonic() + STOP_WITHIN_S
    for child in children:
        try:
            child.process.wait(max(0.1, deadline_s - time.monotonic()))
        except TimeoutExpired:
            child.process.kill()
            child.process.wait()
    log.info("all workers stopped")
