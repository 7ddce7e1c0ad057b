"""Rule sets as they are announced: all saved versions, which one is live, and a worker that keeps up and says so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from services.codec.records import UndecodableError, decode_as_newest
from services.codec.rule_sets import ACKS, NO_RULES, RULE_SETS, VERSIONS_MAX, RuleSetAck, rule_set_of
from services.core.rules.engine import RuleEngine
from services.core.rules.syntax import RuleError
from services.runtime import catalogue as m
from services.runtime.clock import Clock, SystemClock
from services.runtime.logs import fields, frames_of
from services.runtime.metrics import MetricsRegistry
from services.runtime.rate_limited_log import Repeated
from services.streams import StreamsError
from services.streams.connection import KafkaConnection
from services.streams.reader import KafkaReader
from services.streams.sink import KafkaSink

log = logging.getLogger("proact.rules")

HEARD_EVERY_S: Final = 5.0
"""How often a worker says what it runs."""
CATCH_UP_S: Final = 0.2
NOT_TAKEN: Final = "a rule set is not taken"
REFUSED_MAX: Final = 1_000
"""Of how many refused versions it is remembered why."""
FETCH_WAIT_MS: Final = 500
"""How long the broker keeps a question open while nothing is announced."""


@dataclass(slots=True)
class RuleSetLog:
    """What the topic of rule sets says.

    The topic is compacted, by version: of one that was written again only the last record may be left, behind those of later versions. So
    versions are taken in any order; that they follow each other, and that each is written once, is up to who writes them.
    """

    saved: dict[int, dict[str, Any]] = field(default_factory=dict)
    """The SAVED record of every version."""
    live: int = NO_RULES
    live_since_ms: int = 0
    refused: tuple[int, str] | None = None
    """The version that somebody says is live, where it cannot be: then what was live before still is."""
    _why_not: dict[int, str] = field(default_factory=dict)
    """Of versions that were not taken."""
    _awaited: tuple[int, int] | None = None
    """The version that somebody says is live, and since when, where it is not known yet: its record may lie behind."""
    not_taken: Repeated = field(default_factory=lambda: Repeated(log, NOT_TAKEN, SystemClock()))
    """Tells of them: of very many, a line now and again."""

    def add(self, values: Iterable[bytes | None]) -> None:
        """Take records in their order; what is not one of them is passed over."""
        for value in values:
            try:
                schema, record = decode_as_newest(value or b"")
            except UndecodableError:
                continue
            if schema.topic != RULE_SETS:
                continue
            if record["kind"] == "SAVED":
                self._save(record["version"], record)
            else:
                self._put_live(record["version"], record["at_ms"])

    def _save(self, version: int, record: dict[str, Any]) -> None:
        """Take a version that is not known yet: none is ever changed, or beyond its range."""
        known = self.saved.get(version)
        if known is None and 1 <= version <= VERSIONS_MAX:
            self.saved[version] = record
            if self._awaited is not None and self._awaited[0] == version:
                self._put_live(*self._awaited)
            return
        why = f"a version lies between 1 and {VERSIONS_MAX:,}"
        if known is not None:
            if same_rules(known, record):  # a producer's repeat, or somebody approved it
                known["approved_by"] = record["approved_by"] or known["approved_by"]
                return
            why = f"version {version} was saved before, with other rules"
        elif len(self._why_not) < REFUSED_MAX:
            self._why_not[version] = why
        self.not_taken.happened(1, version=version, error=why)

    def _put_live(self, version: int, at_ms: int) -> None:
        if version == NO_RULES or version in self.saved:
            self.live, self.live_since_ms, self.refused, self._awaited = version, at_ms, None, None
            return
        self._awaited = version, at_ms
        self.refused = version, self._why_not.get(version, f"version {version} was never saved")

    @property
    def newest(self) -> int:
        """The highest version that was saved."""
        return max(self.saved, default=NO_RULES)


def same_rules(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two SAVED records hold the same rules and lists, whoever saved them, and when."""
    return all(one[name] == other[name] for name in ("rules", "lists"))


def read_all(reader: KafkaReader, timeout_s: float = CATCH_UP_S) -> list[bytes | None]:
    """Return the values of everything that was there when a reader was made. Raises StreamsError."""
    values: list[bytes | None] = []
    while not reader.caught_up():
        for records in reader.read(timeout_s):
            values.extend(records.values)
    return values


def runnable(saved: Mapping[int, dict[str, Any]], version: int) -> RuleEngine:
    """Return the engine of a version. Raises RuleError where it cannot be run."""
    if version not in saved:
        raise RuleError(f"version {version} was never saved")
    return RuleEngine(rule_set_of(saved[version]))


