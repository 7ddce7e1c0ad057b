"""What there is to see of a run: topics, offsets, the grid; and, where somebody looked meanwhile, what was seen then.

Kafka and Redis are asked with clients of the checker's own, so that a fault in the workers' adapters shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import confluent_kafka
import redis
from confluent_kafka import Consumer, TopicPartition

INPUTS, DECISIONS, ALERTS, DEAD_LETTERS = "card-transactions", "card-decisions", "card-alerts", "dead-letters"
TERMINAL_EVENTS, LABELS = "terminal-events", "fraud-labels"
REFERENCE: Final = ("accounts", "customers")
REQUESTS, REASSESSMENTS = "card-reassessment-requests", "card-reassessments"
OUTPUTS: Final = (DECISIONS, ALERTS, DEAD_LETTERS, TERMINAL_EVENTS, REQUESTS, REASSESSMENTS)
STUCK_POLLS: Final = 100
ASK_S: Final = 10.0
POLL_S: Final = 0.2


class EvidenceError(Exception):
    """Kafka or Redis could not be asked; there is no verdict."""


class AwayError(EvidenceError):
    """Kafka or Redis does not answer."""

    remedy: ClassVar[str] = "start them with `make up` or `proact stack up`"


def redis_error(error: Exception) -> EvidenceError:
    """Return what a client's error is to who waits for the verdict, without what it repeats of a user or a command."""
    if not isinstance(error, redis.exceptions.AuthenticationError | redis.exceptions.NoPermissionError):
        return AwayError(f"Redis does not answer: {type(error).__name__}")
    if "Authentication required" in str(error) or "client already authenticated" in str(error):
        return EvidenceError("Redis wants a password: set PROACT_REDIS_PASSWORD")
    return EvidenceError(f"Redis refuses the user or the password that it was given ({type(error).__name__})")


@dataclass(frozen=True, slots=True)
class Seen:
    """One record as a reader saw it."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a partition while the run went on."""

    at_s: float
    partition: int
    applied: int | None
    epoch: int
    committed: int | None


@dataclass(slots=True)
class Evidence:
    """A run, at rest."""

    inputs: list[Seen]
    outputs: dict[str, list[Seen]]
    committed: dict[int, int]
    log_start: dict[int, int]
    log_end: dict[int, int]
    applied: dict[int, int | None]
    profiles: dict[int, dict[bytes, bytes]]
    labels: list[Seen] = field(default_factory=list)
    routed: bool = False
    """Whether labels were brought to their terminals, by a router that has committed offsets up to their end."""
    terminal_applied: dict[int, int | None] = field(default_factory=dict)
    terminal_profiles: dict[int, dict[bytes, bytes]] = field(default_factory=dict)
    reference: dict[str, list[Seen]] = field(default_factory=dict)
    """By topic, what was announced of accounts and customers."""
    reference_applied: dict[str, dict[int, int | None]] = field(default_factory=dict)
    reference_profiles: dict[str, dict[int, dict[bytes, bytes]]] = field(default_factory=dict)
    hanging: list[str] = field(default_factory=list)
    """Topics and partitions with an atomic commit that is still open."""
    samples: list[Sample] = field(default_factory=list)
    late_applies: list[str] = field(default_factory=list)
    """Writes to the grid by somebody who had lost the partition, where the store notes them (a model does)."""
    set_back_s: list[float] = field(default_factory=list)
    """When, on the samples' clock, the grid was emptied or set back from outside."""
    live: dict[str, dict[tuple[int, int], int]] = field(default_factory=dict)
    """What a reader saw while the run went on: by topic, the hash of each record by partition and offset."""


@dataclass(frozen=True, slots=True, repr=False)
class Where:
    """A Kafka and a Redis, and what their clients are given so that they are let in: secrets, too, so no message shows any of it."""

    kafka: Mapping[str, Any]
    """Of Kafka's client, by librdkafka's names."""
    redis_url: str
    redis_options: Mapping[str, Any] = field(default_factory=dict)
    """Of Redis's client, as keyword arguments."""


