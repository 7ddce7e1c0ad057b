"""What was left out of a fold is found again where it was published: in the dead letters.

The grid notes the records that must not be decoded, but a grid may be lost, or be set back; and what raised an exception may not raise it
again, because the program was mended since, or because a record that is only folded is not encoded. So whoever folds records that were answered
before reads in the dead letters which of them were refused undecoded. They are read from their end: those of one partition come in its order,
so that one of an earlier record says that there are no more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from services.codec.records import UndecodableError, decode_as_newest
from services.core.validation import Reject
from services.runtime.dead_letters import DEAD_LETTERS
from services.runtime.logs import fields
from services.streams import Records
from services.streams.connection import KafkaConnection
from services.streams.ranges import read_range, visible_extent

log = logging.getLogger("proact.worker")

UNDECODED: Final = frozenset({Reject.KILLS_DECODER, Reject.INTERNAL_ERROR})
"""For what a record is refused that would be decided on, were it not for what its decoding does."""
CHUNK_RECORDS: Final = 2_000
"""So many letters are read first; then eight times as many, and so on."""
LETTERS_MAX: Final = 1_000_000
"""After so many letters no more are read: what raised before them raises again, or its card's profile holds one transaction more."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Why a record must not be decoded."""

    why: Reject
    timestamp_ms: int | None = None
    """The record's Kafka timestamp where a dead letter says so, which may be one of another topic of that name; None: it is this one."""

    def holds(self, timestamp_ms: int) -> bool:
        """Whether it is about the record that has this timestamp."""
        return self.timestamp_ms in (None, timestamp_ms)


def left_out(killers: Iterable[int], errors: Iterable[int]) -> dict[int, LeftOut]:
    """Return, by offset, why records must not be decoded, from what the grid says of a partition."""
    return dict.fromkeys(errors, LeftOut(Reject.INTERNAL_ERROR)) | dict.fromkeys(killers, LeftOut(Reject.KILLS_DECODER))


@dataclass(frozen=True, slots=True)
class Letter:
    """What a dead letter says of its record."""

    topic: str
    partition: int
    offset: int
    left_out: LeftOut


class Letters(Protocol):
    """All dead letters."""

    def extent(self) -> tuple[int, int]:
        """Return from where to where they lie. Raises StreamsError."""
        ...

    def read(self, extent: tuple[int, int]) -> Iterator[Letter]:
        """Yield some of them in their order. Raises StreamsError."""
        ...


class NoLetters:
    """There are none. See :class:`Letters`."""

    def extent(self) -> tuple[int, int]:
        """See :class:`Letters`."""
        return 0, 0

    def read(self, extent: tuple[int, int]) -> Iterator[Letter]:  # noqa: ARG002
        """See :class:`Letters`."""
        return iter(())


class KafkaLetters:
    """Those of the topic, which has one partition. See :class:`Letters`."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection

    def extent(self) -> tuple[int, int]:
        """See :class:`Letters`."""
        return visible_extent(self._connection, DEAD_LETTERS, 0)

    def read(self, extent: tuple[int, int]) -> Iterator[Letter]:
        """See :class:`Letters`."""
        for records in read_range(self._connection, DEAD_LETTERS, 0, extent):
            yield from letters_of(records)


def letters_of(records: Records) -> Iterator[Letter]:
    """Yield what the dead letters of a batch say; what is none is passed over."""
    for value in records.values:
        try:
            schema, letter = decode_as_newest(value or b"")
        except UndecodableError:
            continue
        if schema.topic == DEAD_LETTERS:
            left_out = LeftOut(Reject[letter["reason"]], letter["source_timestamp_ms"])
            yield Letter(letter["source_topic"], letter["source_partition"], letter["source_offset"], left_out)


def recall(letters: Letters, topic: str, wanted: Mapping[int, tuple[int, int]]) -> dict[int, dict[int, LeftOut]]:
    """Return, by partition and offset, which records of some ranges were refused undecoded. Raises StreamsError.

    Args:
        letters: of all services.
        topic: whose records are wanted.
        wanted: by partition, from which offset to which.
    """
    found: dict[int, dict[int, LeftOut]] = {partition: {} for partition in wanted}
    open_ones, (begin, end), chunk, read = set(wanted), (letters.extent() if wanted else (0, 0)), CHUNK_RECORDS, 0
    while open_ones and begin < end:
        if read >= LETTERS_MAX:
            log.warning("older dead letters are not looked at", extra=fields(letters=read))
            break
        at = max(begin, end - chunk)
        for letter in letters.read((at, end)):
            if letter.topic != topic or letter.partition not in wanted:
                continue
            first, stop = wanted[letter.partition]
            if letter.offset < first:
                open_ones.discard(letter.partition)
            elif letter.offset < stop and letter.left_out.why in UNDECODED:
                found[letter.partition][letter.offset] = letter.left_out
        read, end, chunk = read + end - at, at, 8 * chunk
    return {partition: offsets for partition, offsets in found.items() if offsets}
