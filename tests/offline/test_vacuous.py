"""What measurements and judgements say of input that is empty, not a number, or all alike: never a figure, and never that all is well."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from services.core.features import FEATURE_NAMES
from services.core.vacuous import (
    VacuousError,
    require_both,
    require_figures,
    require_finite,
    require_positive,
    require_varied,
)
from services.observer.tally import precision_recall
from services.offline.trainer.costs import CostTable, choose_thresholds
from services.offline.trainer.evaluation import action_metrics, ranking_metrics
from services.offline.trainer.prequential import Examples, Fold, Recipe, mean_of_folds, measure_fold
from tests.benchmarks.bench import worst_degraded
from tests.benchmarks.compare import CompareError, ratios_of
from tests.benchmarks.costs import _median_us
from tests.benchmarks.gate import judge
from tests.benchmarks.latency import PERCENTILES, median_of, percentiles_ms
from tests.benchmarks.quality import Quality
from tests.benchmarks.throughput import BacklogProgress, rate_between
from tests.chaos.run import ChaosReport
from tests.chaos.watchers import _Watcher

NAN = math.nan


# -- what refuses ----------------------------------------------------------------------------------------------------


def test_figures_are_there_finite_and_where_that_is_asked_for_not_all_alike():
    assert require_finite("x", [1, 2]).tolist() == [1.0, 2.0]
    assert require_positive("x", 0.1) == 0.1
    require_varied("x", [1.0, 1.0, 2.0])
    require_both("x", np.array([True, False]))
    require_figures("x", {"a": 1, "b": {"c": [0.0, {"d": 2}], "e": "text", "f": None}})


@pytest.mark.parametrize(
    "refused",
    [
        lambda: require_finite("x", []), lambda: require_finite("x", [1.0, NAN]), lambda: require_finite("x", [math.inf]),
        lambda: require_varied("x", [2.0, 2.0]), lambda: require_varied("x", [1.0]), lambda: require_varied("x", [1.0, NAN]),
        lambda: require_both("x", np.zeros(3, bool)), lambda: require_both("x", np.ones(3, bool)),
        lambda: require_both("x", np.zeros(0, bool)),
        lambda: require_positive("x", 0.0), lambda: require_positive("x", NAN), lambda: require_positive("x", -1.0),
        lambda: require_figures("x", {}), lambda: require_figures("x", {"a": {"b": [1, NAN]}}),
        lambda: require_figures("x", {"a": "text", "b": True}),
    ],
)  # fmt: skip
def test_others_are_refused(refused):
    with pytest.raises(VacuousError, match="x"):
        refused()


# -- the gate, the bench, the comparison ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "asked"),
    [
        ({"batch_1": NAN}, {"batch_1": 0.3}), ({}, {"batch_1": 0.3}), ({"batch_1": math.inf}, {"batch_1": 0.3}),
        ({"batch_1": 1.0}, {"batch_1": NAN}), ({"batch_1": 1.0}, {}), ({}, {}),
    ],
)  # fmt: skip
def test_the_gate_does_not_hold_for_ratios_that_are_none(found, asked):
    assert judge(found, asked)


@pytest.mark.parametrize(
    ("early_s", "late_s", "count"), [(1.0, 1.0, 10), (2.0, 1.0, 10), (NAN, 1.0, 10), (0.0, 1.0, 0), (0.0, math.inf, 10)]
)
def test_a_throughput_of_no_records_in_no_time_is_none(early_s, late_s, count):
    with pytest.raises(VacuousError):
        rate_between(early_s, late_s, count)


def test_progress_that_nobody_saw_or_that_stood_still_is_no_rate():
    still = BacklogProgress([1.0, 2.0], [5.0, 5.0])

    for progress in (BacklogProgress(), still):
        with pytest.raises(VacuousError, match="worked off"):
            progress.rate(100)


def test_latencies_of_nothing_are_none():
    with pytest.raises(VacuousError):
        percentiles_ms(np.empty(0, np.int64))
    run = dict.fromkeys((*PERCENTILES, "max"), 1.0) | {"sent_late_ms_max": 0.0, "stages": 1, "stages_above_20_ms": 0}
    assert median_of([run])["p99"] == 1.0
    for runs in ([], [run, run | {"p99": NAN}]):
        with pytest.raises(VacuousError, match="p"):
            median_of(runs)


def test_what_any_run_could_not_see_is_reported_not_only_the_first():
    assert worst_degraded([{}, {"TERMINAL_UNKNOWN": 5, "LATE": 1}, {"TERMINAL_UNKNOWN": 7}]) == {
        "LATE": 1,
        "TERMINAL_UNKNOWN": 7,
    }


def test_revisions_are_compared_in_figures_that_both_have_and_nothing_else_is_a_comparison():
    assert ratios_of([{"a": 2.0, "b": 0.0, "c": 1.0}], [{"a": 3.0, "b": 1.0}]) == {
        "a": {"base": 2.0, "this": 3.0, "ratio": 1.5},
        "b": {"base": 0.0, "this": 1.0, "ratio": None},
    }
    for base, this in (
        ([], []),
        ([{"a": 1.0}], []),
        ([{"a": 1.0}], [{"b": 1.0}]),
        ([{"a": NAN}], [{"a": 1.0}]),
        ([{}], [{"a": 1.0}]),
    ):
        with pytest.raises(CompareError):
            ratios_of(base, this)


def test_a_part_that_nobody_did_costs_nothing_that_could_be_reported():
    for count, repeats in ((0, 3), (3, 0)):
        with pytest.raises(VacuousError):
            _median_us(lambda: None, count, repeats)


# -- quality -----------------------------------------------------------------------------------------------------------

N = 400
CARD, DAY = np.arange(N) % 50, np.arange(N) % 4
FRAUD = np.arange(N) % 10 == 0
SCORES = np.linspace(0.0, 1.0, N)


@pytest.mark.parametrize(
    ("scores", "fraud", "says"),
    [
        (np.full(N, NAN), FRAUD, "not finite"),
        (np.where(np.arange(N) == 7, NAN, SCORES), FRAUD, "1 of 400"),
        (np.full(N, 0.25), FRAUD, "all 400 are 0.25"),
        (SCORES, np.zeros(N, bool), "0 of 400 rows are fraud"),
        (SCORES, np.ones(N, bool), "400 of 400 rows are fraud"),
        (SCORES[:0], FRAUD[:0], "there are none"),
    ],
)
def test_rankings_that_say_nothing_have_no_metrics(scores, fraud, says):
    n = len(scores)
    with pytest.raises(VacuousError, match=says):
        ranking_metrics(scores, fraud, CARD[:n], DAY[:n])


def test_actions_and_thresholds_are_of_some_frauds_and_of_numbers():
    amounts, costs = np.full(N, 10.0), CostTable()

    for fraud, money in ((np.zeros(N, bool), amounts), (FRAUD, np.full(N, NAN)), (FRAUD[:0], amounts[:0])):
        with pytest.raises(VacuousError):
            action_metrics(np.zeros(len(fraud), np.int64), fraud, money, costs)
    for scores, money in ((np.full(N, NAN), amounts), (SCORES, np.full(N, NAN)), (SCORES[:0], amounts[:0])):
        with pytest.raises(VacuousError):
            choose_thresholds(scores, FRAUD[: len(scores)], money, costs)


FOLD = Fold(train_until=100)
RECIPE = Recipe(("transaction_amount",), {"tree_method": "exact"}, 3)


def examples() -> Examples:
    day = np.arange(80, 120).repeat(30)
    n, rng = len(day), np.random.default_rng(3)
    fraud = rng.random(n) < 0.2
    vectors = np.zeros((n, len(FEATURE_NAMES)))
    vectors[:, 0] = rng.random(n) + fraud
    return Examples(vectors, fraud, np.arange(n), day)


def test_a_fold_is_measured_on_whole_weeks_of_both_kinds():
    table = examples()
    one_kind = replace(table, fraud=np.where(table.day < 100, False, table.fraud))
    without_a_day = table.day != 109

    assert measure_fold(table, FOLD, RECIPE)["auc_roc"] > 0.7
    with pytest.raises(VacuousError, match="rows to train on"):
        measure_fold(one_kind, FOLD, RECIPE)
    some = Examples(*(getattr(table, name)[without_a_day] for name in ("vectors", "fraud", "card", "day")))
    with pytest.raises(VacuousError, match="no transactions on 1970-04-20"):
        measure_fold(some, FOLD, RECIPE)
    with pytest.raises(VacuousError, match="scores"):
        measure_fold(replace(table, vectors=np.zeros_like(table.vectors)), FOLD, RECIPE)
    with pytest.raises(VacuousError, match="no folds"):
        mean_of_folds(table, [], RECIPE)


def test_quality_that_is_no_number_is_none_and_none_is_no_quality():
    for measured in ({}, {"production": {"auc_roc": 0.9, "average_precision": NAN}}):
        with pytest.raises(VacuousError):
            Quality(measured, "offline")


def test_precision_is_of_transactions_of_which_the_truth_is_known():
    ids = np.arange(64, dtype=np.uint8).reshape(4, 16)
    seen = ids.view("V16").reshape(-1)

    with pytest.raises(VacuousError, match="2 of 4"):
        precision_recall(seen, np.zeros(4, np.int64), ids[:2], np.array([True, False]))


# -- chaos -------------------------------------------------------------------------------------------------------------


def report(**changes: Any) -> ChaosReport:
    one = {"verdict": "ok", "anomalies": {}, "transactions": 9, "decided": 9, "samples": 9, "seen_live": 9}
    whole = ChaosReport(
        1, ("F-02",), {"F-02": {"takeover_s": [3.0]}}, [], [one | {"capacity_per_s": 1, "load_per_s": 1}]
    )
    return replace(whole, **changes)


def of_round(**changes: Any) -> ChaosReport:
    whole = report()
    return replace(whole, rounds=[whole.rounds[0] | changes])


ROLL = {"clean_takeover_s": 1.0, "latency_p99_ms": NAN, "before_p99_ms": 3.0}


def test_an_attack_that_came_to_pass_and_was_watched_is_ok():
    assert report().as_json()["verdict"] == "ok"
    assert report().as_json()["vacuous"] == []


@pytest.mark.parametrize(
    "vacuous",
    [
        ChaosReport(1), report(asked=()), report(asked=("F-02", "F-04")), report(faults={}), report(rounds=[]),
        of_round(transactions=0), of_round(decided=0), of_round(samples=0), of_round(seen_live=0),
        of_round(verdict="NOT_AT_REST"), report(faults={"F-02": {"takeover_s": [1.0, NAN]}}),
        report(asked=("F-03",), faults={"F-03": ROLL}), report(failures=["the sampler looked no more"]),
    ],
)  # fmt: skip
def test_an_attack_without_faults_work_or_watchers_is_not(vacuous: ChaosReport):
    assert vacuous.as_json()["verdict"] == "broken"


def test_a_watcher_that_dies_says_so():
    class Dies(_Watcher):
        def _look(self) -> None:
            raise ValueError("cannot be read")

    watcher = Dies()
    watcher.stop()

    assert str(watcher.failure) == "cannot be read"
