"""The wheel holds everything that runs: sources, scripts for Redis, schemas, mappings and the released model."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from services.cli.main import EXTRAS
from services.codec.schemas import topics
from services.registry import BY_NAME

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    return built


def test_the_wheel_holds_schemas_models_and_data(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())

    for needed in (
        "services/grid/apply.lua",
        "services/offline/datasets/mappings/handbook.yaml",
        "services/offline/trainer/model_card.md",
        "services/_data/schemas/card-transactions/v1.avsc",
        "services/_data/schemas/card-transactions/topic.yaml",
        "services/_data/models/fraud/v4/champion.json",
        "services/_data/models/fraud/v4/manifest.json",
        "services/_data/models/live.json",
    ):
        assert needed in names, needed


def test_an_installed_wheel_shows_its_topics_and_verifies_its_model_outside_the_checkout(wheel: Path, tmp_path: Path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import services; from services.codec.schemas import topics; from services.inference.released import live_model; "
        "from services.inference.artifact import load_model; print(services.__file__, len(topics()), load_model(live_model()).version)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "site", capture_output=True, text=True, check=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip

    assert done.stdout.split()[0].startswith(str(tmp_path))
    assert done.stdout.split()[1:] == [str(len(topics())), "v4"]


BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Blocker())
"""
SERVICES = [
    "monitor.stores",
    *(f"{name}.processor" for name in BY_NAME if name != "archiver"),
    *(f"{name}.parts" for name in ("scorer", "reassessor")),
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an installation that lacks all extras: whatever is of one cannot be imported."""
    folder = tmp_path_factory.mktemp("plain")
    names = {name for packages in EXTRAS.values() for name in packages}
    (folder / "sitecustomize.py").write_text(BLOCKER.replace("{names}", repr(names)))
    return {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "PROACT_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}


@pytest.mark.parametrize("module", SERVICES)
def test_a_plain_installation_runs_every_service_but_the_archiver(plain: dict[str, str], module: str):
    command = [sys.executable, "-c", f"import services.{module}"]
    done = subprocess.run(command, env=plain, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("demo", "pip install 'proact[stack]'"),
        ("stack up", "pip install 'proact[stack]'"),
        ("train", "pip install 'proact[train]'"),
        ("archiver", "'proact[lake]'"),
        ("lake sql SELECT", "'proact[lake]'"),
        ("dataset build --until 2026-01-01", "'proact[lake]'"),
        ("evaluate models/fraud/v4", "pip install 'proact[train]'"),
        ("replay x.parquet", "pip install 'proact[train]'"),
        ("simulate --cards 1 --days 1 --output x.parquet", "pip install 'proact[train]'"),
        ("simulate --cards 1 --days 1", "Kafka at 127.0.0.1:1 does not answer"),
        ("grid status", "Kafka at 127.0.0.1:1 does not answer"),
    ],
)
def test_a_command_that_needs_an_extra_names_it_in_one_line(
    plain: dict[str, str], tmp_path: Path, command: str, says: str
):
    run = [sys.executable, "-m", "services.cli.main", *command.split()]
    done = subprocess.run(run, cwd=tmp_path, env=plain, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_each_extra_is_known_by_what_is_imported_of_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    imported = importlib.metadata.packages_distributions()
    asked = {name: {one.partition("==")[0] for one in project["optional-dependencies"][name]} for name in EXTRAS}

    assert {"stack", "lake", "train"} <= EXTRAS.keys()
    for extra, packages in EXTRAS.items():
        brought = {found.lower() for package in packages for found in imported[package]}
        assert brought <= asked[extra] if extra == "dev" else brought == asked[extra]
