"""What the terminals' log and profiles must be, in plain Python, one record at a time, written from the definitions."""

from __future__ import annotations

import bisect
import struct
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from services.checker.card_numbers import holds_card_number, token_ok
from services.checker.evidence import TERMINAL_EVENTS, Evidence, Seen
from services.checker.findings import Verdict
from services.checker.letters import in_their_partitions, letters_of
from services.checker.oracle import DAY, HEADER, HOUR, MASK40, NEVER, amounts, hash64, schemas_of, times_and_hashes

KEEP: Final = 45 * DAY
BUCKET: Final = 6 * HOUR
ROWS_MAX: Final = 448
ABSENT: Final = -1
LAYOUT: Final = 0x102
KNOWN: Final = struct.Struct("<HiI")
EARLIEST: Final = 946_684_800_000

Event = tuple[str, bytes, str, int, int, bool, int]
"""Kind, transaction, terminal, event time, amount, whether it is a fraud, when that was known."""


def event_of(record: dict[str, Any]) -> Event:
    """Return a record of the terminals' log, or a label with its kind and amount filled in, as a tuple."""
    return (
        record["kind"], record["transaction_id"], record["terminal_id"], record["event_time_ms"],
        record["amount_minor"], record["is_fraud"], record["known_at_ms"],
    )  # fmt: skip


