"""One call at a time beside a thread: it waits for Kafka or Redis while the worker decides on the next batch, or may never come back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol

Call = Callable[[], None]


class Background(Protocol):
    """One thread calls everything, :meth:`start` and :meth:`join` in turn."""

    def start(self, call: Call) -> None:
        """Begin a call; none is under way."""
        ...

    def wait(self, timeout_s: float) -> None:
        """Wait until the call has ended, but not for longer than this."""
        ...

    def ended(self) -> bool:
        """Whether the call has ended, so that :meth:`join` does not wait."""
        ...

    def join(self) -> None:
        """Wait until the call has ended; raise what it raised."""
        ...

    def close(self) -> None:
        """Release the thread, when it has done what was started; waits for nothing."""
        ...


class ThreadBackground:
    """See :class:`Background`: one thread, which lives as long as this."""

    def __init__(self, name: str = "finishes batches") -> None:
        # Both are one call of the interpreter's own to use; a semaphore is a dozen in Python, some times a batch.
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._endings: SimpleQueue[BaseException | None] = SimpleQueue()
        self._seen: list[BaseException | None] = []
        """How the call ended, once the other thread has seen it."""
        # It may hang in a client for ever, which must not keep the process from ending.
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            ending = None
            try:
                call()
            except BaseException as error:  # noqa: BLE001 - raised by whoever joins
                ending = error
            self._endings.put(ending)

    def start(self, call: Call) -> None:
        """See :class:`Background`."""
        self._calls.put(call)

    def wait(self, timeout_s: float) -> None:
        """See :class:`Background`."""
        if not self._seen:
            with suppress(Empty):
                self._seen.append(self._endings.get(timeout=max(0.0, timeout_s)))

    def ended(self) -> bool:
        """See :class:`Background`."""
        self.wait(0.0)
        return bool(self._seen)

    def join(self) -> None:
        """See :class:`Background`."""
        error = self._seen.pop() if self._seen else self._endings.get()
        if error is not None:
            raise error

    def close(self) -> None:
        """See :class:`Background`."""
        self._calls.put(None)


class LateBackground:
    """See :class:`Background`, for one thread: the call happens when it is waited for, so as late as it ever can."""

    def __init__(self) -> None:
        self._call: Call | None = None

    def start(self, call: Call) -> None:
        """See :class:`Background`."""
        self._call = call

    def wait(self, timeout_s: float) -> None:
        """See :class:`Background`."""

    def ended(self) -> bool:
        """See :class:`Background`: never before it is waited for."""
        return False

    def join(self) -> None:
        """See :class:`Background`."""
        call, self._call = self._call, None
        assert call is not None, "nothing was started"
        call()

    def close(self) -> None:
        """See :class:`Background`."""


class PromptBackground(LateBackground):
    """See :class:`Background`, for one thread: the call happens at once; what it raises is raised when it is waited for."""

    def start(self, call: Call) -> None:
        """See :class:`Background`."""
        self._raised: Exception | None = None
        try:
            call()
        except Exception as error:  # noqa: BLE001 - raised by whoever joins
            self._raised = error

    def ended(self) -> bool:
        """See :class:`Background`."""
        return True

    def join(self) -> None:
        """See :class:`Background`."""
        if self._raised is not None:
            raise self._raised
