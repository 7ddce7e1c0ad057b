"""Slow, obvious twins of the kernels: plain Python over plain lists, written from the definitions."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
HORIZON_MS, KEEP_MS, LATENESS_MS, MAX_ENTRIES = 30 * DAY_MS, 31 * DAY_MS, DAY_MS, 256


@dataclass(frozen=True)
class Event:
    """One transaction, as the twin sees it."""

    identifier: int
    card: int
    event_time_ms: int
    amount_minor: int
    terminal: int
    country: str
    entry_mode: int
    latitude: float | None
    longitude: float | None


@dataclass
class NaiveCard:
    """What one card's profile remembers, as a list; ``bounded`` False remembers everything for ever."""

    bounded: bool = True
    remembered: list[Event] = field(default_factory=list)
    truncated_until_ms: int | None = None

    def decide(self, event: Event) -> tuple[list[float], set[str]]:
        """Return the vector and the flags of an event, then remember it."""
        flags = self._flags(event)
        vector = naive_vector(event, self.remembered)
        if "REPEAT" not in flags and "TOO_LATE" not in flags:
            self._remember(event)
        return vector, flags

    def _flags(self, event: Event) -> set[str]:
        flags = set()
        if any(e.identifier == event.identifier for e in self.remembered):
            flags.add("REPEAT")
        if self.bounded and self.remembered:
            behind = max(e.event_time_ms for e in self.remembered) - event.event_time_ms
            if behind > LATENESS_MS:
                flags.add("LATE")
            if behind >= KEEP_MS and "REPEAT" not in flags:
                flags.add("TOO_LATE")
        if self.truncated_until_ms is not None and self.truncated_until_ms > event.event_time_ms - HORIZON_MS:
            flags.add("TRUNCATED")
        return flags

    def _remember(self, event: Event) -> None:
        self.remembered = sorted(
            [*self.remembered, event], key=lambda e: e.event_time_ms
        )  # stable: equal times keep order
        if not self.bounded:
            return
        newest = self.remembered[-1].event_time_ms
        self.remembered = [e for e in self.remembered if e.event_time_ms > newest - KEEP_MS]
        if len(self.remembered) > MAX_ENTRIES:
            lost = self.remembered.pop(0)
            self.truncated_until_ms = max(lost.event_time_ms, self.truncated_until_ms or lost.event_time_ms)
        if self.truncated_until_ms is not None and self.truncated_until_ms <= newest - KEEP_MS:
            self.truncated_until_ms = None
        old = [e for e in self.remembered if e.event_time_ms < newest - LATENESS_MS and e.latitude is not None]
        self.remembered = [replace(e, latitude=None, longitude=None) if e in old[:-1] else e for e in self.remembered]


def naive_vector(event: Event, past: list[Event]) -> list[float]:
    """Return the features in their declared order, each from its definition."""
    past = [e for e in past if e.identifier != event.identifier]

    def window(length_ms: int) -> list[Event]:
        return [e for e in past if event.event_time_ms - length_ms < e.event_time_ms <= event.event_time_ms]

    at = datetime.fromtimestamp(event.event_time_ms / 1000, UTC)
    month = window(HORIZON_MS)
    amounts = [e.amount_minor for e in month]
    vector = [event.amount_minor / 100, float(at.weekday() >= 5), float(at.hour <= 6)]
    for days in (1, 7, 30):
        inside = [*window(days * DAY_MS), event]
        vector += [float(len(inside)), sum(e.amount_minor for e in inside) / len(inside) / 100]
    vector += [float(len(window(10 * MINUTE_MS))), float(len(window(HOUR_MS)))]
    vector.append(sum(e.amount_minor for e in window(DAY_MS)) / 100)
    vector.append((event.event_time_ms - month[-1].event_time_ms) / 1000 if month else math.nan)
    mean = sum(amounts) / len(amounts) if amounts else math.nan
    deviation = math.sqrt(sum((a - mean) ** 2 for a in amounts) / len(amounts)) if amounts else math.nan
    vector.append(event.amount_minor / mean if amounts and mean > 0 else math.nan)
    vector.append((event.amount_minor - mean) / deviation if amounts and deviation > 1e-3 * mean else math.nan)
    vector.append(event.amount_minor / max(amounts) if amounts and max(amounts) > 0 else math.nan)
    vector.append(float(len({e.terminal for e in window(DAY_MS)})))
    vector.append(float(len({e.country for e in window(DAY_MS)})))
    vector.append(float(sum(e.terminal == event.terminal for e in month)))
    vector += naive_movement(event, month)
    vector += [float(event.entry_mode), float(at.hour), float(at.weekday())]
    median = statistics.median(amounts[-40:]) if amounts else math.nan
    high = [e for e in window(14 * DAY_MS) if e.amount_minor > 3 * median]
    return [*vector, event.amount_minor / median if amounts and median > 0 else math.nan, float(len(high))]


