"""What a canary does beside the live model, and whether it keeps to its guards."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from services.codec.model_releases import Guards
from services.core.columns import type_i64
from services.core.stability import stability_index
from services.decision.engine import DecisionBatch

WINDOW_S: Final = 60.0
"""Over how long a canary is looked at: a fault of a minute ago must not be thinned out by a good hour before it."""
_PARTS: Final = 6
DECISIONS_MIN: Final = 200
"""Of how many decisions a share of alerts says something."""
SCORES_MIN: Final = 500
"""The same for the distribution of scores: of fewer, chance alone moves the index by more than 0.05."""
BATCHES_MIN: Final = 20
"""The same for how long batches take."""
_BINS: Final = 10
_EDGES: Final = np.arange(1, _BINS) / _BINS
_ALERT_AT: Final = 1
"""The least severe action that is not APPROVE."""


@dataclass(slots=True)
class SideCounts:
    """What one model did."""

    decisions: int = 0
    alerts: int = 0
    batches: int = 0
    errors: int = 0
    seconds: float = 0.0
    scores: type_i64 = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    def add(self, other: SideCounts) -> None:
        """Add what another holds."""
        for name in ("decisions", "alerts", "batches", "errors", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.scores = self.scores + other.scores


class ReleaseWatch:
    """Counts for one worker, on its thread."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self.monotonic_s = monotonic_s
        self._parts: deque[tuple[float, SideCounts, SideCounts]] = deque()

    def begin(self) -> None:
        """Forget everything: another canary is looked at."""
        self._parts.clear()

    def decided(self, decisions: DecisionBatch, took_s: float, *, canary: bool) -> None:
        """Count a batch that a model decided on."""
        scored = decisions.scores[~np.isnan(decisions.scores)]
        one = SideCounts(
            decisions=len(decisions.actions),
            alerts=int(np.count_nonzero(decisions.actions >= _ALERT_AT)),
            batches=1,
            seconds=took_s,
            scores=np.bincount(np.searchsorted(_EDGES, scored, "right"), minlength=_BINS),
        )
        self._side(canary=canary).add(one)

    def raised(self) -> None:
        """Count a batch on which the canary raised an exception."""
        self._side(canary=True).add(SideCounts(batches=1, errors=1))

    def _side(self, *, canary: bool) -> SideCounts:
        now_s = self.monotonic_s()
        if not self._parts or now_s - self._parts[-1][0] > WINDOW_S / _PARTS:
            self._parts.append((now_s, SideCounts(), SideCounts()))
        while now_s - self._parts[0][0] > WINDOW_S:
            self._parts.popleft()
        _, of_live, of_canary = self._parts[-1]
        return of_canary if canary else of_live

    def breach(self, guards: Guards) -> str | None:
        """Return which guard the canary of the last minute does not keep to, in words; None: all that can be said is well."""
        live, canary = SideCounts(), SideCounts()
        for _, one, other in self._parts:
            live.add(one)
            canary.add(other)
        return _breach(guards, live, canary)


def _breach(guards: Guards, live: SideCounts, canary: SideCounts) -> str | None:
    if guards.error_share_max is not None and canary.errors > guards.error_share_max * canary.batches:
        return f"{canary.errors} of {canary.batches} batches raised an exception"
    if guards.alert_share_max is not None and canary.decisions >= DECISIONS_MIN:
        share = canary.alerts / canary.decisions
        if share > guards.alert_share_max:
            return (
                f"{share:.1%} of {canary.decisions:,} decisions are not APPROVE, {guards.alert_share_max:.1%} at most"
            )
    if guards.score_shift_max is not None and min(live.scores.sum(), canary.scores.sum()) >= SCORES_MIN:
        shift = stability_index(live.scores, canary.scores)
        if shift > guards.score_shift_max:
            return f"its scores differ from the live model's by {shift:.2f}, {guards.score_shift_max} at most"
    if guards.latency_max_ms is not None and min(live.batches, canary.batches) >= BATCHES_MIN:
        longer_ms = 1000 * (canary.seconds / canary.batches - live.seconds / live.batches)
        if longer_ms > guards.latency_max_ms:
            return f"a batch takes {longer_ms:.1f} ms longer than the live model's, {guards.latency_max_ms} at most"
    return None
