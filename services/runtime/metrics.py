"""The registry that counts a batch at a time.

prometheus-client observes one value a call; a batch has thousands. So counts are kept in plain numbers and numpy arrays
and handed to prometheus-client when it collects.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from services.runtime.catalogue import COUNTER, GAUGE, HISTOGRAM, SCORER_METRICS, Metric


@dataclass(slots=True)
class MetricTally:
    """What was counted, by metric and label values."""

    values: dict[Metric, dict[tuple[str, ...], float]]
    """Of counters and gauges."""
    counts: dict[Metric, dict[tuple[str, ...], NDArray[np.int64]]]
    """Of histograms, a bucket each; the last one is for what is above all of them."""
    sums: dict[tuple[Metric, tuple[str, ...]], float]
    """Of histograms."""

    @classmethod
    def of(cls, metrics: Sequence[Metric]) -> MetricTally:
        """Return one in which every series that is known beforehand stands at 0."""
        return cls(
            {m: dict.fromkeys(m.series if m.kind == COUNTER else [], 0.0) for m in metrics if m.kind != HISTOGRAM},
            {
                m: {labels: np.zeros(len(m.buckets) + 1, np.int64) for labels in m.series}
                for m in metrics
                if m.kind == HISTOGRAM
            },
            {},
        )


class MetricsRegistry:
    """Counts of one process; written by the worker's thread, read by prometheus-client's."""

    def __init__(self, metrics: Sequence[Metric] = SCORER_METRICS) -> None:
        self._metrics = tuple(metrics)
        self.tally = MetricTally.of(self._metrics)
        self._tallies = [self.tally]

    def part(self) -> MetricsRegistry:
        """Return the registry of one of several workers in this process: what is shown are the sums of all."""
        part = MetricsRegistry(self._metrics)
        self._tallies.append(part.tally)
        return part

    def add(self, metric: Metric, amount: float = 1.0, *labels: str) -> None:
        """Add to a counter."""
        assert metric.kind == COUNTER, metric.name
        values = self.tally.values[metric]
        if labels not in values:
            assert metric.takes(labels), f"{metric.name}{labels}"
            values[labels] = 0.0
        values[labels] += amount

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge, or a counter that somebody else counts."""
        assert metric.kind in (GAUGE, COUNTER), metric.name
        assert metric.takes(labels), f"{metric.name}{labels}"
        self.tally.values[metric][labels] = float(value)

    def replace(self, metric: Metric, values: Mapping[tuple[str, ...], float]) -> None:
        """Set all series of a gauge at once: those that are not named are gone."""
        assert metric.kind == GAUGE, metric.name
        assert all(metric.takes(labels) for labels in values), metric.name
        self.tally.values[metric] = {labels: float(value) for labels, value in values.items()}

    def observe(self, metric: Metric, values: Any, *labels: str) -> None:
        """Observe one number or an array of them in a histogram."""
        assert metric.kind == HISTOGRAM, metric.name
        series = self.tally.counts[metric]
        if labels not in series:
            assert metric.takes(labels), f"{metric.name}{labels}"
            series[labels] = np.zeros(len(metric.buckets) + 1, np.int64)
        # An upper edge belongs to its bucket. No kernel: services count that have none, and may not compile any.
        if isinstance(values, np.ndarray):
            series[labels] += np.bincount(np.searchsorted(metric.edges, values), minlength=len(metric.buckets) + 1)
            values = values.sum()
        else:
            series[labels][bisect_left(metric.buckets, values)] += 1
        self.tally.sums[metric, labels] = self.tally.sums.get((metric, labels), 0.0) + float(values)

    def value(self, metric: Metric, *labels: str) -> float:
        """Return a counter's or gauge's value, 0 where it has none."""
        return self.tally.values[metric].get(labels, 0.0)

    def collect(self) -> Iterator[Any]:
        """Hand everything to prometheus-client: this object is one of its collectors."""
        for metric in self._metrics:
            if metric.kind == HISTOGRAM:
                yield self._histogram(metric)
                continue
            kind = CounterMetricFamily if metric.kind == COUNTER else GaugeMetricFamily
            family = kind(metric.name, metric.meaning, labels=metric.label_names)
            for labels, value in self._sums_of(metric).items():
                family.add_metric(labels, value)
            yield family

    def _sums_of(self, metric: Metric) -> dict[tuple[str, ...], float]:
        total: dict[tuple[str, ...], float] = {}
        for tally in self._tallies:
            for labels, value in list(tally.values[metric].items()):
                total[labels] = total.get(labels, 0.0) + value
        return total

    def _histogram(self, metric: Metric) -> HistogramMetricFamily:
        family = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.label_names)
        total: dict[tuple[str, ...], NDArray[np.int64]] = {}
        for tally in self._tallies:
            for labels, counts in list(tally.counts[metric].items()):
                total[labels] = total.get(labels, 0) + counts
        for labels, counts in total.items():
            edges = [*(str(edge) for edge in metric.buckets), "+Inf"]
            cumulative = np.cumsum(counts).tolist()
            observed = sum(tally.sums.get((metric, labels), 0.0) for tally in self._tallies)
            family.add_metric(labels, list(zip(edges, cumulative, strict=True)), observed)
        return family