def naive_movement(event: Event, month: list[Event]) -> list[float]:
    """Return kilometres and km/h from the last known position."""
    positioned = [e for e in month if e.latitude is not None]
    if event.latitude is None or event.longitude is None or not positioned:
        return [math.nan, math.nan]
    last = positioned[-1]
    assert last.latitude is not None
    assert last.longitude is not None
    a, b = math.radians(last.latitude), math.radians(event.latitude)
    angle = math.radians(event.longitude - last.longitude)
    h = math.sin((b - a) / 2) ** 2 + math.cos(a) * math.cos(b) * math.sin(angle / 2) ** 2
    km = 2 * 6371.0088 * math.asin(min(1.0, math.sqrt(h)))
    seconds = (event.event_time_ms - last.event_time_ms) / 1000
    return [km, km * 3600 / max(seconds, 1.0)]


@dataclass
class NaiveTerminal:
    """What is known of one terminal: every transaction and every label, for ever."""

    amounts: dict[int, int] = field(default_factory=dict)
    times: dict[int, int] = field(default_factory=dict)
    labels: dict[int, tuple[bool, int]] = field(default_factory=dict)
    """By transaction: whether it is a fraud, and when that became known."""

    def transaction(self, identifier: int, event_time_ms: int, amount_minor: int) -> None:
        if identifier not in self.amounts:
            self.amounts[identifier], self.times[identifier] = amount_minor, event_time_ms

    def label(self, identifier: int, known_at_ms: int, is_fraud: bool) -> None:
        self.labels[identifier] = (is_fraud, known_at_ms)

    def fraud(self, identifier: int, at_ms: int) -> bool:
        is_fraud, known_at_ms = self.labels.get(identifier, (False, 0))
        return is_fraud and known_at_ms <= at_ms

    def features(self, at_ms: int) -> list[float]:
        """Return the terminal's features in their declared order, each from its definition."""

        def window(days: int) -> list[int]:
            until_ms = at_ms - 7 * DAY_MS
            return [i for i in self.amounts if until_ms - days * DAY_MS < self.times[i] <= until_ms]

        inside = {days: window(days) for days in (1, 7, 30)}
        frauds = [i for i in inside[30] if self.fraud(i, at_ms)]
        genuine = [i for i in inside[30] if not self.fraud(i, at_ms)]
        vector = [float(len(rows)) for rows in inside.values()]
        vector += [
            sum(self.amounts[i] for i in rows) / len(rows) / 100 if rows else math.nan for rows in inside.values()
        ]
        vector += [sum(self.fraud(i, at_ms) for i in rows) / len(rows) if rows else 0.0 for rows in inside.values()]
        ages = [(at_ms - self.times[i]) / DAY_MS for i in frauds]
        youngest = [(at_ms - self.times[i]) / DAY_MS for i in genuine]
        return [*vector, max(ages, default=math.nan), min(ages, default=math.nan), min(youngest, default=math.nan)]
