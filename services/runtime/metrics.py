"""Every metric, declared once, and the registry that counts them a batch at a time.

prometheus-client observes one value a call; a batch has thousands. So counts are kept in plain numbers and numpy arrays
and handed to prometheus-client when it collects. Label values come from closed lists only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

_SECONDS: Final = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
_AGES: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0, 300.0, 3_600.0, 86_400.0)
_RECORDS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0)
_SCORES: Final = tuple(round(0.05 * i, 2) for i in range(1, 20))


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its Prometheus name, kind, unit, label names and meaning."""

    name: str
    kind: str
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


RECORDS_IN = Metric("proact_records_in_total", COUNTER, "records", "read from the topic, repeats of a batch included")
DECISIONS = Metric("proact_decisions_total", COUNTER, "decisions", "sent, by action", ("action",))
DEAD_LETTERS = Metric("proact_dead_letters_total", COUNTER, "records", "refused, by reason", ("reason",))
ALERTS = Metric("proact_alerts_total", COUNTER, "alerts", "sent")
REPEATS = Metric("proact_repeats_total", COUNTER, "decisions", "on transactions that the card's profile held already")
DEGRADED = Metric("proact_degraded_total", COUNTER, "decisions", "that could not see everything, by what", ("what",))
RECOVERED = Metric("proact_recovered_records_total", COUNTER, "records", "folded without a decision after a take-over")
ABANDONED = Metric(
    "proact_abandoned_batches_total", COUNTER, "batches", "given up and begun again, by cause", ("cause",)
)
OUTAGES = Metric("proact_outage_seconds_total", COUNTER, "s", "waited for Kafka or Redis", ("store",))
STAGE_SECONDS = Metric("proact_stage_seconds", HISTOGRAM, "s", "time of a batch in each stage", ("stage",), _SECONDS)
BATCH_RECORDS = Metric("proact_batch_records", HISTOGRAM, "records", "in a batch", (), _RECORDS)
EVENT_AGE = Metric("proact_event_age_seconds", HISTOGRAM, "s", "age of the event when it was decided on", (), _AGES)
RECORD_AGE = Metric(
    "proact_record_age_seconds", HISTOGRAM, "s", "age of the record in Kafka when it was decided on", (), _AGES
)
SCORES = Metric("proact_scores", HISTOGRAM, "probability", "scores of all decisions", (), _SCORES)
LAG = Metric("proact_lag_records", GAUGE, "records", "behind the worker's position, by partition", ("partition",))
PARTITIONS = Metric("proact_partitions", GAUGE, "partitions", "assigned to the worker, by state", ("state",))
PROFILES_CACHED = Metric("proact_profiles_cached", GAUGE, "profiles", "in the worker's near cache")
MODEL_INFO = Metric("proact_model_info", GAUGE, "1", "the model that scores", ("model", "version"))
READY = Metric("proact_ready", GAUGE, "0 or 1", "whether /readyz says yes")

METRICS: Final = (
    RECORDS_IN, DECISIONS, DEAD_LETTERS, ALERTS, REPEATS, DEGRADED, RECOVERED, ABANDONED, OUTAGES, STAGE_SECONDS,
    BATCH_RECORDS, EVENT_AGE, RECORD_AGE, SCORES, LAG, PARTITIONS, PROFILES_CACHED, MODEL_INFO, READY,
)  # fmt: skip


class MetricsRegistry:
    """Counts of one process; written by the worker's thread, read by prometheus-client's."""

    def __init__(self) -> None:
        self._values: dict[Metric, dict[tuple[str, ...], float]] = {m: {} for m in METRICS if m.kind != HISTOGRAM}
        self._counts: dict[Metric, dict[tuple[str, ...], NDArray[np.int64]]] = {
            m: {} for m in METRICS if m.kind == HISTOGRAM
        }
        self._sums: dict[tuple[Metric, tuple[str, ...]], float] = {}

    def add(self, metric: Metric, amount: float = 1.0, *labels: str) -> None:
        """Add to a counter."""
        assert metric.kind == COUNTER, metric.name
        assert len(labels) == len(metric.labels), metric.name
        values = self._values[metric]
        values[labels] = values.get(labels, 0.0) + amount

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge."""
        assert metric.kind == GAUGE, metric.name
        assert len(labels) == len(metric.labels), metric.name
        self._values[metric][labels] = float(value)

    def clear(self, metric: Metric) -> None:
        """Drop the series of a gauge, before those that still exist are set."""
        self._values[metric] = {}

    def observe(self, metric: Metric, values: Any, *labels: str) -> None:
        """Observe one number or an array of them in a histogram."""
        assert metric.kind == HISTOGRAM, metric.name
        assert len(labels) == len(metric.labels), metric.name
        array = np.atleast_1d(np.asarray(values, np.float64))
        bins = np.searchsorted(metric.buckets, array, side="left")
        counts = np.bincount(bins, minlength=len(metric.buckets) + 1).astype(np.int64)
        self._counts[metric][labels] = self._counts[metric].get(labels, 0) + counts
        self._sums[metric, labels] = self._sums.get((metric, labels), 0.0) + float(array.sum())

    def value(self, metric: Metric, *labels: str) -> float:
        """Return a counter's or gauge's value, 0 where it has none."""
        return self._values[metric].get(labels, 0.0)

    def collect(self) -> Iterator[Any]:
        """Hand everything to prometheus-client: this object is one of its collectors."""
        for metric in METRICS:
            if metric.kind == HISTOGRAM:
                yield self._histogram(metric)
                continue
            kind = CounterMetricFamily if metric.kind == COUNTER else GaugeMetricFamily
            family = kind(metric.name, metric.meaning, labels=metric.labels)
            for labels, value in list(self._values[metric].items()):
                family.add_metric(labels, value)
            yield family

    def _histogram(self, metric: Metric) -> HistogramMetricFamily:
        family = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        for labels, counts in list(self._counts[metric].items()):
            edges = [*(str(edge) for edge in metric.buckets), "+Inf"]
            cumulative = np.cumsum(counts).tolist()
            family.add_metric(labels, list(zip(edges, cumulative, strict=True)), self._sums[metric, labels])
        return family


def metrics_table() -> str:
    """Return the table of all metrics, in Markdown, as the README holds it."""
    rows = ["| metric | kind | unit | labels | meaning |", "|---|---|---|---|---|"]
    rows += [f"| `{m.name}` | {m.kind} | {m.unit} | {', '.join(m.labels)} | {m.meaning} |" for m in METRICS]
    return "\n".join(rows)