Adopt = Callable[[int, RuleEngine | None], None]
"""Takes the version that is live from now on, and its engine; none for no rules."""


class RuleSetFollower:
    """Keeps one worker's rules up to date; see :class:`services.worker.followers.Follower`."""

    def __init__(
        self, connection: KafkaConnection, worker: str, clock: Clock, metrics: MetricsRegistry, adopt: Adopt
    ) -> None:
        self._connection, self._worker, self._clock, self._metrics, self._adopt = (
            connection,
            worker,
            clock,
            metrics,
            adopt,
        )
        self._log = RuleSetLog(not_taken=Repeated(log, NOT_TAKEN, clock))
        self._reader: KafkaReader | None = None
        self._sink: KafkaSink | None = None
        self._running, self._since_ms = NO_RULES, 0
        self._refused: tuple[int, str] | None = None
        self._heard_at_s = 0.0

    def begin(self) -> None:
        """See :class:`services.worker.followers.Follower`."""
        if self._sink is not None:
            return
        if self._reader is None:
            self._reader = KafkaReader(self._connection, [RULE_SETS], from_beginning=True, fetch_wait_ms=FETCH_WAIT_MS)
        self._log.add(read_all(self._reader))
        self._sink = KafkaSink(self._connection)
        self._since_ms = self._clock.now_ms()
        self._metrics.set(m.RULE_SET_VERSION, NO_RULES)
        self._metrics.set(m.RULE_SET_REFUSED, 0)
        self._change()
        self._acknowledge()

    def turn(self) -> None:
        """See :class:`services.worker.followers.Follower`."""
        if self._reader is None or self._sink is None:
            return
        came = False
        for records in self._reader.read(0.0):
            self._log.add(records.values)
            came = True
        self._log.not_taken.pending()
        if came:
            self._change()
        if came or self._clock.monotonic_s() - self._heard_at_s > HEARD_EVERY_S:
            self._acknowledge()

    def close(self) -> None:
        """See :class:`services.worker.followers.Follower`."""
        if self._reader is not None:
            self._reader.close()
        if self._sink is not None:
            self._send(self._worker.encode(), None)
            self._sink.close()

    def engine_of(self, version: int) -> RuleEngine:
        """Return the engine of a saved version. Raises RuleError."""
        return runnable(self._log.saved, version)

    def _change(self) -> None:
        """Run what is live, if it can be run: else go on with what ran before, and say so."""
        if self._log.refused is not None:
            if self._refused != self._log.refused:
                self._refuse(*self._log.refused)
            return
        live = self._log.live
        if live == self._running:
            if self._refused is not None:  # what it runs is live again
                self._refused = None
                self._metrics.set(m.RULE_SET_REFUSED, 0)
            return
        if self._refused is not None and self._refused[0] == live:
            return
        try:
            engine = runnable(self._log.saved, live) if live != NO_RULES else None
        except RuleError as error:
            self._refuse(live, str(error))
            return
        except Exception as error:  # noqa: BLE001 - a mistake of ours that a rule set brings about must not end every worker
            log.error("a rule set raises an exception", extra=fields(version=live, traceback=frames_of(error)))  # noqa: TRY400
            self._refuse(live, f"it raises {type(error).__name__}")
            return
        self._adopt(live, engine)
        self._running, self._since_ms, self._refused = live, self._clock.now_ms(), None
        self._metrics.set(m.RULE_SET_VERSION, live)
        self._metrics.set(m.RULE_SET_REFUSED, 0)
        rules = 0 if engine is None else len(engine.rule_set.rules)
        log.info("runs a rule set", extra=fields(version=live, rules=rules))

    def _refuse(self, version: int, why: str) -> None:
        self._refused = version, why
        log.error("cannot run the live rule set", extra=fields(version=version, running=self._running, error=why))
        self._metrics.set(m.RULE_SET_REFUSED, 1)

    def _acknowledge(self) -> None:
        self._heard_at_s = self._clock.monotonic_s()
        version, why = self._refused or (None, None)
        ack = RuleSetAck(self._worker, self._running, self._since_ms, self._clock.now_ms(), version, why)
        self._send(*ack.record())

    def _send(self, key: bytes, value: bytes | None) -> None:
        """Say it, if Kafka is there: what is not heard now is said again in a while."""
        assert self._sink is not None
        try:
            self._sink.send(ACKS, [key], [value])
            self._sink.flush(1.0 if value is None else 0.0)
        except StreamsError as error:
            log.warning("what this worker runs could not be said", extra=fields(error=str(error)))
