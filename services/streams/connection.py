"""Where Kafka is and how clients are let in: one value, from which every client of ours is made.

What people may set of a client (``[kafka]``, ``PROACT_KAFKA_*``) is checked here. The client itself is imported only where one is made: every
command reads the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from services.secrets import HiddenValues

_COMMITS: Final = "a worker commits offsets itself, after its outputs"
_IDEMPOTENT: Final = "a retry must neither double nor reorder records"
_ALONE: Final = "a group's partitions have one owner at a time, without overlap"
_CLEAN: Final = "what counts as a clean commit depends on how long a connection takes to come back"
_BOUNDS: Final = "it bounds how long a commit may be open, and so a take-over"
_CODE: Final = "it runs other code in the process"
_FORGED: Final = "it would replace Kafka"
REFUSED: Final[Mapping[str, str]] = {
    "bootstrap.servers": "say kafka_bootstrap_servers",
    "metadata.broker.list": "say kafka_bootstrap_servers",
    "group.id": "say group_id, profiler_group_id and their like",
    "transactional.id": "say transactional_id",
    "session.timeout.ms": "say session_timeout_ms",
    "heartbeat.interval.ms": "it follows from session_timeout_ms",
    "enable.auto.commit": _COMMITS,
    "auto.commit.enable": _COMMITS,
    "auto.commit.interval.ms": _COMMITS,
    "enable.auto.offset.store": _COMMITS,
    "offset.store.method": _COMMITS,
    "offset.store.path": _COMMITS,
    "offset.store.sync.interval.ms": _COMMITS,
    "auto.offset.reset": "every start is at an explicit offset; skipping records is never an answer",
    "isolation.level": "only what is committed exists",
    "check.crcs": "a flipped bit must not become a decision",
    "enable.partition.eof": "the end of a partition is no record",
    "group.instance.id": _ALONE,
    "group.protocol": _ALONE,
    "group.protocol.type": _ALONE,
    "group.remote.assignor": _ALONE,
    "partition.assignment.strategy": _ALONE,
    "max.poll.interval.ms": "a stuck worker must give its partitions up",
    "enable.idempotence": _IDEMPOTENT,
    "enable.gapless.guarantee": _IDEMPOTENT,
    "max.in.flight": _IDEMPOTENT,
    "max.in.flight.requests.per.connection": _IDEMPOTENT,
    "message.send.max.retries": _IDEMPOTENT,
    "retries": _IDEMPOTENT,
    "queuing.strategy": _IDEMPOTENT,
    "acks": "a record counts when every replica in sync has it",
    "request.required.acks": "a record counts when every replica in sync has it",
    "partitioner": "a key must be in the same partition whoever writes it",
    "message.timeout.ms": _BOUNDS,
    "delivery.timeout.ms": _BOUNDS,
    "transaction.timeout.ms": _BOUNDS,
    "socket.timeout.ms": _BOUNDS,
    "socket.max.fails": _CLEAN,
    "reconnect.backoff.ms": _CLEAN,
    "reconnect.backoff.max.ms": _CLEAN,
    "batch.size": "a larger batch than a topic takes is refused for ever",
    "delivery.report.only.error": "a record that fails must be reported, and no other",
    "allow.auto.create.topics": "topics come from schemas/, with their settings",
    "plugin.library.paths": _CODE,
    "sasl.kerberos.kinit.cmd": _CODE,
    "ssl.engine.location": _CODE,
    "log.level": "an outage is reported by Proact, once, in its format",
    "log.queue": "an outage is reported by Proact, once, in its format",
    "logger": "an outage is reported by Proact, once, in its format",
    "default.topic.config": "say the property itself",
    "test.mock.num.brokers": _FORGED,
    "test.mock.broker.rtt": _FORGED,
}
"""Properties that the guarantees rest on, or that would lead round them, with the reason or with the setting to use."""
CONSUMER_ONLY: Final = frozenset({
    "coordinator.query.interval.ms", "queued.min.messages", "queued.max.messages.kbytes", "fetch.wait.max.ms", "fetch.queue.backoff.ms",
    "fetch.message.max.bytes", "max.partition.fetch.bytes", "fetch.max.bytes", "fetch.min.bytes", "fetch.error.backoff.ms",
    "consume.callback.max.messages",
})  # fmt: skip
"""Properties that librdkafka warns of in a producer."""
PRODUCER_ONLY: Final = frozenset({
    "queue.buffering.max.messages", "queue.buffering.max.kbytes", "queue.buffering.max.ms", "linger.ms", "queue.buffering.backpressure.threshold",
    "compression.codec", "compression.type", "compression.level", "batch.num.messages", "sticky.partitioning.linger.ms", "request.timeout.ms",
    "produce.offset.report",
})  # fmt: skip
"""Properties that librdkafka warns of in a consumer."""


def why_refused(name: str) -> str | None:
    """Return why a property of the client cannot be set; None where it may be, if there is one of this name."""
    if name.startswith("test.mock."):
        return _FORGED
    if "_" in name:
        return "the client's properties are written with dots"
    return REFUSED.get(name)


@dataclass(frozen=True, slots=True, repr=False)
class KafkaConnection:
    """The brokers and the client properties that people have set; its text shows no secret."""

    bootstrap_servers: str
    """``host:port``, several with commas."""
    properties: HiddenValues = field(default_factory=HiddenValues)
    """By librdkafka's names."""

    def __post_init__(self) -> None:
        """Raises ValueError for a property that cannot be set."""
        for name in self.properties:
            why = why_refused(name)
            if why is not None:
                raise ValueError(f"{name} cannot be set: {why}")

    def __str__(self) -> str:
        return self.bootstrap_servers

    def __repr__(self) -> str:
        return f"KafkaConnection({self.bootstrap_servers}{'; ' if self.properties else ''}{self.properties!r})"

    def consumer(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a consumer: its own, then what people have set."""
        return self._client(own, PRODUCER_ONLY)

    def producer(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a producer."""
        return self._client(own, CONSUMER_ONLY)

    def admin(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of an administrative client."""
        return self._client(own, CONSUMER_ONLY | PRODUCER_ONLY)

    def _client(self, own: Mapping[str, Any], excluded_of: frozenset[str]) -> dict[str, Any]:
        given = {name: value for name, value in self.properties.items() if name not in excluded_of}
        return {**own, "bootstrap.servers": self.bootstrap_servers, **given}

    def check(self) -> None:
        """Make a client of each kind, which connects to nothing. Raises ValueError in the client's words, without a secret."""
        if not self.properties:
            return
        from confluent_kafka import Consumer, KafkaException, Producer  # noqa: PLC0415 - only where something is set

        nowhere = KafkaConnection("", self.properties)
        try:
            # The same settings as those that work, since some properties are refused beside others.
            Producer(nowhere.producer({"log_level": 0, "enable.idempotence": True}))
            Consumer(nowhere.consumer({"log_level": 0, "group.id": "proact-check"})).close()
        except (KafkaException, TypeError, ValueError) as error:
            inner = error.args[0] if error.args else error
            said = inner.str() if hasattr(inner, "str") else str(inner)
            raise ValueError(self.properties.without_secrets(" ".join(said.split()))) from None
