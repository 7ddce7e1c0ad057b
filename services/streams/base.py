"""The contracts that a worker has with the log.

One thread, the worker's, calls everything here, in this order: :meth:`Source.poll` until records or a change of
assignment come; for a new assignment :meth:`Publisher.open`, then :meth:`Source.log_states`, then :meth:`Source.start` with
the offsets to go on from; for records :meth:`Publisher.publish`. A source that is asked to wait keeps its place in the group
by :meth:`Source.keep_alive`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

import numpy as np

from services.core.columns import type_bool, type_i64
from services.core.immutable import immutable


class StreamsError(Exception):
    """The log could not be reached, or refused: an outage, waited out by the worker."""


class KafkaAwayError(StreamsError):
    """No broker answers; the message says where."""

    remedy: ClassVar[str] = (
        "start one with `make up` or `proact stack up`, or name the one that runs with PROACT_KAFKA_BOOTSTRAP_SERVERS"
    )


class TopicMissingError(StreamsError):
    """There is no such topic: nothing can be waited for but that somebody makes it."""


class DamagedRecordError(StreamsError):
    """A record of a partition cannot be read, and the client would go on behind it: read again from the committed offset."""

    def __init__(self, message: str, partition: int, offset: int) -> None:
        super().__init__(message)
        self.partition, self.offset = partition, offset


@immutable
class Records:
    """A batch of records of one topic, in the order of each partition; every sequence has one item a record."""

    topic: str
    partition: type_i64
    offset: type_i64
    timestamp_ms: type_i64
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    partitions: int = 0
    """How many partitions the topic has; 0 where nobody asked."""

    def __post_init__(self) -> None:
        assert len(self.partition) == len(self.offset) == len(self.timestamp_ms) == len(self.keys) == len(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: type_bool) -> Records:
        """Return the records where ``rows`` is true."""
        kept = rows.nonzero()[0].tolist()
        return Records(
            self.topic,
            self.partition[rows],
            self.offset[rows],
            self.timestamp_ms[rows],
            [self.keys[i] for i in kept],
            [self.values[i] for i in kept],
            self.partitions,
        )

    def counts(self) -> dict[int, int]:
        """Return how many records there are, by partition."""
        counts = np.bincount(self.partition)
        return {p: int(counts[p]) for p in np.flatnonzero(counts).tolist()}

    def next_offsets(self) -> dict[int, int]:
        """Return, by partition, the offset behind the batch's last record: the one place that adds one."""
        partition = self.partition
        last = np.ones(len(self), bool)
        np.not_equal(partition[1:], partition[:-1], out=last[:-1])
        # Of each stretch of one partition the last record; of two stretches of one partition the later one counts.
        rows = last.nonzero()[0]
        return dict(zip(partition[rows].tolist(), (self.offset[rows] + 1).tolist(), strict=True))


@immutable
class AtPlaces:
    """What lies at n places of a topic's log, as readers of committed records see it; every sequence has one item a place."""

    keys: list[bytes | None]
    values: list[bytes | None]
    there: type_bool
    """Whether a record lies there; what is neither there nor may come never will be: the log is only appended to."""
    may_come: type_bool
    """Whether the log ends before the place."""
    unread: type_bool
    """Whether nobody has looked there yet: there were too many for one call."""

    @classmethod
    def nothing(cls, n: int) -> AtPlaces:
        """Return n places where nothing is, to be filled in."""
        return cls([None] * n, [None] * n, np.zeros(n, bool), np.zeros(n, bool), np.zeros(n, bool))

    def fill(self, rows: type_i64, found: AtPlaces) -> None:
        """Take over what was found at some rows' places."""
        for row, key, value in zip(rows.tolist(), found.keys, found.values, strict=True):
            self.keys[row], self.values[row] = key, value
        self.there[rows], self.may_come[rows], self.unread[rows] = found.there, found.may_come, found.unread

    def __len__(self) -> int:
        return len(self.keys)


@immutable
class Output:
    """Records for one topic."""

    topic: str
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]


@dataclass(frozen=True, slots=True)
class Assignment:
    """The partitions that the group gave to this worker; a higher generation makes every earlier one void."""

    generation: int
    partitions: tuple[int, ...]
    member: bool
    """Whether the group has given this assignment, be it an empty one (a spare); False while it has taken the last one back."""


@dataclass(frozen=True, slots=True)
class LogState:
    """What Kafka knows of one partition: the stable committed offset of the group (None: none) and the log's ends."""

    committed: int | None
    log_start: int
    log_end: int
    topic_id: str
    partitions: int
    """How many partitions the topic has."""


class PlaceReader(Protocol):
    """Reads single records of topics, wherever they lie, as a member of no group."""

    def read(self, topic: str, partition: type_i64, offset: type_i64) -> AtPlaces:
        """Return what lies at n places, which may be any numbers; of very many it leaves some unread. Raises StreamsError."""
        ...

    def close(self) -> None:
        """Release the client."""
        ...


class NoPlaceReader:
    """For services that read nothing but their own topic."""

    def read(self, topic: str, partition: type_i64, offset: type_i64) -> AtPlaces:
        """Fail: nobody asks."""
        raise AssertionError(f"{topic} {partition} {offset}: it is not read by place")

    def close(self) -> None:
        """See :class:`PlaceReader`."""


@dataclass(frozen=True, slots=True)
class TopicIdentity:
    """Which topic it is: one that was made anew has another id under the same name."""

    topic_id: str
    partitions: int