@dataclass(slots=True)
class Terminal:
    """What one terminal's profile remembers: rows of time, hash (0 for a bucket), amount, label and count, oldest first."""

    rows: list[list[int]] = field(default_factory=list)
    named: dict[int, list[int]] = field(default_factory=dict)
    """Those of them that are no buckets, by their hash: to look through all of them for each event takes a run of millions hours."""
    last_offset: int = -1
    summed_until: int = NEVER

    def packed(self) -> bytes:
        """Return the profile's bytes."""
        known = [KNOWN.pack(i, *row[3:]) for i, row in enumerate(self.rows) if row[3] or row[4]]
        newest = self.rows[-1][0] if self.rows else 0
        head = HEADER.pack(LAYOUT, len(self.rows), len(known), 0, self.last_offset, self.summed_until, newest)
        return (
            head
            + times_and_hashes((row[0], row[1]) for row in self.rows)
            + b"".join(known)
            + amounts(row[2] for row in self.rows)
        )

    def fold(self, offset: int, event: Event) -> None:
        """Remember a transaction or a label."""
        kind, transaction, _, time, amount, fraud, known = event
        row = [time, hash64(transaction) & MASK40 or 1, ABSENT if kind == "LABEL" else amount, 0, 0]
        if kind == "LABEL":
            seconds = min(max(-((time - known) // 1000), 1), 2**31 - 1)
            row[3] = seconds if fraud else -seconds
        if self.rows and self.rows[-1][0] - time >= KEEP:
            return
        there = self.named.get(row[1])
        if there is not None and kind != "LABEL" and there[2] != ABSENT:
            return
        if there is None:
            self._insert(row)
        elif kind == "LABEL":
            there[3] = row[3]
        else:
            there[2] = row[2]
        self.last_offset = offset

    def _insert(self, row: list[int]) -> None:
        self.rows.insert(bisect.bisect_right(self.rows, row[0], key=lambda one: one[0]), row)
        self.named[row[1]] = row
        edge = self.rows[-1][0] - KEEP
        while self.rows[0][0] <= edge:
            self.named.pop(self.rows.pop(0)[1], None)
        while len(self.rows) > ROWS_MAX:
            self._sum_oldest_up()
        if self.summed_until <= edge:
            self.summed_until = NEVER

    def _sum_oldest_up(self) -> None:
        at = next(i for i, one in enumerate(self.rows) if one[1])
        time, name, amount, label, _ = self.rows[at]
        del self.named[name]
        self.summed_until = max(self.summed_until, time)
        there = amount != ABSENT
        added = [amount if there else 0, int(label > 0), int(there)]
        begin = time // BUCKET * BUCKET
        if at and self.rows[at - 1][0] == begin:
            bucket = self.rows[at - 1]
            bucket[2:] = [a + b for a, b in zip(bucket[2:], added, strict=True)]
            del self.rows[at]
        else:
            self.rows[at] = [begin, 0, *added]


def check_terminals(evidence: Evidence, expected: Counter[Event], verdict: Verdict, *, repeats: bool) -> int:
    """Blame what is missing or too much on the terminals' log, and profiles that are not its fold; return how many labels are there.

    Args:
        evidence: the run.
        expected: what the decisions must have put there; labels that a router was to route are added here.
        verdict: takes the findings.
        repeats: whether an event may be there more than once.
    """
    schemas, events = schemas_of(TERMINAL_EVENTS), []
    every = evidence.outputs[TERMINAL_EVENTS]
    for seen in in_their_partitions(TERMINAL_EVENTS, every, evidence.terminal_applied, letters_of(evidence), verdict):
        record = schemas.decode(seen.value)
        where = f"{TERMINAL_EVENTS} {seen.partition}/{seen.offset}"
        if record is None or seen.key != record["terminal_id"].encode():
            verdict.blame("torn-txn", f"{where} is not a terminal event")
            continue
        events.append((seen, event_of(record)))
    # Labels that are not routed yet may be missing; one that nobody sent must never be there.
    expected = expected + Counter(_labels(evidence.labels))
    _compare_events(Counter(event for _, event in events), expected, verdict, repeats=repeats, routed=evidence.routed)
    _compare_profiles(evidence, events, verdict)
    return sum(event[0] == "LABEL" for _, event in events)


def _labels(labels: Iterable[Seen]) -> Iterable[Event]:
    schemas = schemas_of("fraud-labels")
    for seen in labels:
        record = schemas.decode(seen.value)
        if record is None or not token_ok(record["terminal_id"]):
            continue
        if seen.key != str(uuid.UUID(bytes=record["transaction_id"])).encode():
            continue
        if holds_card_number(record["card_id"]) or holds_card_number(record["scenario"] or ""):
            continue
        if min(record["event_time_ms"], record["known_at_ms"]) >= EARLIEST:
            yield event_of(record | {"kind": "LABEL", "amount_minor": 0})


def _compare_events(
    found: Counter[Event], expected: Counter[Event], verdict: Verdict, *, repeats: bool, routed: bool
) -> None:
    """Blame every event that is not there exactly as often as it must be: once a decision that is no repeat, once a label."""
    for event in found.keys() | expected.keys():
        label, surplus = event[0] == "LABEL", found[event] - expected[event]
        where = f"{TERMINAL_EVENTS}: {event[0]} of {event[1].hex()}"
        if surplus < 0 and (routed or not label):
            verdict.blame("lost-write" if label else "torn-txn", f"{where} is missing")
        elif surplus > 0 and not expected[event]:
            verdict.blame("G1a" if label else "torn-txn", f"{where}: nothing that it could come of")
        elif surplus > 0 and not repeats:
            verdict.blame("duplicate", f"{where}: {surplus} too many")


def _compare_profiles(evidence: Evidence, events: list[tuple[Seen, Event]], verdict: Verdict) -> None:
    ends = {seen.partition: seen.offset + 1 for seen, _ in events}
    folded: dict[int, dict[bytes, Terminal]] = {p: {} for p in evidence.terminal_applied}
    for seen, event in events:
        until = evidence.terminal_applied.get(seen.partition)
        if until is not None and seen.offset < until:
            folded[seen.partition].setdefault(event[2].encode(), Terminal()).fold(seen.offset, event)
    for p, until in evidence.terminal_applied.items():
        if until is None:
            continue
        if until < ends.get(p, 0):
            verdict.wait("stuck", TERMINAL_EVENTS, f"terminals' partition {p}: applied {until}, end {ends[p]}")
        wanted = {terminal: one.packed() for terminal, one in folded[p].items()}
        verdict.compare(f"terminals' partition {p}: the profile of a terminal", wanted, evidence.terminal_profiles[p])
