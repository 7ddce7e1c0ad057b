"""The clients' settings, each with its reason, and what their errors and messages are turned into."""

from __future__ import annotations

import logging
import socket
from operator import itemgetter
from typing import Any, Final

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka.admin import AdminClient

from services.streams.base import KafkaAwayError, Records, StreamsError
from services.streams.connection import KafkaConnection

log = logging.getLogger("proact.kafka")
_REFUSED: Final = (KafkaError._AUTHENTICATION, KafkaError._SSL)  # noqa: SLF001 - the client's public error codes
_REFUSED_HINTS: Final = ("security.protocol", "SSL", "sasl.")
"""What the client says where a broker asks for a password or TLS and is not given it."""
REASONS_MAX: Final = 10
_NO_CONNECTION: Final = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT)  # noqa: SLF001 - as above
_HINT: Final = "it takes connections: if it asks for a password or for TLS, set security.protocol and what goes with it"
REQUEST_TIMEOUT_S: Final = 3.0  # bounds a shutdown during an outage
PROBE_TIMEOUT_S: Final = 1.0
COMMON: Final[dict[str, Any]] = {
    "client.id": "proact",
    "allow.auto.create.topics": False,  # topics come from schemas/, with their settings
    "socket.timeout.ms": 3_000,  # bounds a commit that nobody answers, and so a shutdown; the default is 60 s
    "socket.nagle.disable": True,  # a small answer must not wait for the next one
    "reconnect.backoff.max.ms": 1_000,  # back within a second of the broker; the default is 10 s
    # After an outage a client may know of no broker any more; it then begins with the bootstrap servers again. The default is 300 s,
    # for which a worker stays out of its group.
    "metadata.recovery.rebootstrap.trigger.ms": 10_000,
    "logger": log,  # a fatal error of the client is a line like any other
    "log_level": 0,  # an outage is ours to report, once, and in our format
}
FETCHES: Final[dict[str, Any]] = {
    # How much one answer brings, and with it how much a batch that is compressed with zstd may come to; the defaults are 50 and 100 MB.
    # Topics of ours hold nothing compressed (services/streams/admin.py); this is for those that somebody else made.
    "fetch.max.bytes": 16_777_216,
    "receive.message.max.bytes": 20_000_000,
    "fetch.message.max.bytes": 1_048_588,  # of one partition: the largest batch that a topic of ours takes
}
"""For everybody who consumes."""
CONSUMER: Final[dict[str, Any]] = FETCHES | {
    "enable.auto.commit": False,  # the worker commits, after its outputs
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",  # every start is at an explicit offset; skipping records is never an answer
    "check.crcs": True,  # a flipped bit must not become a decision; off by default
    "isolation.level": "read_committed",  # and so committed() is the stable offset
    "partition.assignment.strategy": "range",  # eager: one owner at a time, without overlap
    "max.poll.interval.ms": 15_000,  # a stuck worker gives its partitions up; the default is 5 minutes
    # Partitions that were added, and a topic that was made anew, are given out only when the client has noticed; the default is five minutes.
    "topic.metadata.refresh.interval.ms": 2_000,
    "fetch.wait.max.ms": 50,  # an idle partition must not delay the others
    "fetch.min.bytes": 1,
    "fetch.error.backoff.ms": 50,
    "queued.min.messages": 20_000,  # two or three batches ahead; the default of 100,000 is memory for nothing
    "queued.max.messages.kbytes": 32_768,
    # How long no more is fetched once so much is queued; the default of 1 s is longer than a worker takes for all of it.
    "fetch.queue.backoff.ms": 20,
}
GROUPLESS: Final[dict[str, Any]] = FETCHES | {
    "group.id": "proact-reader",  # the client demands one; nothing is ever committed under it
    "enable.auto.commit": False,
    "auto.offset.reset": "error",  # every start is at an explicit offset, and a gap must not be skipped
    "isolation.level": "read_committed",  # only what is committed exists
    "check.crcs": True,
}
"""For consumers that join no group: they look, rebuild and compare."""
PRODUCER: Final[dict[str, Any]] = {
    "acks": "all",
    "enable.idempotence": True,  # a retry neither doubles nor reorders
    "partitioner": "murmur2_random",  # as the Java clients: a key is in the same partition whoever writes it
    "linger.ms": 0,  # a batch of ours is queued at once, so waiting for more only costs time
    "retry.backoff.ms": 10,
    "delivery.report.only.error": True,  # a callback a record only where it failed
    "message.timeout.ms": 120_000,  # an outage is waited out by the worker, not by failing records
    "queue.buffering.max.messages": 500_000,
    "queue.buffering.max.kbytes": 524_288,
    "batch.num.messages": 10_000,
    "batch.size": 100_000,  # a topic's max.message.bytes bounds whole batches, not records: stay below that of every topic of ours
}

