"""Starting, finding and stopping the stack's processes by their ids."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen

import psutil

from services.subprocesses import start_tied

LOG_TAIL_LINES = 15
STOP_TIMEOUT_S = 15.0
FREE_PORTS = range(20_000, 32_000)
COMMAND = "command"
"""What a command is noted as that uses a folder of its own."""
PID_FILES = ("*.pid", "*/*.pid", "*/*/*.pid", "*/*/*/*.pid")
"""As deep as chaos has its rounds; not through all that Kafka keeps."""
_given: set[int] = set()


class StackError(Exception):
    """The stack could not be started or stopped; the message says why, in words for its user."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """A process with its log and the file that holds its id."""

    name: str
    folder: Path
    outlives: bool = False
    """Whether it goes on when the command has ended that started it; else it ends with it, however that ends."""

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
        start = Popen if self.outlives else start_tied
        with self.log.open("ab") as log:
            process = start(
                command, stdin=DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env={**os.environ, **(environment or {})}, start_new_session=True,
            )  # fmt: skip
        self.note(process.pid)

    def note(self, pid: int) -> None:
        """Note which process it is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._pid_file.write_text(f"{pid} {psutil.Process(pid).create_time()}")

    def refuse_other_port(self, port: int, pattern: str, config: Path) -> None:
        """Raise StackError if it runs at another port than this one; a line of its configuration, which it began with, has the port."""
        process = self.running()
        if process is None:
            return
        try:
            found = re.search(pattern, config.read_text(), re.MULTILINE)
        except OSError:
            return
        if found and int(found[1]) != port:
            raise StackError(
                f"{self.name.capitalize()} of this folder already runs on {found[1]} (process {process.pid}), not on {port}: "
                "`proact stack down` first, or another --data-folder"
            )

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
        """Stop it, gently and then not; whether there was something to stop. Raises StackError when it cannot be stopped."""
        process = self.running()
        if process is not None:
            try:
                self._end(process, timeout_s)
            except psutil.AccessDenied:
                raise StackError(
                    f"{self.name} is process {process.pid} of user {_owner(process)}: they, or root, can stop it"
                ) from None
        # Where it cannot be removed there is none, or one of a process that has ended, which nobody takes for another.
        with suppress(OSError):
            self._pid_file.unlink(missing_ok=True)
        return process is not None

    def _end(self, process: psutil.Process, timeout_s: float) -> None:
        process.send_signal(signal.SIGTERM)
        if _ended_within(process, timeout_s):
            return
        with suppress(psutil.NoSuchProcess):
            process.kill()
        if not _ended_within(process, STOP_TIMEOUT_S):
            raise StackError(f"{self.name}, process {process.pid}, does not end, not even when it is killed")

    def log_tail(self) -> str:
        """Return the end of the log."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return "(no log)"
        return "\n".join(f"    {line}" for line in lines[-LOG_TAIL_LINES:])


def _ended_within(process: psutil.Process, timeout_s: float) -> bool:
    """Whether a process ends within that time; one that has ended and that its parent has not yet noticed has, too."""
    try:
        process.wait(timeout_s)
    except psutil.TimeoutExpired:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def _owner(process: psutil.Process) -> str:
    try:
        return str(process.username())
    except (psutil.Error, KeyError):
        return "another"


def daemons_below(folder: Path) -> list[Daemon]:
    """Return what runs of all that was started below a folder: commands first, since what they started ends with them."""
    noted = [path for pattern in PID_FILES for path in folder.glob(pattern)]
    found = [Daemon(path.stem, path.parent) for path in sorted(noted)]
    return sorted((one for one in found if one.running() is not None), key=lambda one: one.name != COMMAND)


def port_taken(port: int) -> bool:
    """Whether something listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def taken_by(port: int) -> str:
    """Say who listens on a loopback port, as far as the system tells."""
    try:
        listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        found = [c.pid for c in listening if c.laddr and c.laddr.port == port]
        return f"process {found[0]} ({psutil.Process(found[0]).name()})" if found and found[0] else "something else"
    except psutil.Error:
        return "something else"


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
