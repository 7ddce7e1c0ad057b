"""Offset commits that end: librdkafka's synchronous commit waits for ever while the group has no coordinator.

It would also block every other call on the consumer, from any thread, since the client takes one call at a time. So a
commit is asynchronous, and its answer is waited for by serving the consumer's callbacks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from confluent_kafka import KafkaError, TopicPartition

from services.streams.base import StreamsError

SERVE_S: Final = 0.001
"""How long one serving of callbacks waits: the grain of a commit's duration."""
SERVINGS_MAX: Final = 3_000
"""Servings before a commit is given up, which is 3 s; then its outcome is unknown."""


class Committer:
    """One commit at a time.

    A commit that was given up may still happen. So nothing else is committed, and nothing read of what is committed,
    before it has been answered: :meth:`settle` comes first.
    """

    def __init__(self, serve: Callable[[], None]) -> None:
        self._serve = serve
        self.pending = False
        """Whether a commit has been sent and not answered."""
        self._failure: str | None = None

    def on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """Take the answer: the consumer's ``on_commit`` callback. Never raises."""
        failed = error or next((tp.error for tp in partitions if tp.error is not None), None)
        self._failure = None if failed is None else f"{failed.name()}: {failed.str()}"
        self.pending = False

    def settle(self) -> None:
        """Wait for the answer of a commit, if one is under way. Raises StreamsError when it does not come."""
        for _ in range(SERVINGS_MAX):
            if not self.pending:
                return
            self._serve()
        raise StreamsError(f"a commit was not answered within {SERVINGS_MAX * SERVE_S:.0f} s")

    def commit(self, send: Callable[[], None]) -> None:
        """Send a commit and wait for its answer.

        Raises:
            StreamsError: it was refused, or there was no answer in time and it may or may not happen.
        """
        self.settle()
        self.pending = True
        try:
            send()
        except BaseException:
            self.pending = False  # what the client refuses at once is not under way, and is never answered
            raise
        self.settle()
        if self._failure is not None:
            raise StreamsError(f"a commit was refused: {self._failure}")
