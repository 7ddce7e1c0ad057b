"""The benchmark's arithmetic and its page; what it measures is measured by running it."""

from __future__ import annotations

import json
import re
import xml.dom.minidom

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.runtime import catalogue as m
from services.runtime.children import ChildError
from services.runtime.metrics import MetricsRegistry
from tests.benchmarks.bench_page import bench_page
from tests.benchmarks.bench_system import traffic_of
from tests.benchmarks.compare import CompareError, flat, run_compare
from tests.benchmarks.gate import asked_ratios, judge
from tests.benchmarks.in_process import measure_loop
from tests.benchmarks.latency import PERCENTILES, OpenLoop, median_of, percentiles_ms
from tests.benchmarks.sending import Schedule, linger_ms
from tests.benchmarks.stalls import StageCounts
from tests.benchmarks.throughput import BacklogProgress, degraded_in

LATENCY = {"p50": 1.5, "p90": 2.0, "p99": 9.0, "p999": 20.0, "p9999": 31.0, "max": 40.0, "rate_per_s": 1_000}
WHOLE = {
    "throughput_per_s": 90_000, "ratio_to_plain": 60.0, "cpu_us_per_record": {"scorer": 9.0, "kafka": 4.0},
    "latency_ms_1000": LATENCY, "latency_ms_half": {**LATENCY, "rate_per_s": 45_000},
}  # fmt: skip
STAGE = {"us_per_record": {"prepare": 2.0, "decide": 4.0, "measure": 0.1}}
FOUND = {
    "plain": {"throughput_per_s": 1_500}, "exactly_once": WHOLE, "full": WHOLE,
    "in_process": {"core": {"1": STAGE, "1000": STAGE}}, "plan": {"records": 10, "cards": 2},
    "machine": {"cores": 2, "loop_us": {"p50": 40.0, "p99": 61.5}},
}  # fmt: skip


def loop(count: int) -> OpenLoop:
    return OpenLoop(traffic_of(count, 100, 5), None, None)  # type: ignore[arg-type]


def test_latency_counts_from_when_a_record_was_due_whatever_the_order_of_the_answers():
    open_loop, rate, begin_ns = loop(50), 1_000.0, 7_000_000_000
    took_us = np.random.default_rng(1).integers(500, 90_000, 40)
    due_ns = begin_ns + np.arange(40) * 1_000_000
    order = np.argsort(due_ns + 1_000 * took_us)
    ids = open_loop.traffic.columns.transaction_id[10:50]

    found = open_loop.latencies_us(10, rate, begin_ns, (due_ns + 1_000 * took_us)[order], ids[order].tobytes())

    np.testing.assert_array_equal(found, took_us)


def test_a_decision_that_comes_twice_in_the_place_of_another_one_is_no_result():
    open_loop = loop(10)
    ids = open_loop.traffic.columns.transaction_id[[0, 1, 1, 3]]

    with pytest.raises(ChildError, match="twice"):
        open_loop.latencies_us(0, 1_000.0, 0, np.full(4, 10**9), ids.tobytes())


def test_what_decisions_could_not_see_is_reported_of_a_throughput():
    metrics = MetricsRegistry()
    metrics.add(m.DEGRADED, 12_345, "TERMINAL_UNKNOWN")
    metrics.add(m.DEGRADED, 0, "LATE")
    metrics.add(m.LOOKUPS_MISSED)

    assert degraded_in(generate_latest(metrics).decode()) == {"TERMINAL_UNKNOWN": 12_345}


def test_a_rate_is_that_between_the_tenth_and_the_ninetieth_percent_of_what_came_since_the_first_look():
    progress = BacklogProgress()
    # 200 were done before; a slow begin, then 100 a second, then a slow end.
    for done, at_s in ((200, 1.0), (300, 9.0), (1_100, 17.0), (1_200, 99.0), (1_200, 100.0)):
        progress.take(done, at_s)

    assert progress.rate(1_000) == 100


def test_a_sender_of_many_a_second_lingers_and_one_of_few_does_not():
    assert (linger_ms(1_000.0), linger_ms(10_000.0)) == (0.0, 5.0)


