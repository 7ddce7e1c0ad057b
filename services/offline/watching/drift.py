"""How far features and scores of some days are from what they were in training, or on other days of the lake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc

from services.core.columns import type_f64
from services.core.features import FEATURE_NAMES, FEATURE_SET_HASH
from services.core.profiles import DAY_MS
from services.lake.queries import Lake
from services.lake.table import midnight_ms
from services.offline.watching.distribution import SCORES, Binned, Drift, drift_of

MANY: Final = 0.25
"""From which stability index on people should look: Siddiqi, 2006."""
_ASKED: Final = """
    SELECT features, score FROM card_decisions
    WHERE event_date >= $first::DATE AND event_date <= $last::DATE AND event_time_ms >= $from_ms AND event_time_ms < $until_ms
        AND feature_set_hash = $hash AND NOT repeat
"""
_SOME: Final = "USING SAMPLE reservoir(200000 ROWS) REPEATABLE (7)"
"""Of a baseline: enough for tenths, and few enough for memory, however much a week holds."""


class DriftError(ValueError):
    """There is nothing to compare, or nothing to compare it with."""


@dataclass(frozen=True, slots=True)
class Window:
    """Some time, by the events."""

    from_ms: int
    until_ms: int
    """Not of it any more."""

    @classmethod
    def of_days(cls, first: date, until: date) -> Window:
        """Return the days from one until another, which is not of them. Raises DriftError."""
        if first >= until:
            raise DriftError(f"the days are in the wrong order: from {first} until {until}")
        return cls(midnight_ms(first), midnight_ms(until))

    def pieces(self) -> list[Window]:
        """Return its days one by one, so that a long time is not read at once."""
        days = range(self.from_ms // DAY_MS, -(-self.until_ms // DAY_MS))
        return [Window(max(self.from_ms, d * DAY_MS), min(self.until_ms, (d + 1) * DAY_MS)) for d in days]


def vectors_of(lake: Lake, window: Window, some: str = "") -> tuple[type_f64, type_f64]:
    """Return the vectors and the scores of the decisions of some time, or of a sample of them, (n, features) and (n,). Raises LakeError, DriftError."""
    if "card_decisions" not in lake.tables:
        raise DriftError("the lake has no table card_decisions: the archiver makes it (`proact archiver`)")
    first = date(1970, 1, 1) + timedelta(days=window.from_ms // DAY_MS)
    last = date(1970, 1, 1) + timedelta(days=(window.until_ms - 1) // DAY_MS)
    asked = {
        "first": first.isoformat(), "last": last.isoformat(), "from_ms": window.from_ms, "until_ms": window.until_ms,
        "hash": FEATURE_SET_HASH,
    }  # fmt: skip
    table = lake.query(f"SELECT * FROM ({_ASKED}) {some}", asked)  # noqa: S608 - two constants
    flat: type_f64 = pc.list_flatten(table["features"]).to_numpy()
    scores = table["score"].to_numpy().astype(np.float64)
    return flat.reshape(-1, len(FEATURE_NAMES)), scores


def columns_of(vectors: type_f64, scores: type_f64) -> dict[str, type_f64]:
    """Return what is watched, by name: every feature, and the score."""
    return {name: vectors[:, j] for j, name in enumerate(FEATURE_NAMES)} | {SCORES: scores}


def counted(
    lake: Lake, window: Window, before: dict[str, Binned], progress: Callable[[str], None] = lambda _: None
) -> dict[str, Binned]:
    """Return the decisions of some time, counted in the bins of others, day by day. Raises LakeError, DriftError."""
    found: dict[str, Binned] = {}
    for piece in window.pieces():
        for name, values in columns_of(*vectors_of(lake, piece)).items():
            if name in before:
                one = before[name].of(values)
                found[name] = found[name].plus(one) if name in found else one
    rows = max((one.rows for one in found.values()), default=0)
    progress(f"{rows:,.0f} decisions")
    if not rows:
        raise DriftError("there is no decision of this time, of the feature set that this code computes")
    return found


def baseline(lake: Lake, window: Window) -> dict[str, Binned]:
    """Return the distribution of some time of the lake, with bins of its own. Raises LakeError, DriftError."""
    vectors, scores = vectors_of(lake, window, _SOME)
    if not len(vectors):
        raise DriftError("there is no decision of the time to compare with")
    return {name: Binned.by_quantiles(values) for name, values in columns_of(vectors, scores).items()}


def drifts(before: dict[str, Binned], now: dict[str, Binned]) -> list[Drift]:
    """Return how far each is from what it was, the farthest first."""
    found = [drift_of(name, before[name], one) for name, one in now.items()]
    return sorted(found, key=lambda one: -np.nan_to_num(one.stability_index, nan=-1.0))


def as_json(found: Sequence[Drift], rows: float) -> dict[str, Any]:
    """Return it for machines."""
    return {
        "decisions": int(rows),
        "drifted": [one.name for one in found if one.stability_index > MANY],
        "features": [one.as_json() for one in found],
    }
