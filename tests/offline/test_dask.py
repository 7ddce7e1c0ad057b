"""Training sets and training on a Dask cluster of two workers: the same rows bit for bit, a model of equal quality."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from distributed import Client, LocalCluster

from services.cli.dataset import dataset
from services.cli.train import train
from services.inference.artifact import load_model
from services.lake.queries import Lake
from services.offline import workers
from services.offline.datasets import parted
from services.offline.datasets.parted import build_parted, parts_of, ranges_of
from services.offline.datasets.served import TABLES, TrainingPeriod
from services.offline.workers import ClusterError, OnDask, connected
from tests.offline.simulated_lake import fill_simulated
from tests.offline.test_parted import Whole, assert_same_bits, made_at_once, read_parts

pytestmark = [
    # A worker that goes away is a warning of the library's.
    pytest.mark.filterwarnings("ignore::UserWarning:distributed.*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
QUALITY = 0.05


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit="3GiB"
    ) as found:
        yield found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("lake")
    until = fill_simulated(folder, cards=400, days=90, other_share=0.02)
    return made_at_once(folder, TrainingPeriod(until, 7, all_feature_sets=True))


def arguments_of(whole: Whole, *more: str) -> list[str]:
    return ["--lake-url", str(whole.folder), "--until", whole.wanted.until.isoformat(), *more]


def test_two_workers_make_the_rows_that_one_process_makes(
    cluster: LocalCluster, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(parted, "ranges_of", lambda extent: ranges_of(extent, 6_000))
    with connected(cluster.scheduler_address, tmp_path, lambda _: None) as runner:
        said = build_parted(whole.lake, whole.wanted, tmp_path, runner, "code")

        ran = runner.client.run(os.getpid)
    assert len(set(ran.values()) - {os.getpid()}) == 2
    assert_same_bits(read_parts(tmp_path), whole.table)
    assert said.pop("parts") == len(parts_of(tmp_path)) > 4
    assert said == whole.description
    assert said["recomputed"]["different"] == 0


def test_the_command_says_what_the_one_process_says(cluster: LocalCluster, whole: Whole, tmp_path: Path):
    arguments = arguments_of(whole, "--recompute", "--scheduler", cluster.scheduler_address, "--output", str(tmp_path))
    done = CliRunner().invoke(dataset, ["build", *arguments])

    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert {name: said[name] for name in whole.description if name != "code_revision"} == {
        name: value for name, value in whole.description.items() if name != "code_revision"
    }
    assert_same_bits(read_parts(tmp_path), whole.table)


def trained(whole: Whole, folder: Path, *more: str) -> tuple[dict[str, Any], str]:
    output = folder / "fraud/v1"
    done = CliRunner().invoke(
        train, ["--from-lake", *arguments_of(whole, "--label-delay-days", "7", "--output", str(output)), *more]
    )
    assert done.exit_code == 0, done.output
    return load_model(output).manifest.training | json.loads(done.stdout), done.stderr


def test_two_workers_train_a_model_of_equal_quality(
    cluster: LocalCluster, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(parted, "ranges_of", lambda extent: ranges_of(extent, 6_000))
    one, _ = trained(whole, tmp_path / "one")
    scratch = tmp_path / "scratch"
    two, said = trained(whole, tmp_path / "two", "--scheduler", cluster.scheduler_address, "--scratch", str(scratch))

    assert two["test"]["average_precision"] == pytest.approx(one["test"]["average_precision"], abs=QUALITY)
    assert two["test"]["auc_roc"] == pytest.approx(one["test"]["auc_roc"], abs=QUALITY)
    for name in ("rows", "frauds", "ranges_in_days", "delta_versions", "until", "code_revision"):
        assert two[name] == one[name]
    assert (two["trained_on"], two["workers"]) == ("dask", 2)
    assert "trained_on" not in one
    assert "2 Dask workers" in said
    assert list(scratch.iterdir()) == []


def test_a_worker_that_is_lost_has_its_parts_made_by_the_other(whole: Whole, tmp_path: Path):
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as mine,
        connected(mine.scheduler_address, tmp_path, lambda _: None) as runner,
    ):
        lost: list[int] = []

        class Losing(OnDask):
            def run(self, what: str, function: Any, tasks: Any) -> list[Any]:
                if what == "folding cards":
                    pids = runner.client.run(os.getpid)
                    lost.append(min(pids.values()))
                    runner.client.submit(os.kill, lost[0], 9, workers=[min(pids, key=pids.get)], retries=0, pure=False)
                return super().run(what, function, tasks)

        build_parted(whole.lake, whole.wanted, tmp_path, Losing(runner.client, lambda _: None), "code")

    assert lost
    assert_same_bits(read_parts(tmp_path), whole.table)


def test_workers_with_other_code_or_another_disk_are_refused(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    address = cluster.scheduler_address
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "code_revision", lambda: "0.0.0 of-another-day")
        with pytest.raises(ClusterError, match="results would not be equal"), connected(address, tmp_path, print):
            pass
    with (
        LocalCluster(n_workers=0, dashboard_address=None) as none,
        pytest.raises(ClusterError, match="has no workers: start some"),
        connected(none.scheduler_address, tmp_path, print),
    ):
        pass
    monkeypatch.setattr(workers, "_seen", elsewhere)
    with pytest.raises(ClusterError, match="a folder that all of them share"), connected(address, tmp_path, print):
        pass
    assert list(tmp_path.iterdir()) == []


def elsewhere(mark: str) -> tuple[str, bool]:
    """What a worker says that has the code, and another disk."""
    return workers.code_revision(), Path(mark + "-elsewhere").exists()


def test_what_a_worker_cannot_do_is_the_error_that_it_had(cluster: LocalCluster, whole: Whole, tmp_path: Path):
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        runner = OnDask(client, lambda _: None)
        with pytest.raises(ZeroDivisionError):
            runner.run("dividing", divmod, [(1, 1), (1, 0)])
        assert runner.run("dividing", divmod, [(i, 2) for i in range(9)]) == [divmod(i, 2) for i in range(9)]
    assert Lake(str(whole.folder), TABLES).tables
