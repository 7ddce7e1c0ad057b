"""Runs of the real scorer, and auditors that look at what it decided, over the twins of the stores."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from services.auditor.card_audit import AuditReport
from services.auditor.processor import AuditProcessor, ForwardingProcessor
from services.auditor.released import ReleasedModels
from services.checker.evidence import DECISIONS, INPUTS
from services.checker.scoring import released_folders
from services.codec.audit_events import AUDIT_EVENTS
from services.codec.records import decode_record, encode_record
from services.codec.schemas import topics
from services.runtime.clock import ManualClock
from services.streams import Records
from services.streams.memory_commits import partition_of
from services.worker.processor import NotYetError
from tests.generators import random_events, to_columns
from tests.worker.memory_system import KAFKA_TIMESTAMP_MS, SAFE, MemorySystem

EVENTS, PARTITIONS = 60, 2
One = tuple[int, int, bytes | None, bytes | None]
"""Partition, offset, key and value of a record."""
Decision = dict[str, Any]


@cache
def models() -> ReleasedModels:
    """The released models, read once."""
    found = ReleasedModels(released_folders, (SAFE.challenge_from, SAFE.review_from), ManualClock(0))
    found.begin()
    return found


@cache
def scored(seed: int = 1) -> tuple[tuple[One, ...], tuple[One, ...]]:
    """Return the transactions of a run of the scorer, and the decisions."""
    system = MemorySystem(PARTITIONS)
    system.produce(to_columns(random_events(seed, EVENTS, cards=5)))
    system.drain(system.worker()[0])

    def of(topic: str) -> tuple[One, ...]:
        return tuple(
            (p, offset, one.key, one.value)
            for p in range(PARTITIONS)
            for offset, one in enumerate(system.log.visible(topic, p))
        )

    return of(INPUTS), of(DECISIONS)


def records_of(topic: str, ones: Iterable[One]) -> Records:
    """Return records as a worker gets them."""
    partition, offset, keys, values = zip(*ones, strict=True)
    n = len(keys)
    return Records(
        topic, np.array(partition), np.array(offset), np.full(n, KAFKA_TIMESTAMP_MS), keys, values, PARTITIONS
    )


def put_through(processor: Any, records: Records, held: dict[tuple[int, bytes], bytes]) -> Any:
    """Prepare and decide; keep the profiles; return the outcome."""
    prepared = processor.prepare(records, np.zeros(len(records), np.int64))
    pairs = list(zip(prepared.partitions, prepared.cards, strict=True))
    emit = np.ones(len(records), bool)
    profiles = [held.get(pair) for pair in pairs]
    try:
        outcome = processor.decide(prepared, profiles, {}, emit, KAFKA_TIMESTAMP_MS)
    except NotYetError:
        models().turn()
        outcome = processor.decide(prepared, profiles, {}, emit, KAFKA_TIMESTAMP_MS)
    held |= {pair: one for pair, one in zip(pairs, outcome.profiles, strict=True) if one is not None}
    return outcome


Held = dict[tuple[int, bytes], bytes]


def events_of(
    topic: str, ones: Iterable[One], share: float = 1.0, held: Held | None = None
) -> list[tuple[bytes, bytes]]:
    """Return what a forwarder makes of records, and what it remembers."""
    ones, held = list(ones), {} if held is None else held
    outputs = put_through(ForwardingProcessor(topic, share), records_of(topic, ones), held).outputs if ones else []
    return [pair for one in outputs for pair in zip(one.keys, one.values, strict=True)]


@dataclass
class Found:
    """What auditing comes to, over all batches."""

    reports: list[AuditReport]
    held: dict[tuple[int, bytes], bytes]

    @property
    def kinds(self) -> list[str]:
        return [one.kind for report in self.reports for one in report.mismatches]

    @property
    def witnesses(self) -> list[str]:
        return [one.what for report in self.reports for one in report.mismatches]

    def count(self, of: str) -> dict[str, int]:
        total: dict[str, int] = {}
        for report in self.reports:
            for name, count in getattr(report, of).items():
                total[name] = total.get(name, 0) + count
        return total


def audit(events: Iterable[tuple[bytes, bytes]], batch: int = 7, *, repeats: bool = False) -> Found:
    """Put audit events, in order, through the join."""
    ends, ones = dict.fromkeys(range(PARTITIONS), 0), []
    for key, value in events:
        p = partition_of(key, PARTITIONS)
        ones.append((p, ends[p], key, value))
        ends[p] += 1
    found = Found([], {})
    processor = AuditProcessor(models(), repeats=repeats)
    for begin in range(0, len(ones), batch):
        outcome = put_through(processor, records_of(AUDIT_EVENTS, ones[begin : begin + batch]), found.held)
        found.reports.append(outcome.report)
        assert not len(outcome.refused)
    return found


def changed(ones: Iterable[One], at: int, change: Callable[[Decision], Decision | None]) -> list[One]:
    """Return decisions of which one is another, or is not there."""
    out = list(ones)
    p, offset, key, value = out[at]
    made = change(decode_record(value or b"")[1])
    out[at : at + 1] = [] if made is None else [(p, offset, key, encode_record(topics()[DECISIONS].latest, made))]
    return out