def test_a_schedule_gives_each_record_once_when_it_is_due_and_tells_how_late_it_was_asked():
    schedule = Schedule(first=100, until=150, rate=1_000.0, begin_ns=10_000_000)

    taken = [
        schedule.take(at_ns)
        for at_ns in (0, 9_999_999, 10_000_000, 10_500_000, 13_000_000, 13_000_000, 40_000_000, 99_000_000)
    ]

    assert [(part.start, part.stop) for part in taken] == [
        (100, 100), (100, 100), (100, 101), (101, 101), (101, 104), (104, 104), (104, 131), (131, 150),
    ]  # fmt: skip
    assert schedule.over
    # The record that was due at 41 ms was taken at 99.
    assert schedule.late_ns == 58_000_000


def test_of_several_runs_the_median_of_each_percentile_is_reported_and_every_run_beside_it():
    def run(p50: float, p99: float, late_ms: float) -> dict[str, float]:
        return {
            **dict.fromkeys(PERCENTILES, 5.0),
            "p50": p50,
            "p99": p99,
            "max": p99,
            "rate_per_s": 10,
            "sent_late_ms_max": late_ms,
            "stages": 100,
            "stages_above_20_ms": int(late_ms),
        }

    found = median_of([run(3.0, 40.0, 1.0), run(9.0, 20.0, 7.0), run(4.0, 30.0, 2.0)])

    assert (found["p50"], found["p99"], found["max"], found["p999"]) == (4.0, 30.0, 30.0, 5.0)
    assert (found["rate_per_s"], found["sent_late_ms_max"]) == (10, 7.0)
    assert (found["stages"], found["stages_above_20_ms"]) == (300, 10)
    assert [one[0] for one in found["runs"]] == [3.0, 9.0, 4.0]


def test_stages_are_stalled_that_wait_for_nobody_and_take_more_than_20_ms():
    metrics = MetricsRegistry(m.SCORER_METRICS)

    def look() -> StageCounts:
        registry = CollectorRegistry()
        registry.register(metrics)
        return StageCounts.of(generate_latest(registry).decode())

    assert look() == StageCounts(0, 0)
    for stage, took_s in (("prepare", 0.0003), ("decide", 0.021), ("read", 3.0), ("decide", 0.02), ("publish", 0.5)):
        metrics.observe(m.STAGE_SECONDS, took_s, stage)
    before = look()
    assert before == StageCounts(3, 1)
    metrics.observe(m.STAGE_SECONDS, 0.4, "prepare")
    metrics.observe(m.STAGE_SECONDS, 0.001, "decide")
    assert look().since(before) == {"stages": 2, "stages_above_20_ms": 1}


def test_percentiles_are_those_of_the_values_to_three_digits():
    values = np.random.default_rng(2).lognormal(9, 1, 20_000).astype(np.int64)

    found = percentiles_ms(values)

    for name, share in (("p50", 50), ("p99", 99), ("p999", 99.9)):
        assert found[name] == pytest.approx(np.percentile(values, share) / 1000, rel=0.02)
    assert found["max"] == pytest.approx(values.max() / 1000, rel=0.002)


def test_the_page_shows_every_figure_and_its_plots_are_whole():
    page = bench_page(FOUND)

    assert "90,000" in page
    assert "took 40 microseconds, 61.5 at the 99th percentile" in page
    assert "core, exactly once" in page
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(plots) == 4
    for plot in plots:
        xml.dom.minidom.parseString(plot)  # noqa: S318 - it is our own


def test_a_machine_is_reported_by_the_time_of_the_same_loop_again_and_again():
    found = measure_loop(200)

    assert 0 < found["p50"] <= found["p99"] <= found["max"] + 1


def test_a_gate_says_what_became_slower():
    assert judge({"batch_1": 0.5, "batch_100": 9.0}, {"batch_1": 0.3, "batch_100": 8.0}) == []
    [said] = judge({"batch_1": 0.2, "batch_100": 9.0}, {"batch_1": 0.3, "batch_100": 8.0})
    assert said.startswith("batch_1: 0.2 times")
    assert asked_ratios().keys() == {"batch_1", "batch_100", "batch_1000"}


def test_only_figures_are_compared():
    assert flat(json.loads(json.dumps(FOUND)))["exactly_once.latency_ms_1000.p99"] == 9.0
    assert not [key for key in flat(FOUND) if key.startswith(("plan", "machine"))]
    assert flat({"a": [1, 2], "b": {"c": 3}}) == {"b.c": 3.0}


def test_a_revision_that_is_none_is_reported():
    with pytest.raises(CompareError, match="no revision 'nowhere'"):
        run_compare("nowhere", [], 1, lambda _: None)
