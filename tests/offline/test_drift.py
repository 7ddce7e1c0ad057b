"""Drift: the index and the distance are those of a loop; what did not change has none; a manifest's distribution is read back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from services.cli.main import proact
from services.core.features import FEATURE_NAMES
from services.lake.queries import Lake
from services.offline.datasets.served import TABLES
from services.offline.watching.distribution import SCORES, Binned, distribution_of, drift_of, read_distribution
from services.offline.watching.drift import DriftError, Window, baseline, counted, drifts
from tests.offline.test_served import ServedLake

VALUES = st.lists(st.one_of(st.floats(-5, 5), st.sampled_from([0.0, 1.0]), st.just(math.nan)), min_size=1, max_size=60)


@given(VALUES, VALUES)
def test_the_figures_are_those_of_a_loop(before, now):
    binned = Binned.by_quantiles(np.array(before))
    found = drift_of("x", binned, binned.of(np.array(now)))

    def place(value: float) -> int:
        return len(binned.edges) + 1 if math.isnan(value) else sum(value >= edge for edge in binned.edges)

    places = range(len(binned.edges) + 2)
    e, a = ([sum(place(v) == p for v in values) for p in places] for values in (before, now))
    used = [p for p in places if e[p] or a[p]]
    e, a = [max(e[p], 0.5) for p in used], [max(a[p], 0.5) for p in used]
    index = sum((x / sum(a) - y / sum(e)) * math.log((x / sum(a)) / (y / sum(e))) for x, y in zip(a, e, strict=True))
    assert found.stability_index == pytest.approx(index)
    there, then = [v for v in now if not math.isnan(v)], [v for v in before if not math.isnan(v)]
    if there and then:
        gaps = [
            abs(sum(v < edge for v in then) / len(then) - sum(v < edge for v in there) / len(there))
            for edge in binned.edges
        ]
        assert found.distance == pytest.approx(max(gaps, default=0.0))
    else:
        assert math.isnan(found.distance)
    assert found.missing_before == pytest.approx(1 - len(then) / len(before))
    assert found.missing == pytest.approx(1 - len(there) / len(now))
    assert found.stability_index >= 0


@given(VALUES)
def test_what_did_not_change_has_not_drifted_and_parts_add_up(values):
    whole = Binned.by_quantiles(np.array(values))
    halves = whole.of(np.array(values[::2])).plus(whole.of(np.array(values[1::2])))
    assert (halves.counts == whole.counts).all()
    assert halves.missing == whole.missing
    assert drift_of("x", whole, halves).stability_index == pytest.approx(0)


@pytest.mark.parametrize(
    ("before", "now"),
    [([0] * 95 + [1] * 5, [0] * 20 + [1] * 80), ([0] * 100, [1] * 100), ([0] * 92 + [3] * 8, [5] * 100), ([1] * 95 + [0] * 5, [0] * 100)],
)  # fmt: skip
def test_what_was_rare_or_never_there_is_noticed_when_it_is_the_rule(before, now):
    binned = Binned.by_quantiles(np.array(before, float))
    found = drift_of("flag", binned, binned.of(np.array(now, float)))
    assert found.stability_index > 0.25
    assert found.distance > 0.5


def test_a_distribution_survives_the_manifest_and_damage_is_said():
    rng = np.random.default_rng(1)
    vectors = rng.random((500, 2))
    vectors[:50, 1] = np.nan
    document = json.loads(json.dumps(distribution_of(["a", "b"], vectors, rng.random(100))))
    found = read_distribution(document)
    assert sorted(found) == ["a", "b", SCORES]
    assert found["b"].missing_share == 0.1
    assert found["a"].rows == 500
    assert read_distribution(None) == {}
    for damaged in (
        {"a": 5},
        {"a": {"edges": [1], "counts": [1], "missing": 0}},
        {"a": {"edges": [2, 1], "counts": [1, 1, 1], "missing": 0}},
    ):
        with pytest.raises(ValueError, match="distribution of a"):
            read_distribution(damaged)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> ServedLake:
    return ServedLake(tmp_path_factory.mktemp("lake"), events=200)


def test_the_decisions_of_a_lake_are_counted_day_by_day(lake: ServedLake):
    tables = Lake(str(lake.folder), TABLES)
    [times] = tables.query(
        "SELECT min(event_time_ms) AS first, max(event_time_ms) AS last FROM card_decisions"
    ).to_pylist()
    window = Window(times["first"], times["last"] + 1)
    before = baseline(tables, window)
    now = counted(tables, window, before)
    assert set(now) == {*FEATURE_NAMES, SCORES}
    assert all(one.stability_index == pytest.approx(0) for one in drifts(before, now))
    with pytest.raises(DriftError, match="no decision"):
        counted(tables, Window(1, 2), before)


def test_the_command_compares_days_and_names_what_is_missing(lake: ServedLake, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROACT_LAKE_URL", str(lake.folder))
    tables = Lake(str(lake.folder), TABLES)
    [days] = tables.query(
        "SELECT min(event_date)::VARCHAR AS first, (max(event_date) + 1)::VARCHAR AS last FROM card_decisions"
    ).to_pylist()
    asked = ["drift", "--from", days["first"], "--until", days["last"]]

    done = CliRunner().invoke(proact, [*asked, "--baseline-from", days["first"], "--baseline-until", days["last"]])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["drifted"] == []
    assert "<svg" in (tmp_path / "drift/drift.html").read_text()
    for arguments, says in (
        (["drift"], "which days"), ([*asked, "--baseline-from", days["first"]], "say both"),
        (["drift", "--from", days["last"], "--until", days["first"]], "wrong order"), ([*asked, "--model", "x"], "named like"),
        ([*asked, "--model", "fraud/v99"], "no model fraud/v99"),
    ):  # fmt: skip
        said = CliRunner().invoke(proact, arguments)
        assert said.exit_code == 1
        assert says in said.stderr
