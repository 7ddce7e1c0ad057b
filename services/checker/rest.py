"""Whether a run is at rest: what still comes, what still waits, and whether anybody is there to work it off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import confluent_kafka
import redis
from confluent_kafka.admin import AdminClient

from services.checker.evidence import (
    INPUTS,
    LABELS,
    AwayError,
    Evidence,
    Log,
    Profiles,
    Seen,
    Where,
    applied_of,
    redis_error,
)

ASK_S: Final = 10.0
SETTLE_S: Final = 10.0
"""How long a run may take to come to rest by itself: a service saves once a second, and passes by what is no record."""
PAUSE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Group:
    """Who works a topic off."""

    service: str
    id: str
    """The consumer group's."""
    keeps_profiles: bool
    """Without them a record is worked off when it is committed."""


Groups = Mapping[str, Group]
"""By topic, of every topic that is worked off: whoever calls knows which services there are."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far one partition is worked off."""

    start: int
    end: int
    committed: int | None
    applied: int | None

    @property
    def at(self) -> int:
        """The offset of the first record that is not worked off: not committed, or not in the grid."""
        return max(self.start, min(self.committed or 0, self.applied or 0))

    @property
    def begun(self) -> bool:
        """Whether anybody ever worked on it."""
        return self.committed is not None or self.applied is not None


@dataclass(frozen=True, slots=True)
class Look:
    """One look at everything."""

    positions: dict[str, dict[int, Position]]
    """By topic and partition."""
    members: dict[str, int]
    """By topic, how many members its group has."""

    @property
    def waits(self) -> bool:
        """Whether something seems to wait that somebody is there to work off."""
        return any(
            p.at < p.end and self.members[topic] for topic, all_ in self.positions.items() for p in all_.values()
        )


@dataclass(frozen=True, slots=True)
class Unrest:
    """One service that is not at rest."""

    topic: str
    service: str
    group: str
    state: str
    """``moving``: records came or were worked off meanwhile. ``missing``: nobody of the group is there. ``idle``: somebody is, and works
    nothing off."""
    waiting: int
    arrived: int
    worked_off: int

    def __str__(self) -> str:
        where = f"{self.waiting:,} records of {self.topic} wait"
        if self.state == "moving":
            return f"{self.topic} moves: {self.arrived:,} came and {self.worked_off:,} were worked off while it was read, {self.waiting:,} wait"
        if self.state == "missing":
            return f"the {self.service} is not running: {where} for it; start it with `proact {self.service}`"
        return f"the {self.service} is running and works nothing off: {where} for it"


@dataclass(slots=True)
class Rest:
    """What was found of all services."""

    unrest: list[Unrest] = field(default_factory=list)
    never_ran: dict[str, int] = field(default_factory=dict)
    """By topic, how many records there are for a service that never ran on this Kafka and Redis: nothing of it is checked."""
    halts: dict[tuple[str, int], str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return what is to be said of it: nothing where it is at rest."""
        unrest_found = [
            {**{name: getattr(one, name) for name in one.__slots__}, "says": str(one)} for one in self.unrest
        ]
        return ({"not_at_rest": unrest_found} if unrest_found else {}) | (
            {"never_ran": self.never_ran} if self.never_ran else {}
        )


class Looker:
    """Looks at one Kafka and Redis."""

    def __init__(self, where: Where, groups: Groups) -> None:
        """Connect."""
        self.groups = groups
        self._logs = {topic: Log(where, group.id) for topic, group in groups.items()}
        self._grid = Profiles(where)
        self._admin = AdminClient({**where.kafka, "log_level": 0})

    def look(self) -> Look:
        """Look once. Raises EvidenceError."""
        try:
            return Look({topic: self._positions(topic) for topic in self.groups}, self._members())
        except confluent_kafka.KafkaException as error:
            raise AwayError(f"Kafka: {error.args[0].str()}") from error
        except (redis.exceptions.RedisError, OSError) as error:
            raise redis_error(error) from None

    def settle(self, sleep: Callable[[float], None]) -> Look:
        """Wait until nothing moves and nothing waits for who is there, but not for long; return the last look. Raises EvidenceError."""
        before = self.look()
        for _ in range(round(SETTLE_S / PAUSE_S)):
            sleep(PAUSE_S)
            now = self.look()
            if now.positions == before.positions and not now.waits:
                return now
            before = now
        return before

    def _positions(self, topic: str) -> dict[int, Position]:
        log = self._logs[topic]
        # The grid first, the log's end last: what is worked off never seems to be ahead of what there is.
        starts = log.starts(topic)
        held = starts if self.groups[topic].keeps_profiles else ()
        applied = {p: applied_of(self._grid.meta(p, topic)) for p in held}
        committed = log.committed(starts, topic, stable=False)
        ends = log.ends(topic, committed=True)
        return {p: Position(starts[p], ends[p], committed.get(p), applied.get(p, committed.get(p))) for p in starts}

    def _members(self) -> dict[str, int]:
        asked = self._admin.describe_consumer_groups(
            sorted({group.id for group in self.groups.values()}), request_timeout=ASK_S
        )
        counts = {}
        for group, future in asked.items():
            try:
                counts[group] = len(future.result().members)
            except confluent_kafka.KafkaException as error:
                if error.args[0].code() != confluent_kafka.KafkaError.GROUP_ID_NOT_FOUND:
                    raise
                counts[group] = 0
        return {topic: counts[group.id] for topic, group in self.groups.items()}


def find_rest(
    before: Look, after: Look, evidence: Evidence, groups: Groups, halts: Mapping[tuple[str, int], str]
) -> Rest:
    """Say what was not at rest while the evidence was read.

    Args:
        before: a look before it was read.
        after: one after it.
        evidence: what was read in between.
        groups: who works each topic off.
        halts: by topic and partition, why a service leaves it alone.
    """
    rest = Rest(halts=dict(halts))
    for topic, group in groups.items():
        was, now = before.positions[topic], after.positions[topic]
        moved = was != now
        waiting = _waiting(topic, now, evidence, exact=not moved)
        open_ = sum(count for p, count in waiting.items() if (topic, p) not in halts)
        if not moved and not open_:
            continue
        if not moved and topic != INPUTS and not after.members[topic] and not any(p.begun for p in now.values()):
            rest.never_ran[topic] = open_
            continue
        state = "moving" if moved else "idle" if after.members[topic] else "missing"
        arrived = sum(now[p].end - was[p].end for p in now if p in was)
        worked_off = sum(now[p].at - was[p].at for p in now if p in was)
        rest.unrest.append(Unrest(topic, group.service, group.id, state, open_, arrived, worked_off))
    return rest


def _waiting(topic: str, positions: Mapping[int, Position], evidence: Evidence, *, exact: bool) -> dict[int, int]:
    """Return how many records wait, by partition; not exact where it moves or is not read: what is no record is counted, too."""
    records = _records(topic, evidence)
    if not exact or records is None:
        return {p: one.end - one.at for p, one in positions.items()}
    waiting = dict.fromkeys(positions, 0)
    for seen in records:
        waiting[seen.partition] += seen.offset >= positions[seen.partition].at
    return waiting


def _records(topic: str, evidence: Evidence) -> Iterable[Seen] | None:
    """Return the records of a topic, None of one that the checker does not read."""
    if topic == INPUTS:
        return evidence.inputs
    if topic == LABELS:
        return evidence.labels
    return evidence.outputs[topic] if topic in evidence.outputs else evidence.reference.get(topic)
