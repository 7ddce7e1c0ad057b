"""Signals end a process whatever its libraries swallow, and children end with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from services.signals import SAME_WITHIN_S
from services.subprocesses import run_tied, start_tied

SWALLOWS = """
import sys, time
from services.signals import end_at_once, end_in_order
stopped = []
{handle}
print("ready", flush=True)
for _ in range(3000):
    try:
        time.sleep(0.01)
    except BaseException:
        pass
    if {until}:
        sys.exit(7)
"""
STARTS = """
import sys, threading, time
from services.subprocesses import start_tied
child = [sys.executable, "-c", "import time; time.sleep(600)"]
grandchild = [sys.executable, "-c", f"import time; from services.subprocesses import start_tied; start_tied({child!r}); time.sleep(600)"]
threading.Thread(target=lambda: start_tied(grandchild)).start()
print("ready", flush=True)
time.sleep(600)
"""


def start(code: str, hangup: signal.Handlers = signal.SIG_DFL) -> subprocess.Popen[str]:
    """Start code; ``hangup`` is what it inherits for SIGHUP, whatever the tests were started by."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, hangup),  # noqa: PLW1509 - no thread holds a lock that this takes
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda v: v.name)
def test_a_signal_ends_at_once_what_swallows_every_exception(number):
    with start(SWALLOWS.format(handle="end_at_once()", until=False)) as process:
        process.send_signal(number)
        assert process.wait(60) == 0


def test_the_first_signal_asks_and_the_second_ends():
    code = SWALLOWS.format(handle="end_in_order(lambda: stopped.append(True))", until=False)
    with start(code) as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGHUP)  # as a closing terminal does
        time.sleep(1.5 * SAME_WITHIN_S)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    asked = SWALLOWS.format(handle="end_in_order(lambda: stopped.append(True))", until="stopped")
    with start(asked) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 7


def test_what_nohup_started_does_not_end_with_the_terminal():
    ignored = SWALLOWS.format(handle="end_at_once()", until=False)
    with start(ignored, signal.SIG_IGN) as process:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_a_child_and_its_child_end_with_a_parent_that_is_killed_and_not_with_the_thread_that_started_them():
    with start(STARTS) as process:
        deadline = time.monotonic() + 60
        while len(found := psutil.Process(process.pid).children(recursive=True)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        assert all(one.is_running() for one in found), "the thread that started it has ended long ago"
        process.kill()
        gone, alive = psutil.wait_procs(found, 60)
        assert (len(gone), alive) == (2, [])


def test_a_child_whose_parent_has_gone_before_it_could_ask_does_not_begin():
    reported = start_tied.__globals__["_TIE"]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", reported, str(os.getpid() + 1), "9", sys.executable, "-c", "print('begun')"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (127, "")


def test_run_tied_returns_what_run_does():
    echo = run_tied([sys.executable, "-c", "import sys; print(sys.stdin.read()); sys.exit(3)"], input="said", text=True)

    assert (echo.returncode, echo.stdout.strip(), echo.stderr) == (3, "said", "")
    with pytest.raises(subprocess.CalledProcessError):
        run_tied([sys.executable, "-c", "import sys; sys.exit(3)"], check=True)
    with pytest.raises(subprocess.TimeoutExpired):
        run_tied([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.5)
    assert "No such file" in run_tied(["/nowhere/at/all"], text=True).stderr


def test_children_are_started_from_any_thread():
    found = []
    threads = [threading.Thread(target=lambda: found.append(run_tied(["true"]).returncode)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [0] * 5
