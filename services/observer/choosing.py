"""Which records people want to see: of which card, which severity, from when on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from services.streams import Records

_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_AGO: Final = re.compile(r"([0-9]{1,6})([smhd])")
CHOOSABLE: Final = {
    "card-alerts": {"card", "severity", "kind", "action"},
    "card-decisions": {"card", "action"},
    "card-reassessments": {"card", "action"},
    "dead-letters": set[str](),
}
"""By topic, what its records can be chosen by."""


def parse_since(text: str, now_ms: int) -> int:
    """Return the moment that a text names, in ms: so long ago (``10m``, ``2h``), or an ISO 8601 time, UTC where it names no zone.

    Raises:
        ValueError: it names none, or one in the future.
    """
    if ago := _AGO.fullmatch(text):
        return max(0, now_ms - int(ago[1]) * _UNIT_MS[ago[2]])
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"must be how long ago, such as 10m, 2h or 3d, or a time such as 2026-01-31T09:30Z, not {text!r}"
        ) from None
    at_ms = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // timedelta(milliseconds=1)
    if at_ms > now_ms:
        raise ValueError(f"{text} lies in the future")
    return max(0, at_ms)


@dataclass(frozen=True, slots=True)
class Choice:
    """What the records that are shown have in common; where it says nothing, all do."""

    topic: str
    card: str | None = None
    severity: Sequence[str] = ()
    kind: Sequence[str] = ()
    action: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("card", "severity", "kind", "action"):
            if getattr(self, name) and name not in CHOOSABLE[self.topic]:
                able = [topic for topic, names in CHOOSABLE.items() if name in names]
                raise ValueError(f"--{name} is for {', '.join(able)}, not for {self.topic}")

    def values(self, records: Records) -> Sequence[bytes | None]:
        """Return the values of the records that may be chosen, by their keys alone: most need not be decoded then."""
        if self.card is None:
            return records.values
        key = self.card.encode()
        return [value for value, one in zip(records.values, records.keys, strict=True) if one == key]

    def takes(self, record: dict[str, Any]) -> bool:
        """Whether a decoded record is one of those; an alert of before there were kinds is of fraud."""
        known = {"kind": "FRAUD", **record}
        return all(
            not wanted or known[name] in wanted
            for name, wanted in (("severity", self.severity), ("kind", self.kind), ("action", self.action))
        )
