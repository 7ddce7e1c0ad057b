"""Starting, finding and stopping the stack's processes by their ids."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

LOG_TAIL_LINES = 15
STOP_TIMEOUT_S = 15.0
FREE_PORTS = range(20_000, 32_000)
_given: set[int] = set()


class StackError(Exception):
    """The stack could not be started or stopped; the message says why, in words for its user."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """A process that outlives the command that started it, with its log and the file that holds its id."""

    name: str
    folder: Path

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / f"{self.name}.log"

    @property
    def _pid_file(self) -> Path:
        return self.folder / f"{self.name}.pid"

    def running(self) -> psutil.Process | None:
        """Return the process if it is the one that was started here: an id alone may belong to another by now."""
        try:
            pid, started = self._pid_file.read_text().split()
            process = psutil.Process(int(pid))
            alive = abs(process.create_time() - float(started)) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, psutil.Error):
            return None
        return process if alive else None

    def start(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        """Start it in a session of its own, so that Ctrl-C in the terminal does not reach it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env={**os.environ, **(environment or {})}, start_new_session=True,
            )  # fmt: skip
        self._pid_file.write_text(f"{process.pid} {psutil.Process(process.pid).create_time()}")

    def wait_until(self, answers: Callable[[], bool], timeout_s: float) -> None:
        """Wait until it answers. Raises StackError with the end of its log when it dies or takes too long."""
        deadline = time.monotonic() + timeout_s
        while not answers():
            if self.running() is None:
                raise StackError(f"{self.name} stopped while it started; the end of {self.log}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise StackError(
                    f"{self.name} does not answer after {timeout_s:.0f} s; the end of {self.log}:\n{self.log_tail()}"
                )
            time.sleep(0.1)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Stop it, gently and then not; whether there was something to stop."""
        process = self.running()
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout_s)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(STOP_TIMEOUT_S)
        self._pid_file.unlink(missing_ok=True)
        return process is not None

    def log_tail(self) -> str:
        """Return the end of the log."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return "(no log)"
        return "\n".join(f"    {line}" for line in lines[-LOG_TAIL_LINES:])


def port_taken(port: int) -> bool:
    """Whether something listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """Return a loopback port that nothing uses at the moment, and that was not returned before.

    It lies below those that the kernel hands out to connections, since one of these could take it before it is used.
    """
    while True:
        port = FREE_PORTS.start + secrets.randbelow(len(FREE_PORTS))
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port
