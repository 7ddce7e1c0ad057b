"""What was left out of a fold is found again where it was published: in the dead letters.

The grid notes the records that must not be decoded, but a grid may be lost, or be set back; and what raised an exception may not raise it
again, because the program was mended since, or because a record that is only folded is not encoded. So whoever folds records that were answered
before reads in the dead letters which of them were refused undecoded. They are read from their end: those of one partition come in its order,
so that one of an earlier record says that there are no more. Where none does, their time ends it: no letter is older than its record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from services.codec.records import UndecodableError, decode_as_newest
from services.core.validation import Reject
from services.runtime.logs import fields
from services.streams import Records, Source
from services.streams.connection import KafkaConnection
from services.streams.ranges import poll_range, visible_extent
from services.worker.dead_letters import DEAD_LETTERS

log = logging.getLogger("proact.worker")

UNDECODED: Final = frozenset({Reject.KILLS_DECODER, Reject.INTERNAL_ERROR})
"""For what a record is refused that would be decided on, were it not for what its decoding does."""
CHUNK_RECORDS: Final = 2_000
"""So many letters are read first; then eight times as many, and so on."""
LETTERS_MAX: Final = 1_000_000
"""After so many letters no more are read: what raised before them raises again, or its card's profile holds one transaction more."""
CLOCKS_MS: Final = 3_600_000
"""How far a record's timestamp may be ahead of the clock of whoever wrote the letter: Kafka refuses those that are further ahead of its own."""
FIRST_LOOK_MS: Final = 60_000
"""How far back a record is looked for first; then twice as far, and so on."""


@dataclass(frozen=True, slots=True)
class Excluded:
    """Why a record must not be decoded."""

    why: Reject
    timestamp_ms: int | None = None
    """The record's Kafka timestamp where a dead letter says so, which may be one of another topic of that name; None: it is this one."""

    def holds(self, timestamp_ms: int) -> bool:
        """Whether it is about the record that has this timestamp."""
        return self.timestamp_ms in (None, timestamp_ms)


def excluded_of(poison: Iterable[int], errors: Iterable[int]) -> dict[int, Excluded]:
    """Return, by offset, why records must not be decoded, from what the grid says of a partition."""
    return dict.fromkeys(errors, Excluded(Reject.INTERNAL_ERROR)) | dict.fromkeys(
        poison, Excluded(Reject.KILLS_DECODER)
    )


@dataclass(frozen=True, slots=True)
class Letter:
    """What a dead letter says of its record."""

    topic: str
    partition: int
    offset: int
    excluded_of: Excluded


class Letters(Protocol):
    """All dead letters."""

    def extent(self, since_ms: int) -> tuple[int, int]:
        """Return from where to where those lie that were written at a time or later. Raises StreamsError."""
        ...

    def read(self, extent: tuple[int, int]) -> Iterator[Sequence[Letter]]:
        """Yield some of them in their order, at most ``CHUNK_RECORDS`` at once; nothing at all where none came for a moment. Raises StreamsError."""
        ...


class NoDeadLetters:
    """There are none. See :class:`Letters`."""

    def extent(self, since_ms: int) -> tuple[int, int]:  # noqa: ARG002
        """See :class:`Letters`."""
        return 0, 0

    def read(self, extent: tuple[int, int]) -> Iterator[Sequence[Letter]]:  # noqa: ARG002
        """See :class:`Letters`."""
        return iter(())


class KafkaDeadLetters:
    """Those of the topic, which has one partition. See :class:`Letters`."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection

    def extent(self, since_ms: int) -> tuple[int, int]:
        """See :class:`Letters`."""
        return visible_extent(self._connection, DEAD_LETTERS, 0, since_ms)

    def read(self, extent: tuple[int, int]) -> Iterator[Sequence[Letter]]:
        """See :class:`Letters`."""
        for records in poll_range(self._connection, DEAD_LETTERS, 0, extent, CHUNK_RECORDS):
            yield list(letters_of(records))


def letters_of(records: Records) -> Iterator[Letter]:
    """Yield what the dead letters of a batch say; what is none is passed over."""
    for value in records.values:
        try:
            schema, letter = decode_as_newest(value or b"")
        except UndecodableError:
            continue
        if schema.topic == DEAD_LETTERS:
            # A reason that only a newer program gives: the record was answered by this letter, and so is not decided on either.
            why = Reject.__members__.get(letter["reason"], Reject.INTERNAL_ERROR)
            excluded_of = Excluded(why, letter["source_timestamp_ms"])
            yield Letter(letter["source_topic"], letter["source_partition"], letter["source_offset"], excluded_of)


def written_since(
    source: Source, wanted: Mapping[int, tuple[int, int]], now_ms: int, keep_alive: Callable[[], None]
) -> int:
    """Return a time before which no dead letter of some records was written. Raises StreamsError.

    A record that has a later timestamp, and lies before all that are wanted of its partition, was in the log before them, and so before
    their letters; the first time at which each partition has one is looked for, since mostly it is minutes ago.

    Args:
        source: gives the records.
        wanted: by partition, from which offset to which.
        now_ms: the present time.
        keep_alive: called after every question.
    """
    back_ms = FIRST_LOOK_MS
    for partition, (first, _) in wanted.items():
        while back_ms < now_ms and source.offset_at(partition, now_ms - back_ms) > first:
            back_ms *= 2
            keep_alive()
        keep_alive()
    return max(0, now_ms - back_ms - CLOCKS_MS)


def recall(
    letters: Letters,
    topic: str,
    wanted: Mapping[int, tuple[int, int]],
    since_ms: int = 0,
    keep_alive: Callable[[], None] = lambda: None,
) -> dict[int, dict[int, Excluded]]:
    """Return, by partition and offset, which records of some ranges were refused undecoded. Raises StreamsError.

    Args:
        letters: of all services.
        topic: whose records are wanted.
        wanted: by partition, from which offset to which.
        since_ms: before which time none of their letters was written.
        keep_alive: called after every ``CHUNK_RECORDS`` letters at the latest, since there may be very many.
    """
    found: dict[int, dict[int, Excluded]] = {partition: {} for partition in wanted}
    if not wanted:
        return {}
    open_ones, (begin, end), chunk, read = set(wanted), letters.extent(since_ms), CHUNK_RECORDS, 0
    while open_ones and begin < end:
        if read >= LETTERS_MAX:
            log.warning("older dead letters are not looked at", extra=fields(letters=read))
            break
        at = max(begin, end - min(chunk, LETTERS_MAX - read))
        for some in letters.read((at, end)):
            for letter in some:
                if letter.topic == topic and letter.partition in wanted:
                    _note(letter, wanted[letter.partition], found[letter.partition], open_ones)
            keep_alive()
        read, end, chunk = read + end - at, at, 8 * chunk
    return {partition: offsets for partition, offsets in found.items() if offsets}


def _note(letter: Letter, extent: tuple[int, int], found: dict[int, Excluded], open_ones: set[int]) -> None:
    """Keep what a letter of a wanted partition says of a wanted record; one of an earlier record says that there are no more."""
    first, stop = extent
    if letter.offset < first:
        open_ones.discard(letter.partition)
    elif letter.offset < stop and letter.excluded_of.why in UNDECODED:
        found[letter.offset] = letter.excluded_of
