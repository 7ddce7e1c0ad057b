"""What ends a process: signals, and how often they come.

A handler that raises is not relied on: native callbacks, ``__del__`` and the bare ``except`` of a library swallow what it raises, and the
process runs on. So a handler either ends the process itself or leaves a flag; and a second signal ends it at once.

Nothing of ours and nothing heavy is imported here: whoever handles signals does so before anything else.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Final

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAME_WITHIN_S: Final = 1.0
"""A closing terminal sends SIGHUP more than once: signals so close together are one."""


def end_at_once() -> None:
    """End the process with exit code 0 when a signal comes: for as long as nothing is under way that would have to be ended in order."""
    _handle(lambda _: os._exit(0))


def end_in_order(stop: Callable[[], None]) -> None:
    """Call ``stop`` when a signal comes; a second one ends the process at once, as a crash would.

    A command's ``stop`` may raise, to get to its cleaning up; should that be swallowed, there is the second signal.
    """
    first_s: list[float] = []

    def handle(number: int) -> None:
        now_s = time.monotonic()
        if first_s and now_s - first_s[0] > SAME_WITHIN_S:
            os._exit(128 + number)
        if not first_s:
            first_s.append(now_s)
            stop()

    _handle(handle)


def _handle(handle: Callable[[int], None]) -> None:
    """Set a handler. It is also set where a shell that starts a command in the background made it ignore Ctrl-C."""
    for number in ENDING:
        # What nohup started is not to end with the terminal.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda received, _: handle(received))
