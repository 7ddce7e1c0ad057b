"""A decision beside what its transaction and its card's past make of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.checker.evidence import Seen
from services.checker.letters import ASTRAY
from services.checker.oracle import FEATURES, OF_CARD, ROUNDED, Expected, decision_id, home_of

OF_OTHERS: Final = ("TERMINAL_UNKNOWN", "TERMINAL_SUMMED", "REFERENCE_MISSED", "MODEL_MISSED", "REFERENCE_UNKNOWN")
"""What decisions say of what they read of others: it is not to be had again."""
BLIND: Final = "PROFILE_MISSED"
"""What a decision says that was made without the card's own profile: nothing of the card's past can be asked of it."""


@dataclass(frozen=True, slots=True)
class TransactionAgain:
    """A transaction, and what must be said of it."""

    seen: Seen
    record: dict[str, Any]
    expected: Expected
    partitions: int
    """Of the topic of transactions; 0 where nobody knows: then every one lies where it belongs."""
    past_known: bool = True
    """Whether all of the card's past is known: without it, what depends on that is not compared."""


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """Something that a decision says, and what it should say."""

    what: str
    """A field of the decision, or ``feature`` and a feature's name."""
    said: Any
    wanted: Any

    def __str__(self) -> str:
        return f"{self.what}: {self.said!r}, not {self.wanted!r}" if self.what.startswith("feature ") else self.what


def differences(decision: dict[str, Any], again: TransactionAgain, names: Sequence[str]) -> list[FieldDifference]:
    """Return in what a decision differs from what its transaction and its card's past make of it.

    What was read of other services is recorded, and not to be had again: it is not compared.

    Args:
        decision: as its schema has it.
        again: its transaction, made anew.
        names: of the recorded vector; none where no released model knows them.
    """
    seen, record, expected = again.seen, again.record, again.expected
    degraded, blind = _own(decision), BLIND in decision["degraded"]
    astray = bool(again.partitions) and home_of(seen.key or b"", again.partitions) != seen.partition
    repeat, marks = expected.repeat, expected.degraded
    if blind or not again.past_known:
        repeat, marks = decision["repeat"], [] if blind else [mark for mark in degraded if mark != ASTRAY]
    compared = (
        ("degraded", degraded, marks + [ASTRAY] * astray),
        ("repeat", decision["repeat"], repeat),
        ("transaction_id", decision["transaction_id"], record["transaction_id"]),
        ("decision_id", decision["decision_id"], decision_id(record["transaction_id"])),
        ("source_timestamp_ms", decision["source_timestamp_ms"], seen.timestamp_ms),
        ("event_time_ms", decision["event_time_ms"], record["event_time_ms"]),
        ("terminal_id", decision["terminal_id"], record["terminal_id"]),
    )
    found = [FieldDifference(*one) for one in compared if one[1] != one[2]]
    return found + _of_features(decision, again, names)


def _of_features(decision: dict[str, Any], again: TransactionAgain, names: Sequence[str]) -> list[FieldDifference]:
    blind, found = BLIND in decision["degraded"], []
    given = dict(zip(names or FEATURES, decision["features"], strict=False))
    for name, value in again.expected.vector.items():
        of_card = name.startswith(OF_CARD)
        wanted = math.nan if blind and of_card else value
        if of_card and not blind and not again.past_known:
            continue
        if name not in given or not same_number(given[name], wanted, rounded=name in ROUNDED):
            found.append(FieldDifference(f"feature {name}", given.get(name), wanted))
    return found


def _own(decision: dict[str, Any]) -> list[str]:
    """Return what a decision says it could not see of its own card's past."""
    return [one for one in decision["degraded"] if one not in (*OF_OTHERS, BLIND)]


def same_number(a: float, b: float, *, rounded: bool) -> bool:
    """Whether two feature values are the same bits, or, where said, the same up to rounding."""
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-6) if rounded else a == b
