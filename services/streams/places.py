"""Read single records of Kafka's topics, wherever they lie: for who is told of a record by its partition and offset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from services.core.columns import type_i64
from services.streams.base import AtPlaces, StreamsError
from services.streams.clients import COMMON, OUTSIDER, REQUEST_TIMEOUT_S, count_partitions, describe
from services.streams.connection import KafkaConnection

POLL_S: Final = 0.1
RECORDS_MAX: Final = 5_000
POLLS_MAX: Final = 30
"""Polls without a record, 3 s in all, after which the log is taken for stuck."""
STRETCHES_MAX: Final = 50
"""How many are read in one call, each some milliseconds: whoever calls has a place in a group to keep."""
GAP_RECORDS: Final = 1_000
"""Places further apart than this are looked for one by one; to read what lies between nearer ones is quicker."""
_READER: Final = {
    "fetch.min.bytes": 1,
    "fetch.wait.max.ms": 10,  # what is asked for is there
    "queued.min.messages": RECORDS_MAX,  # nothing behind the last place is of interest
    "queued.max.messages.kbytes": 8_192,
}


class KafkaPlaces:
    """See :class:`services.streams.PlaceReader`."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._consumer = Consumer(connection.consumer(COMMON | OUTSIDER | _READER))
        self._stretches = 0

    def read(self, topic: str, partition: type_i64, offset: type_i64) -> AtPlaces:
        """See :class:`services.streams.PlaceReader`."""
        found, self._stretches = AtPlaces.nothing(len(partition)), 0
        count = count_partitions(self._consumer, topic)
        try:
            for p in [p for p in np.unique(partition).tolist() if 0 <= p < count]:
                mine = partition == p
                low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, p), REQUEST_TIMEOUT_S)
                found.may_come[mine & (offset >= high)] = True
                rows = np.flatnonzero(mine & (offset >= max(low, 0)) & (offset < high))
                self._read_partition((topic, p), rows[np.argsort(offset[rows], kind="stable")], offset, found)
        except KafkaException as error:
            raise StreamsError(describe(error)) from error
        finally:
            self._consumer.unassign()  # else it would fetch on
        return found

    def _read_partition(self, place: tuple[str, int], rows: type_i64, offset: type_i64, found: AtPlaces) -> None:
        """Fill in what lies at some rows' places of one partition, which ascend; what is too much for one call stays unread."""
        if not len(rows):
            return
        for some in np.split(rows, np.flatnonzero(np.diff(offset[rows]) > GAP_RECORDS) + 1):
            self._stretches += 1
            if self._stretches > STRETCHES_MAX:
                found.unread[some] = True
                continue
            seen = self._read_stretch(place, int(offset[some[0]]), int(offset[some[-1]]) + 1)
            for row in some.tolist():
                message = seen.get(int(offset[row]))
                if message is not None:
                    found.keys[row], found.values[row] = message.key(), message.value()
                    found.there[row] = True

    def _read_stretch(self, place: tuple[str, int], begin: int, end: int) -> dict[int, Message]:
        """Return the records of [begin, end) by their offsets, of which some may hold none. Raises StreamsError."""
        at = TopicPartition(*place, begin)
        self._consumer.assign([at])
        seen: dict[int, Message] = {}
        position, quiet = begin, 0
        while position < end:
            first = self._consumer.poll(POLL_S)
            if first is None:
                position = max(position, self._consumer.position([at])[0].offset)
                quiet += 1
                if position < end and quiet > POLLS_MAX:
                    raise StreamsError(f"{place[0]} {place[1]} gives no record between {position} and {end}")
                continue
            quiet = 0
            messages = [first, *self._consumer.consume(RECORDS_MAX - 1, 0)]
            position = _note(messages, seen)
        return seen

    def close(self) -> None:
        """See :class:`services.streams.PlaceReader`."""
        self._consumer.close()


def _note(messages: Sequence[Message], seen: dict[int, Message]) -> int:
    """Add records to those seen, and return the offset behind the last one. Raises StreamsError."""
    for message in messages:
        error = message.error()
        if error is not None:
            raise StreamsError(describe(error))
        seen[message.offset()] = message
    return max(seen) + 1
