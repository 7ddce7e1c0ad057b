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
import psutil
import pytest

from services.registry import process_of
from services.stack.processes import free_port

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

MOMENTS, AT_ONCE = {signal.SIGINT: 30, signal.SIGTERM: 10}, 3
START_S, END_S = 200, 60
"""Bounds for a busy machine, not what is usual."""
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
        command = [sys.executable, "-m", *process_of("scorer")]
        return subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | environment), log


def wait_for(process: subprocess.Popen[bytes], log: Path, cpu_s: float) -> float:
    """Wait until a process has worked for so long, or runs; return for how long it has: by the clock it is slower on a busy machine."""
    own, deadline = psutil.Process(process.pid), time.monotonic() + START_S
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        worked_s = sum(own.cpu_times()[:2])
        if worked_s >= cpu_s or RUNS in log.read_text():
            return worked_s
        time.sleep(0.002)


def handles(pid: int, number: int) -> bool:
    """Whether the process has a handler for a signal: Linux says so."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return bool(mask >> (number - 1) & 1)


def hit(folder: Path, number: int, cpu_s: float) -> tuple[float, int | None, bool]:
    """Send a signal after so much work; return when, the exit code, None where it goes on, and whether a handler of ours was there."""
    process, log = start(folder, f"at-{cpu_s:.3f}")
    try:
        wait_for(process, log, cpu_s)
        ours = handles(process.pid, signal.SIGHUP)  # Python itself handles SIGINT
        process.send_signal(number)
        return cpu_s, process.wait(END_S), ours
    except subprocess.TimeoutExpired:
        return cpu_s, None, ours
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", MOMENTS, ids=lambda v: v.name)
def test_a_signal_at_any_moment_of_the_start_ends_a_scorer(tmp_path, number):
    process, log = start(tmp_path, "whole")
    whole_s = wait_for(process, log, float("inf"))
    process.kill()
    process.wait()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        moments = np.linspace(0.0, 1.1 * whole_s, MOMENTS[number]).tolist()
        found = list(pool.map(lambda at: hit(tmp_path, number, at), moments))

    # Before any line of ours has run, what Python and the system do on the signal holds, which ends it, too.
    expected = [(at, 0 if ours or code == 0 else -number, ours) for at, code, ours in found]
    assert found == expected
    assert sum(ours for _, _, ours in found) > MOMENTS[number] / 2