MISSING_TOPIC: Final = TopicIdentity("", 0)
"""There is no topic of that name."""


class Source(Protocol):
    """The topic that a worker reads, as a member of its group.

    Whatever Kafka says of the consumer, calls raise StreamsError at most, or void the assignment: see :mod:`services.streams.events`.
    """

    def poll(self, records_max: int, timeout_s: float) -> Records:
        """Return what is there, at once, or wait for a first record until the time is over; it may be empty.

        Records are only of started partitions of the current assignment, each partition's in order, with no record
        twice and none skipped, from the offset given to :meth:`start`; they say how many partitions the topic had when
        :meth:`log_states` was asked last. May change :attr:`assignment`.

        Raises:
            DamagedRecordError: a record cannot be read.
            StreamsError: records may have been skipped, or Kafka refuses: nothing more is read until :meth:`start`.
        """
        ...

    def on_revoked(self, call: Callable[[], None]) -> None:
        """Have this called, within a call of the worker's, when the group asks for the partitions back in good order.

        That is before another member gets them, and between two batches. It must not call the source.
        """
        ...

    @property
    def assignment(self) -> Assignment:
        """The current assignment: compare its generation after every call that talks to the log."""
        ...

    def log_states(self, partitions: Sequence[int]) -> Mapping[int, LogState]:
        """Return what the log knows of partitions; one that the topic does not have is empty. Raises StreamsError, TopicMissingError."""
        ...

    @property
    def topic_seen(self) -> TopicIdentity | None:
        """What the topic was when it was last looked at, which happens beside the worker's thread, once a second.

        ``MISSING_TOPIC`` where there is none; None where that is not known.
        """
        ...

    def start(self, offsets: Mapping[int, int]) -> None:
        """Read exactly these partitions, from these offsets: replaces what was started before. Raises StreamsError."""
        ...

    def keep_alive(self, timeout_s: float) -> None:
        """Stay in the group without taking records, for at most this long; may change :attr:`assignment`. Raises StreamsError as poll."""
        ...

    def leave(self) -> None:
        """Leave the group, so that others get the partitions: the assignment is void. Goes on by :meth:`keep_alive`. Raises StreamsError."""
        ...

    def join(self) -> None:
        """Join the group again after :meth:`leave`. Raises StreamsError."""
        ...

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Commit offsets and wait until it is done. Raises StreamsError when it is not known to be done."""
        ...

    def offset_at(self, partition: int, at_ms: int) -> int:
        """Return the first offset whose record's timestamp is at ``at_ms`` or later; the log's end if there is none.

        Raises:
            StreamsError: an outage.
        """
        ...

    def partition_count(self, topic: str) -> int:
        """Return how many partitions a topic has, be it another one. Raises StreamsError, also when there is no such topic."""
        ...

    def check(self) -> None:
        """Ask for a sign of life. Raises StreamsError."""
        ...

    def positions(self) -> Mapping[int, int]:
        """Return, by started partition, the offset before which every record was returned by :meth:`poll`.

        It may lie beyond the last record: the marks of atomic commits take offsets, too. Raises StreamsError.
        """
        ...

    def lag(self, done: Mapping[int, int]) -> Mapping[int, int]:
        """Return, by started partition, how many records are not worked off, as far as is known without asking.

        Args:
            done: by partition, the offset before which everything is; what lies between it and what was read counts, too.
        """
        ...

    def close(self) -> None:
        """Leave the group. Nothing may be called afterwards."""
        ...


Publication = Callable[[], None]
"""What remains to be waited for until something is published: called once, on any thread, before anything else of its publisher is.

Raises:
    StreamsError: it is not known to be done; it may be. Take the partitions over again: what Kafka says is committed decides.
"""


def publish_now(publisher: Publisher, outputs: Sequence[Output], offsets: Mapping[int, int]) -> None:
    """Publish, and wait for what remains of it. Raises StreamsError."""
    publication = publisher.publish(outputs, offsets)
    if publication is not None:
        publication()


class Publisher(Protocol):
    """What makes a batch's outputs visible, together with the offsets that they come from.

    ``exactly_once``: all of it becomes visible at once, or nothing ever does; offsets of records that nothing came of may wait for the
    next outputs, or for :meth:`confirm`. ``at_least_once``: the outputs first, then the
    offsets, so that a crash between the two repeats outputs.
    """

    @property
    def confirmed(self) -> bool:
        """Whether all that was published, and waited for, is known to be committed, without :meth:`confirm`."""
        ...

    def open(self) -> None:
        """Bring to an end what this publisher or a predecessor left in doubt; called before committed offsets are read.

        Raises:
            StreamsError: an outage: call again.
        """
        ...

    def publish(self, outputs: Sequence[Output], offsets: Mapping[int, int]) -> Publication | None:
        """Begin to publish outputs of records before these offsets of the source's topic, as the member that the group takes this worker for.

        Returns:
            What remains to be done; None if nothing does.

        Raises:
            StreamsError: as :data:`Publication`.
        """
        ...

    def confirm(self, offsets: Mapping[int, int]) -> None:
        """Return when everything that was published is safe, and these offsets, up to which it reaches, are committed.

        Raises:
            StreamsError: as :data:`Publication`.
        """
        ...

    def close(self) -> None:
        """Release the clients; what is not published never will be."""
        ...
