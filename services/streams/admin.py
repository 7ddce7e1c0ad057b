"""Topics as ``schemas/`` describes them, applied to a Kafka cluster, and whether a cluster answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ClusterMetadata,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from services.streams.base import StreamsError
from services.streams.clients import COMMON, GROUPLESS, ConnectionErrors, failure
from services.streams.connection import KafkaConnection

REQUEST_TIMEOUT_S = 10.0
_TELLINGS = 200
"""How often a new topic is asked for within that time."""
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """What a topic should be on the broker."""

    name: str
    partitions: int
    retention_days: int | None
    """None: it is compacted."""
    max_message_bytes: int
    strict: bool = True
    """Whether a topic of this name with another number of partitions is refused."""

    @property
    def config(self) -> dict[str, str]:
        """The topic's settings that differ from the broker's defaults."""
        kept = {"cleanup.policy": "compact"}
        if self.retention_days is not None:
            kept = {"retention.ms": str(self.retention_days * DAY_MS)}
        return kept | {
            "max.message.bytes": str(self.max_message_bytes),
            # A compressed megabyte may be a gigabyte: the broker unpacks what comes compressed, and takes what is no larger then than it
            # may be, so that nobody who reads ever unpacks anything. Our own producers, and clients by default, do not compress.
            "compression.type": "uncompressed",
            # Retention goes by whole segments, so they must not be longer than what a topic may outlive.
            "segment.ms": str(DAY_MS),
        }


class KafkaAdmin:
    """The few administrative calls that Proact makes."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection, self._errors = connection, ConnectionErrors()
        self._askers: dict[tuple[str, str], Consumer] = {}
        self._admin = AdminClient(
            connection.admin({"log_level": 0, "socket.timeout.ms": 3_000}) | {"error_cb": self._errors}
        )

    def partitions(self, timeout_s: float = 5.0) -> dict[str, int]:
        """Return the number of partitions of every topic. Raises StreamsError when Kafka does not answer."""
        metadata = self._metadata(timeout_s)
        return {name: len(topic.partitions) for name, topic in metadata.topics.items() if topic.error is None}

    def _metadata(self, timeout_s: float) -> ClusterMetadata:
        with self._failures():
            return self._admin.list_topics(timeout=timeout_s)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            why = self._errors.reported(error, self._admin, self._connection)
            raise failure(self._connection, error, why) from None

    def answers(self, timeout_s: float = 2.0) -> bool:
        """Whether a broker answers."""
        try:
            self.partitions(timeout_s)
        except StreamsError:
            return False
        return True

    def apply(self, plans: Iterable[TopicPlan]) -> dict[str, str]:
        """Create what is missing, set the settings of the rest; return what was done, by topic.

        Raises:
            StreamsError: Kafka does not answer or refuses, or a topic of a strict plan has another number of
                partitions: changing it moves cards to other partitions, away from their profiles.
        """
        existing = self.partitions()
        done = {}
        for plan in plans:
            created = plan.name not in existing and self._create(plan)
            partitions = existing.get(plan.name) or self._partitions_of_new(plan.name)
            done[plan.name] = f"created with {partitions} partitions" if created else self._keep(plan, partitions)
        return done

    def _create(self, plan: TopicPlan) -> bool:
        """Create a topic; return whether there was none. Raises StreamsError."""
        new = NewTopic(plan.name, num_partitions=plan.partitions, replication_factor=-1, config=plan.config)
        future = self._admin.create_topics([new], request_timeout=REQUEST_TIMEOUT_S)[plan.name]
        return self._wait(future, plan.name, but=KafkaError.TOPIC_ALREADY_EXISTS)

    def _keep(self, plan: TopicPlan, partitions: int) -> str:
        """Set the settings of a topic that has so many partitions; return what was done. Raises StreamsError."""
        if plan.strict and partitions != plan.partitions:
            raise StreamsError(
                f"topic {plan.name} has {partitions} partitions, not {plan.partitions}: changing the number "
                f"would part cards from their profiles; say --partitions {partitions} or use another Kafka"
            )
        self.configure(plan.name, plan.config)
        kept = "" if partitions == plan.partitions else f", its {partitions} partitions stay"
        return f"unchanged, settings applied{kept}"

    def _partitions_of_new(self, topic: str) -> int:
        """Return the number of partitions of a topic just made, by us or by others. Raises StreamsError.

        The controller knows a new topic some milliseconds before the brokers that are asked for metadata do. Whoever asks in
        between finds no topic, and whoever then creates it is refused.
        """
        for _ in range(_TELLINGS):
            partitions = self.partitions().get(topic)
            if partitions:
                return partitions
            self._admin.poll(REQUEST_TIMEOUT_S / _TELLINGS)
        raise StreamsError(f"topic {topic}: it exists, but Kafka at {self._connection} does not tell of it")

    def configure(self, topic: str, config: Mapping[str, str]) -> None:
        """Set some settings of a topic; the others stay. Raises StreamsError."""
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in config.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        futures = self._admin.incremental_alter_configs([resource], request_timeout=REQUEST_TIMEOUT_S)
        self._wait(futures[resource], topic)

    def group_lag(self, topic: str, group_id: str) -> int | None:
        """Return how many records of a topic lie behind a group's committed offsets; None when Kafka does not answer."""
        try:
            extents = self.extents(topic)
            return sum(self.group_lags(topic, group_id, extents).values()) if (topic, 0) in extents else None
        except StreamsError:
            return None

    def brokers(self) -> int:
        """Return the number of brokers. Raises StreamsError when Kafka does not answer."""
        return len(self._metadata(5.0).brokers)

    def extents(self, topic: str | None = None) -> dict[tuple[str, int], tuple[int, int]]:
        """Return the first and the next offset of every partition of a topic, or of all of ours. Raises StreamsError."""
        counts = {t: n for t, n in self.partitions().items() if (t == topic if topic else t[0] != "_")}
        asker = self._asker("proact-reader", "read_uncommitted")
        with self._failures():
            return {
                (t, p): asker.get_watermark_offsets(TopicPartition(t, p), REQUEST_TIMEOUT_S)
                for t, n in counts.items()
                for p in range(n)
            }

    def _asker(self, group_id: str, isolation_level: str) -> Consumer:
        """Return a consumer that joins no group, to ask with.

        Offsets are not asked for by the client's admin calls: those time out once a broker has been away, and then end the
        process by an assertion (librdkafka 2.16).
        """
        known = self._askers.get((group_id, isolation_level))
        if known is None:
            own = {"group.id": group_id, "isolation.level": isolation_level}
            known = Consumer(self._connection.consumer(COMMON | GROUPLESS | own))
            self._askers[group_id, isolation_level] = known
        return known

    def topic_id(self, topic: str) -> str:
        """Return the id that Kafka gave to a topic when it was made. Raises StreamsError."""
        with self._failures():
            asked = self._admin.describe_topics(TopicCollection([topic]), request_timeout=REQUEST_TIMEOUT_S)
            return str(asked[topic].result().topic_id)

    def committed(self, topic: str, group_id: str, partitions: Iterable[int], *, stable: bool = True) -> dict[int, int]:
        """Return a group's committed offsets; partitions without one are left out.

        Args:
            topic: the topic.
            group_id: the consumer group.
            partitions: which to ask for.
            stable: for who acts on them: no offset is reported while an atomic commit that may change it is under way. A busy worker
                always has one under way, so who only looks would wait until its work is done, and says False; what such a one
                is given may be some milliseconds older than the end of the last commit.

        Raises:
            StreamsError: Kafka does not answer, or, of stable offsets, an atomic commit stays open.
        """
        wanted = [TopicPartition(topic, p) for p in partitions]
        asker = self._asker(group_id, "read_committed" if stable else "read_uncommitted")
        with self._failures():
            return {tp.partition: tp.offset for tp in asker.committed(wanted, REQUEST_TIMEOUT_S) if tp.offset >= 0}

    def commit(self, topic: str, group_id: str, offsets: Mapping[int, int]) -> None:
        """Set a group's committed offsets. Raises StreamsError, also while the group has members."""
        wanted = [TopicPartition(topic, p, offset) for p, offset in offsets.items()]
        request = ConsumerGroupTopicPartitions(group_id, wanted)
        with self._failures():
            asked = self._admin.alter_consumer_group_offsets([request], request_timeout=REQUEST_TIMEOUT_S)
            for tp in asked[group_id].result().topic_partitions:
                if tp.error is not None:
                    raise StreamsError(f"partition {tp.partition}: {tp.error.str()}")

    def add_partitions(self, topic: str, total: int) -> None:
        """Give a topic more partitions, which parts cards from their profiles. Raises StreamsError."""
        futures = self._admin.create_partitions([NewPartitions(topic, total)], request_timeout=REQUEST_TIMEOUT_S)
        self._wait(futures[topic], topic)

    def delete_topic(self, topic: str) -> None:
        """Delete a topic with all its records. Raises StreamsError."""
        self._wait(self._admin.delete_topics([topic], request_timeout=REQUEST_TIMEOUT_S)[topic], topic)

    def delete_records(self, topic: str, offsets: Mapping[int, int]) -> None:
        """Delete the records before an offset of each partition. Raises StreamsError."""
        wanted = [TopicPartition(topic, p, offset) for p, offset in offsets.items()]
        for future in self._admin.delete_records(wanted, request_timeout=REQUEST_TIMEOUT_S).values():
            self._wait(future, topic)

    def members(self, group_id: str) -> int:
        """Return how many members a group has; one that is not there has none. Raises StreamsError."""
        asked = self._admin.describe_consumer_groups([group_id], request_timeout=REQUEST_TIMEOUT_S)[group_id]
        try:
            return len(asked.result().members)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return 0
            raise StreamsError(f"group {group_id}: {error.args[0].str()}") from None

    def delete_group(self, group_id: str) -> None:
        """Delete a group with all its offsets. Raises StreamsError, also while it has members."""
        self._wait(
            self._admin.delete_consumer_groups([group_id], request_timeout=REQUEST_TIMEOUT_S)[group_id], group_id
        )

    def group_lags(
        self, topic: str, group_id: str, extents: Mapping[tuple[str, int], tuple[int, int]]
    ) -> dict[int, int]:
        """Return how far a group is behind in each partition; a partition without a committed offset counts whole.

        Args:
            topic: the topic.
            group_id: the consumer group.
            extents: what :meth:`extents` returned.

        Raises:
            StreamsError: Kafka does not answer.
        """
        mine = {p: extent for (name, p), extent in extents.items() if name == topic}
        committed = self.committed(topic, group_id, mine, stable=False)
        # The extents are older than the offsets: what came and was decided on in between is no lag below zero.
        return {p: max(0, end - max(start, committed.get(p, start))) for p, (start, end) in mine.items()}

    @staticmethod
    def _wait(future: object, topic: str, but: int | None = None) -> bool:
        """Wait for an answer; return whether it is not the one error that is none. Raises StreamsError."""
        try:
            future.result()  # type: ignore[attr-defined]
        except KafkaException as error:
            if error.args[0].code() != but:
                raise StreamsError(f"topic {topic}: {error.args[0].str()}") from None
            return False
        return True
