"""Whatever ends a command, a closed terminal or a kill included, what it started ends with it."""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import pty
import select
import shutil
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.registry import BY_NAME, process_of
from services.stack.processes import free_port, port_taken
from tests.cli.running import line_of, run

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

START_S, END_S = 300, 60
"""Bounds for a busy machine, not what is usual."""
SERVERS = ("kafka.Kafka", "redis-server")
FIRST_SERVICE = (*SERVERS, "-m services ")
SESSION = (*SERVERS, *(" ".join(process_of(name)) for name in BY_NAME))
COMMANDS = {
    "demo": (["demo"], SESSION),
    "bench": (["bench", "--records", "50000", "--cards", "1000", "--runs", "1"], SERVERS),
    "bench-compare": (["bench-compare", "HEAD", "--", "--records", "50000", "--cards", "1000"], ("tests.benchmarks bench", *SERVERS)),
    "chaos": (["chaos", "--fault", "F-13"], (*SERVERS, "tests.chaos.proxy", "tests.chaos.victim")),
    "parity": (["parity", "{handbook}"], FIRST_SERVICE),
    "benchmark-quality": (["benchmark-quality", "{handbook}"], FIRST_SERVICE),
    "supervisor": (["scorer", "--workers", "2"], ("services scorer",)),
    "stack-up": (["stack", "up"], ("redis-server",)),
}  # fmt: skip
"""Each command that starts processes, and what is to be seen of them before it is hit."""
CLOSED = "closed terminal"
HITS = [
    *(("demo", number) for number in (CLOSED, signal.SIGTERM, signal.SIGINT, signal.SIGKILL)),
    *((name, number) for name in ("supervisor", "chaos") for number in (signal.SIGHUP, signal.SIGKILL)),
    ("bench", signal.SIGKILL),
    ("bench-compare", signal.SIGKILL),
    ("parity", signal.SIGHUP),
    ("benchmark-quality", signal.SIGKILL),
    ("stack-up", signal.SIGHUP),
]
"""All signals for one of the commands that share the mechanism; for the others what no handler of an exit would see."""


def small_handbook(folder: Path) -> Path:
    """Write the two files of the handbook with a few made-up rows: nothing is compared here."""
    begin, count = dt.datetime(2018, 4, 1, tzinfo=dt.UTC), 100
    table = {
        "TRANSACTION_ID": list(range(count)),
        "TX_DATETIME": pa.array([begin + dt.timedelta(hours=i) for i in range(count)], pa.timestamp("us")),
        "CUSTOMER_ID": [i % 7 for i in range(count)],
        "TERMINAL_ID": [i % 5 for i in range(count)],
        "TX_AMOUNT": [10.0 + i for i in range(count)],
        "TX_FRAUD": [0] * count,
        "TX_FRAUD_SCENARIO": [0] * count,
    }
    folder.mkdir()
    pq.write_table(pa.table(table), folder / "transactions.parquet")
    (folder / "features.parquet").touch()
    return folder


def words_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def ports_of(processes: list[psutil.Process]) -> set[int]:
    found = set()
    for process in processes:
        try:
            found |= {c.laddr.port for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        except psutil.Error:
            continue
    return found


def still_there(processes: list[psutil.Process]) -> list[str]:
    """Return those that run; a zombie has ended, and nobody is left here to collect it."""
    found = []
    for process in processes:
        with suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(words_of(process)[:160])
    return found


class Terminal:
    """A terminal that a command runs on, until it is closed; what it shows is kept."""

    def __init__(self, log: Path) -> None:
        self._master, self.slave = pty.openpty()
        self._log = log
        self._closed = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self._log.open("wb") as log, suppress(OSError):
            while not self._closed.is_set():
                if select.select([self._master], [], [], 0.05)[0]:
                    log.write(os.read(self._master, 4096))
                    log.flush()

    def close(self) -> None:
        """Close it: Linux sends SIGHUP to the command, and whatever it writes from now on fails."""
        self._closed.set()
        self._reader.join()
        os.close(self._master)


@contextmanager
def started(
    command: list[str],
    wanted: tuple[str, ...],
    log: Path,
    environment: dict[str, str],
    terminal: Terminal | None = None,
) -> Iterator:
    """Run a command until all that is wanted is there; yield it with what it started and their ports."""
    options: dict = {"stdin": subprocess.DEVNULL}
    if terminal is not None:
        slave = terminal.slave
        options = {"stdin": slave, "preexec_fn": lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)}
    with log.open("ab") if terminal is None else os.fdopen(terminal.slave, "wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=os.environ | environment, start_new_session=True, **options
        )
    found: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + START_S
        while True:
            found = descendants(process.pid)
            words = [words_of(child) for child in found]
            if all(any(want in one for one in words) for want in wanted):
                break
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, f"{words}\n{log.read_text()[-3000:]}"
            time.sleep(0.05)
        yield process, found, ports_of(found)
    finally:
        for one in [*found, *descendants(process.pid)]:
            if one.is_running():
                one.kill()
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.parametrize(("name", "number"), HITS, ids=lambda v: v.name if isinstance(v, signal.Signals) else v)
def test_whatever_ends_a_command_what_it_started_ends_with_it(proact, tmp_path, name, number):
    arguments, wanted = COMMANDS[name]
    handbook = small_handbook(tmp_path / "handbook")
    environment = {
        "PROACT_DATA_FOLDER": str(tmp_path / "data"),
        "PROACT_KAFKA_PORT": str(free_port()),
        "PROACT_REDIS_PORT": str(free_port()),
        "PROACT_METRICS_PORT": str(free_port()),
        "PROACT_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "PROACT_REDIS_URL": "redis://127.0.0.1:1/0",
        "TMPDIR": str(tmp_path),
    }
    command = line_of(proact, *(one.replace("{handbook}", str(handbook)) for one in arguments))
    terminal = Terminal(tmp_path / "output.log") if number == CLOSED else None
    with started(command, wanted, tmp_path / "output.log", environment, terminal) as (process, children, ports):
        if terminal is None:
            process.send_signal(number)
        else:
            terminal.close()
        process.wait(END_S)
        deadline = time.monotonic() + END_S
        # Threads of a killed Java may hold its ports for a moment after its process counts as ended.
        while (left := [*still_there(children), *filter(port_taken, ports)]) and time.monotonic() < deadline:
            time.sleep(0.05)

        assert left == [], (tmp_path / "output.log").read_text()[-2000:]
        assert "nothing ran" in run(proact, "stack", "down", **environment).stdout
    if name == "bench-compare":  # a kill leaves its checkout of the other revision behind
        for checkout in tmp_path.glob("tmp*/base"):
            shutil.rmtree(checkout)
        subprocess.run([shutil.which("git") or "git", "worktree", "prune"], check=False)
