"""A signal during the start of a service ends it, whenever it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from services.stack.processes import free_port

pytestmark = [pytest.mark.alone, pytest.mark.timeout(900)]

MOMENTS, AT_ONCE = 30, 3
END_S = 60
RUNS = '"scorer runs"'


def start(folder: Path, name: str) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a scorer that needs nobody's answer: its Kafka and Redis are away."""
    log = folder / f"{name}.log"
    environment = {
        "PROACT_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "PROACT_REDIS_URL": "redis://127.0.0.1:1/0",
        "PROACT_METRICS_PORT": str(free_port()),
        "PROACT_LOG_FORMAT": "json",
    }
    with log.open("wb") as output:
        command = [sys.executable, "-m", "services.scorer"]
        return subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | environment), log


def handles(pid: int, number: int) -> bool:
    """Whether the process has a handler for a signal: Linux says so."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return bool(mask >> (number - 1) & 1)


def hit(folder: Path, number: int, moment_s: float) -> tuple[float, int | None, bool]:
    """Send a signal that long after the start; return the exit code, None where it goes on, and whether it could be handled."""
    process, _ = start(folder, f"at-{moment_s:.3f}")
    try:
        time.sleep(moment_s)
        handled = handles(process.pid, signal.SIGTERM)  # Python itself handles SIGINT
        process.send_signal(number)
        return moment_s, process.wait(END_S), handled
    except subprocess.TimeoutExpired:
        return moment_s, None, handled
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=lambda v: v.name)
def test_a_signal_at_any_moment_of_the_start_ends_a_scorer(tmp_path, number):
    process, log = start(tmp_path, "whole")
    begin = time.monotonic()
    while RUNS not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() - begin < 200
        time.sleep(0.02)
    whole_s = time.monotonic() - begin
    process.kill()
    process.wait()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        moments = np.linspace(0.0, 1.3 * AT_ONCE * whole_s, MOMENTS).tolist()
        found = list(pool.map(lambda at: hit(tmp_path, number, at), moments))

    # Before any line of ours has run, the system's default for the signal holds, which ends it, too.
    expected = [(at, 0 if handled or code == 0 else -number, handled) for at, code, handled in found]
    assert found == expected
    assert sum(handled for _, _, handled in found) > MOMENTS / 3
