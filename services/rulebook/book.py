"""All rule sets, as people work with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from services.codec.records import UndecodableError, decode_as_newest
from services.codec.rule_sets import (
    ACKS,
    NO_RULES,
    RULE_SETS,
    VERSIONS_MAX,
    RuleSetAck,
    approved_record,
    live_record,
    rule_set_fields,
    rule_set_of,
    saved_record,
)  # fmt: skip
from services.core.rules.rule_set import RuleSet
from services.decision.rule_sets import HEARD_EVERY_S, RuleSetLog, read_all, same_rules
from services.runtime.clock import Clock
from services.streams import StreamsError
from services.streams.connection import KafkaConnection
from services.streams.reader import KafkaReader
from services.streams.sink import KafkaSink

SILENT_AFTER_S: Final = 3 * HEARD_EVERY_S
"""A worker that has said nothing for so long is not there."""
FLUSH_S: Final = 10.0


@dataclass(slots=True)
class Waited:
    """What became of waiting for the workers."""

    running: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """Why a worker cannot run it."""
    scorers: list[str] = field(default_factory=list)
    """Those of them all that decide."""

    @property
    def heard(self) -> list[str]:
        """All workers that are there."""
        return [*self.running, *self.waiting, *self.refused]


class Rulebook:
    """Reads the topic, and writes to it. Who writes makes sure that versions follow each other, and that each is written once."""

    def __init__(self, connection: KafkaConnection, clock: Clock) -> None:
        """Raises StreamsError."""
        self._connection, self._clock = connection, clock
        self.log = self._read()

    def _read(self) -> RuleSetLog:
        reader, found = KafkaReader(self._connection, [RULE_SETS], from_beginning=True), RuleSetLog()
        try:
            found.add(read_all(reader))
        finally:
            reader.close()
        return found

    def save(self, rule_set: RuleSet, author: str) -> int:
        """Save a rule set as the next version, and return it; the newest version again if it is the same.

        Raises:
            StreamsError: also if somebody else saved other rules as this version at the same time, and was the first. Then theirs are written
                once more, since a compacted topic keeps the last record of a version, and whoever is there already goes by the first.
        """
        newest = self.log.saved.get(self.log.newest)
        fields = rule_set_fields(rule_set)
        if newest is not None and same_rules(newest, fields):
            return self.log.newest
        version = self.log.newest + 1
        if version > VERSIONS_MAX:
            raise StreamsError(f"there are {VERSIONS_MAX:,} versions: no more are taken")
        self._send(*saved_record(version, rule_set, author, self._clock.now_ms()))
        self.log = self._read()
        first = self.log.saved.get(version, fields)
        if not same_rules(first, fields):
            self._send(*saved_record(version, rule_set_of(first), first["author"], first["at_ms"]))
            raise StreamsError(
                f"{first['author']} has just saved other rules as version {version}: look at them, and save again"
            )
        return version

    def put_live(self, version: int, author: str) -> None:
        """Say that a version is live from now on, and who put it live; 0 for none. Raises StreamsError."""
        saved = self.log.saved.get(version)
        if saved is not None and saved["approved_by"] is None:
            self._send(*approved_record(saved, author))
        self._send(*live_record(version, author, self._clock.now_ms()))

    def before(self, *, approved: bool) -> int:
        """Return the version before the live one, or of those that were put live already; 0 if there is none."""
        known = self.log.saved.items()
        taken = [v for v, saved in known if v < self.log.live and (saved["approved_by"] or not approved)]
        return max(taken, default=NO_RULES)

    def _send(self, key: bytes, value: bytes) -> None:
        sink = KafkaSink(self._connection)
        sink.send(RULE_SETS, [key], [value])
        acknowledged = sink.flush(FLUSH_S)
        sink.close()
        if not acknowledged:
            raise StreamsError(f"Kafka did not take the record within {FLUSH_S:.0f} s")
        self.log.add([value])

    def acks(self) -> list[RuleSetAck]:
        """Return what each worker said last. Raises StreamsError."""
        reader = KafkaReader(self._connection, [ACKS], from_beginning=True)
        heard = _Heard()
        while not reader.caught_up():
            heard.read(reader, 0.2)
        reader.close()
        return heard.sorted()

    def wait(self, version: int, wait_s: float, reassessors: str = "") -> Waited:
        """Wait until every worker that is heard of runs a version, or cannot, and at least one of them is a scorer.

        Args:
            version: the version.
            wait_s: for how long at most.
            reassessors: the group of the workers that score, too, and decide nothing; empty: there are none.

        Raises:
            StreamsError: Kafka does not answer.
        """
        reader = KafkaReader(self._connection, [ACKS], from_beginning=True)
        heard, until_s = _Heard(), self._clock.monotonic_s() + wait_s
        try:
            while True:
                heard.read(reader, 0.05)
                found = _sorted_out(heard.sorted(), version, self._clock.now_ms())
                found.scorers = [w for w in found.heard if not (reassessors and w.startswith(f"{reassessors}-"))]
                done = reader.caught_up() and found.scorers and not found.waiting
                if done or self._clock.monotonic_s() > until_s:
                    return found
        finally:
            reader.close()


@dataclass(slots=True)
class _Heard:
    """The last word of each worker."""

    acks: dict[bytes, RuleSetAck] = field(default_factory=dict)

    def read(self, reader: KafkaReader, timeout_s: float) -> None:
        for records in reader.read(timeout_s):
            for key, value in zip(records.keys, records.values, strict=True):
                self.acks.pop(key or b"", None)
                if value is not None:
                    try:
                        ack = decode_as_newest(value)[1]
                        self.acks[key or b""] = RuleSetAck(**{name: ack[name] for name in RuleSetAck.__slots__})
                    except (UndecodableError, KeyError):
                        continue

    def sorted(self) -> list[RuleSetAck]:
        return sorted(self.acks.values(), key=lambda ack: ack.worker)


def _sorted_out(acks: list[RuleSetAck], version: int, now_ms: int) -> Waited:
    found = Waited()
    for ack in acks:
        if now_ms - ack.heard_ms >= 1000 * SILENT_AFTER_S:
            continue  # it has gone without a word, whatever it ran
        if ack.version == version:
            found.running.append(ack.worker)
        elif ack.refused_version == version:
            found.refused[ack.worker] = ack.error or "it does not say why"
        else:
            found.waiting.append(ack.worker)
    return found
