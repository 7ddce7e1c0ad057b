"""Offset commits that end: librdkafka's synchronous commit waits for ever while the group has no coordinator."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from services.streams.base import StreamsError

COMMIT_TIMEOUT_S: Final = 3.0
"""How long a commit may take; then its outcome is unknown."""


class Committer:
    """Commits on a thread of its own, one at a time, and gives up waiting for it.

    A commit that was given up may still happen. So nothing else is committed, and nothing read of what is committed,
    before it has been answered: :meth:`settle` is called first.
    """

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._wanted: queue.SimpleQueue[Sequence[TopicPartition]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[list[TopicPartition] | KafkaException] = queue.SimpleQueue()
        self._pending = False
        # A daemon, since a commit that waits for a broker must not keep the process from ending.
        threading.Thread(target=self._run, name="committer", daemon=True).start()

    def _run(self) -> None:
        while True:
            wanted = self._wanted.get()
            try:
                self._answers.put(self._consumer.commit(offsets=wanted, asynchronous=False))
            except KafkaException as error:
                self._answers.put(error)

    def settle(self) -> None:
        """Wait for a commit that was given up. Raises StreamsError when it is still not answered."""
        if self._pending:
            self._answer()

    def commit(self, offsets: Sequence[TopicPartition]) -> list[TopicPartition]:
        """Commit, and return the partitions with their errors.

        Raises:
            StreamsError: there was no answer in time; the commit may or may not happen.
            KafkaException: it was refused.
        """
        self.settle()
        self._pending = True
        self._wanted.put(offsets)
        answer = self._answer()
        if isinstance(answer, KafkaException):
            raise answer
        return answer

    def _answer(self) -> list[TopicPartition] | KafkaException:
        try:
            answer = self._answers.get(timeout=COMMIT_TIMEOUT_S)
        except queue.Empty:
            raise StreamsError(f"a commit was not answered within {COMMIT_TIMEOUT_S:.0f} s") from None
        self._pending = False
        return answer