ATOMIC: Final[dict[str, Any]] = (
    PRODUCER
    | {
        # A dead worker's open commit hides what was committed of its partitions until this is over; it runs from before the
        # death, so that it is over when the session is. The default is 60 s.
        "transaction.timeout.ms": 6_000,
        "message.timeout.ms": 5_000,  # must be below it
        "retry.backoff.ms": 1,  # the broker asks for a retry right after each atomic commit; the default of 100 ms is 100 ms of latency
        "retry.backoff.max.ms": 50,
        # A request that was sent again after a lost connection takes at least 3/4 of this: so a quick commit was sent once.
        "reconnect.backoff.ms": 200,
    }
)


_AWAY: Final = (*_NO_CONNECTION, KafkaError._RESOLVE)  # noqa: SLF001 - as above


def describe(error: KafkaException | KafkaError) -> str:
    """Return an error's name and words."""
    inner = error.args[0] if isinstance(error, KafkaException) else error
    return f"{inner.name()}: {inner.str()}" if isinstance(inner, KafkaError) else str(inner)


def failure(connection: KafkaConnection, error: KafkaException, why: str = "") -> StreamsError:
    """Return what a failed call is to who waits, with the address: KafkaAwayError where nobody answered.

    ``why`` is what :meth:`ConnectionErrors.reported` adds: who says why somebody is not let in is there, and starting another helps nobody.
    """
    inner = error.args[0]
    if not isinstance(inner, KafkaError) or inner.code() not in _AWAY:
        return StreamsError(f"Kafka at {connection}: {describe(error)}{why}")
    said = f"Kafka at {connection} does not answer ({describe(error)}){why}"
    return StreamsError(said) if why else KafkaAwayError(said)


class ConnectionErrors:
    """A client's ``error_cb``: keeps why brokers do not let it in, which no call's own error says."""

    def __init__(self, *, logs: bool = False) -> None:
        """Log each reason once where nobody asks for them: a worker waits until it is let in."""
        self._said, self._logs = list[str](), logs

    def __call__(self, error: KafkaError) -> None:
        """Take an error of a connection. Never raises: it would replace the result of whatever call served it."""
        # How long it took and how often it happened is said behind the reason.
        said = error.str().partition(" (after")[0]
        refused = error.code() in _REFUSED or any(hint in said for hint in _REFUSED_HINTS)
        if refused and said not in self._said and len(self._said) < REASONS_MAX:
            self._said.append(said)
            if self._logs:
                log.error("Kafka does not let this client in: %s", said)

    def reported(self, error: KafkaException, client: Consumer | AdminClient, connection: KafkaConnection) -> str:
        """Return what is to be added to an error of a client's call, after serving what the client has to say."""
        if error.args[0].code() not in _NO_CONNECTION:
            return ""
        client.poll(0)
        if self._said:
            return f" ({self._said[-1]})"
        return f" ({_HINT})" if _takes_connections(connection) else ""


def _takes_connections(connection: KafkaConnection) -> bool:
    """Whether something listens at the first of the brokers: one that asks for a password or TLS closes the connection without a word."""
    host, _, port = connection.bootstrap_servers.partition(",")[0].rpartition(":")
    try:
        socket.create_connection((host.strip("[] "), int(port)), PROBE_TIMEOUT_S).close()
    except (OSError, ValueError):
        return False
    return True


def count_partitions(client: Consumer, topic: str, timeout_s: float = REQUEST_TIMEOUT_S) -> int:
    """Return how many partitions a topic has. Raises StreamsError, also when there is no such topic."""
    try:
        found = client.list_topics(topic, timeout=timeout_s).topics[topic]
    except KafkaException as error:
        raise StreamsError(describe(error)) from error
    if found.error is not None:
        raise StreamsError(f"there is no topic {topic}: create the topics with `proact topics apply`")
    return len(found.partitions)


def to_records(topic: str, messages: list[Message], partitions: int = 0) -> Records:
    """Return messages of a topic with so many partitions as a batch: the one loop over the client's objects that cannot be avoided, as maps, which take half as long."""
    n = len(messages)
    return Records(
        topic,
        np.fromiter(map(Message.partition, messages), np.int64, n),
        np.fromiter(map(Message.offset, messages), np.int64, n),
        np.fromiter(map(itemgetter(1), map(Message.timestamp, messages)), np.int64, n),
        list(map(Message.key, messages)),
        list(map(Message.value, messages)),
        partitions,
    )