class Log:
    """One cluster, asked by consumers that never join a group: the client's admin calls do not survive every broker's death."""

    def __init__(self, where: Where, group_id: str) -> None:
        self._settings = dict(where.kafka) | {
            "group.id": group_id, "enable.auto.commit": False,
            "auto.offset.reset": "error", "check.crcs": True, "log_level": 0,
        }  # fmt: skip
        self._of_committed = Consumer(self._settings | {"isolation.level": "read_committed"})
        self._of_all = Consumer(self._settings | {"isolation.level": "read_uncommitted"})

    def ends(self, topic: str, *, committed: bool) -> dict[int, int]:
        """Return the end of every partition as readers of committed, or of all, records see it."""
        return {
            p: high for p, (_, high) in self._extents(topic, self._of_committed if committed else self._of_all).items()
        }

    def starts(self, topic: str) -> dict[int, int]:
        """Return the first offset of every partition."""
        return {p: low for p, (low, _) in self._extents(topic, self._of_all).items()}

    @staticmethod
    def _extents(topic: str, consumer: Consumer) -> dict[int, tuple[int, int]]:
        metadata = consumer.list_topics(topic, timeout=ASK_S).topics[topic]
        if metadata.error is not None:
            raise EvidenceError(f"there is no topic {topic}")
        return {p: consumer.get_watermark_offsets(TopicPartition(topic, p), ASK_S) for p in metadata.partitions}

    def committed(self, partitions: Iterable[int], topic: str = INPUTS, *, stable: bool = True) -> dict[int, int]:
        """Return the group's committed offsets: stable ones, or those that Kafka shows, beside commits that are under way."""
        asker = self._of_committed if stable else self._of_all
        found = asker.committed([TopicPartition(topic, p) for p in partitions], ASK_S)
        return {tp.partition: tp.offset for tp in found if tp.offset >= 0}

    def read(self, topic: str) -> Iterator[Seen]:
        """Yield every committed record up to the end as of now, each partition's in order."""
        ends, starts = self.ends(topic, committed=True), self.starts(topic)
        consumer = Consumer(self._settings | {"isolation.level": "read_committed"})
        consumer.assign([TopicPartition(topic, p, starts[p]) for p in ends])
        left, quiet = {p for p in ends if starts[p] < ends[p]}, 0
        while left:
            message = consumer.poll(POLL_S)
            messages = [] if message is None else [message, *consumer.consume(5_000, 0)]
            quiet = 0 if messages else quiet + 1
            if quiet > STUCK_POLLS:
                raise EvidenceError(f"{topic} cannot be read to its end")
            for seen in messages:
                if seen.error() is not None:
                    raise EvidenceError(f"{topic}: {seen.error().str()}")
                yield Seen(seen.partition(), seen.offset(), seen.timestamp()[1], seen.key(), seen.value())
            positions = consumer.position([TopicPartition(topic, p) for p in left])
            left -= {tp.partition for tp in positions if tp.offset >= ends[tp.partition]}
        consumer.close()


class Profiles:
    """One Redis."""

    def __init__(self, where: Where) -> None:
        self._client: Any = redis.Redis.from_url(where.redis_url, **{"socket_timeout": 10, **where.redis_options})

    def meta(self, partition: int, topic: str = INPUTS) -> dict[bytes, bytes]:
        """Return what is known of a partition."""
        found: dict[bytes, bytes] = self._client.hgetall(f"{{{topic}:{partition}}}:meta")
        return found

    def all(self, partition: int, topic: str = INPUTS) -> dict[bytes, bytes]:
        """Return all profiles of a partition."""
        return dict(self._client.hscan_iter(f"{{{topic}:{partition}}}:profiles", count=1_000))


def applied_of(meta: dict[bytes, bytes]) -> int | None:
    """Return the applied offset of a partition's meta."""
    return int(meta[b"applied"]) if b"applied" in meta else None


@contextmanager
def kafka_answers() -> Iterator[None]:
    """Say of what a client of Kafka raises that Kafka is away. Raises AwayError."""
    try:
        yield
    except confluent_kafka.KafkaException as error:
        raise AwayError(f"Kafka: {error.args[0].str()}") from error


def gather(where: Where, groups: tuple[str, str], progress: Callable[[str], None]) -> Evidence:
    """Read everything, at rest.

    Args:
        where: Kafka and the grid.
        groups: of the scorers, and of the routers.
        progress: called with what is being read.

    Raises:
        EvidenceError: something does not answer.
    """
    try:
        with kafka_answers():
            scorers, routers = (Log(where, group) for group in groups)
            return _gather(scorers, routers, Profiles(where), progress)
    except (redis.exceptions.RedisError, OSError) as error:
        raise redis_error(error) from None


def _gather(log: Log, routers: Log, grid: Profiles, progress: Callable[[str], None]) -> Evidence:
    hanging = []
    for topic in OUTPUTS:
        visible, all_of_it = log.ends(topic, committed=True), log.ends(topic, committed=False)
        hanging += [f"{topic} {p}" for p in visible if visible[p] != all_of_it[p]]
    ends = log.ends(INPUTS, committed=False)
    progress(f"reading {sum(ends.values()):,} transactions and what became of them")
    inputs = list(log.read(INPUTS))
    outputs = {topic: list(log.read(topic)) for topic in OUTPUTS}
    progress("reading the grid")
    metas = {p: grid.meta(p) for p in ends}
    terminals = log.ends(TERMINAL_EVENTS, committed=False)
    label_ends = log.ends(LABELS, committed=False)
    routed = routers.committed(label_ends, LABELS)
    known = {topic: log.ends(topic, committed=False) for topic in REFERENCE}
    return Evidence(
        inputs=inputs,
        outputs=outputs,
        committed=log.committed(ends),
        log_start=log.starts(INPUTS),
        log_end=ends,
        applied={p: applied_of(meta) for p, meta in metas.items()},
        profiles={p: grid.all(p) for p in ends},
        labels=list(log.read(LABELS)),
        routed=all(routed.get(p) == end for p, end in label_ends.items() if end),
        terminal_applied={p: applied_of(grid.meta(p, TERMINAL_EVENTS)) for p in terminals},
        terminal_profiles={p: grid.all(p, TERMINAL_EVENTS) for p in terminals},
        reference={topic: list(log.read(topic)) for topic in known},
        reference_applied={t: {p: applied_of(grid.meta(p, t)) for p in found} for t, found in known.items()},
        reference_profiles={t: {p: grid.all(p, t) for p in found} for t, found in known.items()},
        hanging=hanging,
    )
