"""Send dead letters again, once each, when what they were refused for is mended."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from services.codec.records import UndecodableError, decode_as_newest
from services.streams import Output, Publisher, Records, Source, publish_now

TOPIC = "dead-letters"
POLL_S = 0.5
QUIET_POLLS = 4
"""Polls without a record after which there are no more."""


@dataclass(slots=True)
class Redriven:
    """How many letters were sent again, and how many were passed over and why."""

    sent: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)


def why_not(letter: dict[str, Any], reasons: frozenset[str]) -> str | None:
    """Return why a letter can't or shall not be sent again; None if it shall."""
    if reasons and letter["reason"] not in reasons:
        return "of another reason"
    if letter["reason"] == "KILLS_DECODER":
        return "kills the scorer"
    if letter.get("masked"):
        return "masked"
    if letter["value"] is None or len(letter["value"]) != letter["value_bytes"]:
        return "not whole"
    return None


class Redrive:
    """Reads dead letters as a group of its own, and sends each one in the same atomic commit as its offset."""

    def __init__(self, source: Source, publisher: Publisher, reasons: frozenset[str], records_max: int) -> None:
        self._source, self._publisher, self._reasons, self._records_max = source, publisher, reasons, records_max

    def run(self, progress: Callable[[Redriven], None], *, dry: bool) -> Redriven:
        """Work until there are no more letters; ``dry`` only counts. Raises StreamsError."""
        done = Redriven()
        for records in self._batches():
            outputs = self.select(records, done)
            if not dry:
                publish_now(self._publisher, outputs, records.next_offsets())
                self._publisher.confirm(records.next_offsets())
            progress(done)
        return done

    def _batches(self) -> Iterator[Records]:
        """Yield what is there now: a letter that is sent again and refused again is a new one."""
        generation, quiet = -1, 0
        ends: dict[int, int] = {}
        while quiet < QUIET_POLLS:
            records = self._source.poll(self._records_max, POLL_S)
            assignment = self._source.assignment
            if assignment.generation != generation:
                generation = assignment.generation
                self._publisher.open()
                states = self._source.log_states(assignment.partitions)
                ends = {p: s.log_end for p, s in states.items()} | ends
                self._source.start({p: s.log_start if s.committed is None else s.committed for p, s in states.items()})
                continue
            end = np.array([ends[p] for p in records.partition.tolist()], np.int64)
            records = records.take(records.offset < end)
            if len(records):
                quiet = 0
                yield records
            elif assignment.member:
                quiet += 1

    def select(self, records: Records, done: Redriven) -> list[Output]:
        """Return the records of those letters of a batch that are to be sent again, and count them and the others."""
        keys: dict[str, list[bytes | None]] = defaultdict(list)
        values: dict[str, list[bytes | None]] = defaultdict(list)
        for value in records.values:
            try:
                schema, letter = decode_as_newest(value or b"")
            except UndecodableError:
                schema, letter = None, {}
            if schema is None or schema.topic != TOPIC:
                done.passed["not a dead letter"] += 1
                continue
            reason = why_not(letter, self._reasons)
            if reason is not None:
                done.passed[reason] += 1
                continue
            keys[letter["source_topic"]].append(letter["key"])
            values[letter["source_topic"]].append(letter["value"])
            done.sent[letter["reason"]] += 1
        return [Output(topic, keys[topic], values[topic]) for topic in keys]
