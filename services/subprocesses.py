"""Processes that end with the one that started them, however that ends: a kill cannot be handled.

Linux sends a process the signal that it asked for (``PR_SET_PDEATHSIG``) when the thread that started it ends. Asking is left to a few lines
of Python that then become the command: the same process id, no code of ours between fork and exec, where threads make it unsafe, and the same
for Java and Redis, which could not watch a pipe. They also see whether the parent has gone before they asked. One thread, which lives as long
as the process, starts them all, so that it is the process that counts and not the thread that wanted it. What the children start ends with
them, since they start it in the same way.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

_TIE: Final = """\
import ctypes, os, sys
parent, number = int(sys.argv[1]), int(sys.argv[2])
if ctypes.CDLL(None).prctl(1, number, 0, 0, 0) or os.getppid() != parent:
    os._exit(127)
try:
    os.execvp(sys.argv[3], sys.argv[3:])
except OSError as error:
    sys.exit(f"{sys.argv[3]}: {error.strerror}")
"""
ENDED_WITHIN_S: Final = 60.0
_STARTER: Final = ThreadPoolExecutor(1, "children")


def start_tied(command: Sequence[str], *, last: int = signal.SIGKILL, **options: Any) -> subprocess.Popen[Any]:
    """Start a process that ends when this one does.

    Args:
        command: the program, on the path or with its own, and its arguments.
        last: the signal that it gets when this process has ended.
        options: of :class:`subprocess.Popen`.

    Raises:
        OSError: this interpreter cannot be started again; a command that is not there is a child that fails.
    """
    tied = [sys.executable, "-I", "-S", "-c", _TIE, str(os.getpid()), str(int(last)), *command]
    return _STARTER.submit(lambda: subprocess.Popen(tied, **options)).result()


def run_tied(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run a process to its end, as :func:`subprocess.run` does with ``capture_output``; it ends when this process does.

    Raises:
        subprocess.TimeoutExpired: after ``timeout`` seconds; it is sent ``last``, as on an interrupt.
        subprocess.CalledProcessError: it failed, and ``check`` is set.
    """
    timeout, check, said = options.pop("timeout", None), options.pop("check", False), options.pop("input", None)
    last = options.pop("last", signal.SIGKILL)
    pipes = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "stdin": subprocess.PIPE if said else subprocess.DEVNULL,
    }
    with start_tied(command, last=last, **(pipes | options)) as process:
        try:
            out, err = process.communicate(said, timeout)
        except BaseException as error:
            if isinstance(error, subprocess.TimeoutExpired):
                error.cmd = list(command)
            process.send_signal(last)
            try:
                process.wait(ENDED_WITHIN_S)
            finally:
                process.kill()
            raise
    done = subprocess.CompletedProcess(list(command), process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def end_with_parent(parent: int) -> None:
    """Let this process end when the one that started it does: for one that multiprocessing has started, by the id of its parent."""
    import ctypes  # noqa: PLC0415 - only where a process was started for us

    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(127)
