"""One call at a time beside the worker's thread: it waits for Kafka and Redis while the worker decides on the next batch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

Call = Callable[[], None]


class Background(Protocol):
    """The worker's thread calls everything, :meth:`start` and :meth:`join` in turn."""

    def start(self, call: Call) -> None:
        """Begin a call; none is under way."""
        ...

    def join(self) -> None:
        """Wait until the call has ended; raise what it raised."""
        ...

    def close(self) -> None:
        """Release the thread; no call is under way, or it does not come back."""
        ...


class ThreadBackground:
    """See :class:`Background`: one thread, which lives as long as this."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._ended: SimpleQueue[BaseException | None] = SimpleQueue()
        # It may hang in a client for ever, which must not keep the process from ending.
        threading.Thread(target=self._work, name="finishes batches", daemon=True).start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
                self._ended.put(None)
            except BaseException as error:  # noqa: BLE001 - raised by whoever joins
                self._ended.put(error)

    def start(self, call: Call) -> None:
        """See :class:`Background`."""
        self._calls.put(call)

    def join(self) -> None:
        """See :class:`Background`."""
        error = self._ended.get()
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

    def join(self) -> None:
        """See :class:`Background`."""
        if self._raised is not None:
            raise self._raised
