"""The wheel holds everything that runs: sources, scripts for Redis, schemas, mappings and the released model."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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
        "services/datasets/mappings/handbook.yaml",
        "services/trainer/model_card.md",
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
    assert done.stdout.split()[1:] == ["12", "v4"]
