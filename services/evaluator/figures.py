"""What the evaluator says of a lake, as metrics. No IO but the lake's."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.core.profiles import DAY_MS
from services.lake.queries import Lake
from services.lake.table import LakeError
from services.offline.watching.distribution import Binned, Drift
from services.offline.watching.drift import DriftError, Window, baseline, counted, drifts
from services.offline.watching.maturity import forecast, quality, read_history
from services.runtime import observing_metrics as m
from services.runtime.logs import fields
from services.runtime.metrics import MetricsRegistry

log = logging.getLogger("proact.evaluator")

HOUR_MS: Final = 3_600_000
BASELINE_DAYS: Final = 7
"""Where the model's manifest holds no distribution: of so many days, as many days ago."""
_LIVE: Final = """
    SELECT model, model_version, count(*) AS n FROM card_decisions
    WHERE event_time_ms >= $from_ms AND event_time_ms < $until_ms AND model IS NOT NULL GROUP BY ALL ORDER BY n DESC LIMIT 1
"""
Trained = Callable[[str], dict[str, Binned]]
"""Returns the distribution of the training of a model NAME/vN; nothing where it is not known."""


@dataclass(slots=True)
class Evaluator:
    """Looks at a lake now and again: at labels each time, at drift once an hour."""

    topics: Sequence[str]
    url: str
    metrics: MetricsRegistry
    trained: Trained
    _hour: int = -1
    """The last hour whose drift is known."""
    _before: dict[str, dict[str, Binned]] = field(default_factory=dict)

    def begin(self, now_ms: int) -> None:
        """Say that nothing was looked at before: a lake that is never there must be noticed, too."""
        for what in ("quality", "drift"):
            self.metrics.set(m.EVALUATED, now_ms / 1000, what)

    def look(self, now_ms: int) -> str | None:
        """Set all metrics; return why they could not be, in words."""
        try:
            lake = Lake(self.url, self.topics)
            self._quality(lake, now_ms)
            if now_ms // HOUR_MS != self._hour:
                self._drift(lake, now_ms // HOUR_MS)
        except LakeError as error:
            self.metrics.add(m.EVALUATOR_FAILURES)
            return str(error)
        return None

    def _quality(self, lake: Lake, now_ms: int) -> None:
        self.metrics.set(m.EVALUATED, now_ms / 1000, "quality")
        if not {"card_decisions", "fraud_labels", "card_transactions"} <= lake.tables.keys():
            return  # nothing was labelled yet
        decisions, labels = read_history(lake, now_ms)
        found = quality(decisions, labels, now_ms)
        figures = {
            (name, f"{one.age_days}d"): float(getattr(one, name)) for one in found for name in m.FIGURE.values or ()
        }
        self.metrics.replace(m.QUALITY, {key: value for key, value in figures.items() if not math.isnan(value)})
        ahead = forecast(decisions, labels, now_ms)
        said = {} if ahead is None else {"precision": ahead.precision, "recall": ahead.recall, "frauds": ahead.frauds}
        self.metrics.replace(
            m.QUALITY_FORECAST, {(name,): value for name, value in said.items() if not math.isnan(value)}
        )

    def _drift(self, lake: Lake, hour: int) -> None:
        """Look at the hour before this one."""
        window = Window((hour - 1) * HOUR_MS, hour * HOUR_MS)
        try:
            before = self._distribution(lake, window)
            found = drifts(before, counted(lake, window, before))
        except DriftError as error:
            log.info("nothing is said of drift", extra=fields(why=str(error)))
            found = []
        self._set(found)
        self._hour = hour
        self.metrics.set(m.EVALUATED, hour * HOUR_MS / 1000, "drift")

    def _distribution(self, lake: Lake, window: Window) -> dict[str, Binned]:
        """Return what is compared with: the training of the model that decided, or an earlier week. Raises DriftError, LakeError."""
        if "card_decisions" not in lake.tables:
            raise DriftError("the lake has no decisions yet")
        live = lake.query(_LIVE, {"from_ms": window.from_ms, "until_ms": window.until_ms}).to_pylist()
        name = f"{live[0]['model']}/{live[0]['model_version']}" if live else ""
        if name not in self._before:
            self._before = {name: self.trained(name)}  # of one model: the next one has another
        if self._before[name]:
            return self._before[name]
        until_ms = window.from_ms - BASELINE_DAYS * DAY_MS
        return baseline(lake, Window(until_ms - BASELINE_DAYS * DAY_MS, until_ms))

    def _set(self, found: Sequence[Drift]) -> None:
        for metric, name in (
            (m.FEATURE_DRIFT, "stability_index"), (m.FEATURE_DISTANCE, "distance"), (m.FEATURE_MISSING, "missing"),
        ):  # fmt: skip
            values = {(one.name,): float(getattr(one, name)) for one in found}
            self.metrics.replace(metric, {key: value for key, value in values.items() if not math.isnan(value)})
