"""What `proact train` notes in MLflow, and that training never fails for it."""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mlflow.tracking import MlflowClient

from services.cli.train import train
from services.inference.artifact import load_model
from services.inference.released import live_model
from services.offline.trainer.tracking import PATIENCE, TrackingError, flat, log_release

NOW_MS = 1_900_000_000_000
ALLOWED = "MLFLOW_ALLOW_FILE_STORE"
"""MLflow's own: a folder in the place of a server is for trying it out."""
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(ALLOWED, "true")
    return (tmp_path / "store").as_uri()


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> str:
    """A server that is away, its address with a password."""
    for name, value in PATIENCE.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://somebody:secret@127.0.0.1:{free.getsockname()[1]}"


def runs_of(uri: str, experiment: str) -> list[Any]:
    client = MlflowClient(tracking_uri=uri)
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def files_of(uri: str, run: str, path: str | None = None) -> set[str]:
    listed = MlflowClient(tracking_uri=uri).list_artifacts(run, path)
    return {one.path for one in listed if not one.is_dir}


def test_a_release_becomes_a_run_with_parameters_metrics_and_its_files(store: str):
    folder = live_model()
    manifest = load_model(folder).manifest

    run = log_release(folder, manifest, store, NOW_MS)
    log_release(folder, manifest, store, NOW_MS + 1)

    found = {one.info.run_id: one for one in runs_of(store, f"proact-{manifest.name}")}
    assert len(found) == 2
    data, info = found[run].data, found[run].info
    assert (info.run_name, info.status, info.start_time) == (f"{manifest.name}/{manifest.version}", "FINISHED", NOW_MS)
    assert data.params["parameters/max_depth"] == str(manifest.training["parameters"]["max_depth"])
    assert data.metrics["test/average_precision"] == manifest.metrics["test"]["average_precision"]
    numbers = {name: value for name, value in flat(manifest.metrics) if type(value) in (int, float)}
    assert data.metrics == numbers
    assert data.tags["feature_set_hash"] == manifest.feature_set_hash
    assert files_of(store, run) == {one.name for one in folder.iterdir()}


def test_nested_names_are_joined():
    assert dict(flat({"a": 1, "b": {"c": {"d": 2}, "e": [3]}})) == {"a": 1, "b/c/d": 2, "b/e": [3]}


def test_a_server_that_is_away_is_said_soon_and_without_its_password(nobody: str):
    folder, begin_s = live_model(), time.monotonic()

    with pytest.raises(TrackingError) as error:
        log_release(folder, load_model(folder).manifest, nobody, NOW_MS)

    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)
    assert time.monotonic() - begin_s < 30


def trained(folder: Path) -> Any:
    output = str(folder / "fraud/v1")
    done = CliRunner().invoke(train, ["--cards", "300", "--days", "60", "--output", output])
    assert done.exit_code == 0, done.output
    assert load_model(folder / "fraud/v1").manifest.metrics["test"] == json.loads(done.stdout)["test"]
    return done


def test_training_notes_its_release(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)

    done = trained(tmp_path)

    [run] = runs_of(store, "proact-fraud")
    assert f"noted in MLflow as run {run.info.run_id}" in done.stderr
    assert run.data.metrics["test/average_precision"] == json.loads(done.stdout)["test"]["average_precision"]


@pytest.mark.parametrize("why", ["away", "missing", "refused"])
def test_training_goes_on_where_mlflow_does_not(why: str, nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wanted = {"away": "not noted in MLflow", "missing": "pip install 'proact[mlflow]'", "refused": "ALLOW_FILE_STORE"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody if why == "away" else (tmp_path / "store").as_uri())
    monkeypatch.delenv(ALLOWED, raising=False)
    if why == "missing":
        monkeypatch.setitem(sys.modules, "mlflow", None)
        for name in [name for name in sys.modules if name.startswith("mlflow.")]:
            monkeypatch.delitem(sys.modules, name)

    done = trained(tmp_path)

    [said] = [line for line in done.stderr.splitlines() if "MLflow" in line]
    assert wanted[why] in said
    assert "secret" not in done.output


def test_without_the_variable_nothing_is_said_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    assert "MLflow" not in trained(tmp_path).output
