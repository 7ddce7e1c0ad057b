"""Looks once a second which topic a name stands for: the consumer itself learns of a topic that is gone, or has changed, late."""

from __future__ import annotations

import threading
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from services.streams.base import MISSING_TOPIC, StreamsError, TopicIdentity, TopicMissingError
from services.streams.clients import COMMON, REQUEST_TIMEOUT_S, describe
from services.streams.connection import KafkaConnection

LOOK_EVERY_S: Final = 1.0
"""The client's own metadata are up to five minutes old; one small request a second costs the hot path nothing."""


class TopicWatch:
    """Looks from a thread of its own until it is closed; whoever wants to know reads :attr:`seen`."""

    def __init__(self, connection: KafkaConnection, topic: str) -> None:
        self._topic = topic
        self._admin = AdminClient(connection.admin(COMMON))
        self.seen: TopicIdentity | None = None
        """What the topic was when it was last looked at, ``MISSING_TOPIC`` if there was none; None where Kafka did not say."""
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="watches the topic", daemon=True).start()

    def describe(self) -> TopicIdentity:
        """Ask which topic this is, from any thread. Raises StreamsError, TopicMissingError."""
        asked = TopicCollection([self._topic])
        try:
            found = self._admin.describe_topics(asked, request_timeout=REQUEST_TIMEOUT_S)[self._topic].result()
        except KafkaException as error:
            missing = error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
            raise (TopicMissingError if missing else StreamsError)(describe(error)) from error
        return TopicIdentity(str(found.topic_id), len(found.partitions))

    def _run(self) -> None:
        while not self._closed.wait(LOOK_EVERY_S):
            try:
                self.seen = self.describe()
            except TopicMissingError:
                self.seen = MISSING_TOPIC
            except StreamsError:
                self.seen = None  # an outage is no news of the topic

    def close(self) -> None:
        """Look no more."""
        self._closed.set()
