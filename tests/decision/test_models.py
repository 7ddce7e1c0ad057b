"""What is live is named and never guessed: training beside it changes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.cli.main import proact as command_line
from services.decision.model_loader import released_folder, usable_model
from services.inference import ModelError
from services.inference.artifact import load_model
from services.inference.released import live_model, next_release, put_live, release_of, releases
from services.runtime.settings import resolve_settings
from tests.benchmarks.__main__ import benchmarks

ROOT = Path(__file__).parents[2]


@pytest.fixture
def models(tmp_path: Path, monkeypatch) -> Path:
    """A checkout's models of its own, with the live one in it; the working folder is the checkout."""
    live = live_model()
    folder = tmp_path / "models"
    shutil.copytree(live, folder / "fraud" / "v4")
    (folder / "live.json").write_text('{"live": "fraud/v4"}\n')
    monkeypatch.setattr("services.inference.released.data_folder", lambda _: folder)
    monkeypatch.chdir(tmp_path)
    return folder


def call(*arguments: str) -> Result:
    return CliRunner().invoke(command_line, arguments)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_is_live_here_is_named_and_can_be_used():
    reported = json.loads((ROOT / "models/live.json").read_text())

    assert live_model() == ROOT / "models" / reported["live"]
    assert reported["live"] in releases()
    assert load_model(live_model()).version == reported["live"].split("/")[1]


def test_training_beside_the_live_model_changes_nothing_until_somebody_names_it(models):
    before = contents(models)
    done = call("train", "--cards", "400", "--days", "60")
    assert done.exit_code == 0, done.output

    assert live_model() == models / "fraud/v4"
    assert released_folder(resolve_settings({})) == models / "fraud/v4"
    after = contents(models)
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[1] for name in after.keys() - before.keys()} == {"v5"}
    assert "fraud/v4 is live as before" in done.stderr
    assert "proact models live fraud/v5" in done.stderr

    again = call("train", "--output", "models/fraud/v5")
    assert "is there already" in again.stderr
    assert call("models", "live", "fraud/v5").output.endswith("fraud/v5 is live\n")
    assert live_model() == models / "fraud/v5"
    anew = call("train", "--output", "models/fraud/v5", "--overwrite")
    assert "models/fraud/v5 is live" in anew.stderr
    assert (again.exit_code, anew.exit_code) == (1, 1)
    assert contents(models / "fraud") == {name.removeprefix("fraud/"): v for name, v in after.items() if "/" in name}
    listed = call("models", "list").output.splitlines()
    assert [line.split()[:2] for line in listed] == [["fraud/v4", "trained"], ["fraud/v5", "live"]]


@pytest.mark.parametrize(
    ("reported", "says"),
    [
        (None, "live.json is missing"),
        ("", "cannot be read as JSON"),
        ("fraud/v4", "cannot be read as JSON"),
        ("[" * 9_000, "cannot be read as JSON"),
        ("x" * 20_000, "names no live model"),
        ("[]", "names no live model"),
        ('{"live": null}', "names no live model"),
        ('{"live": "../fraud/v4"}', "names no live model"),
        ('{"live": "/etc/v1"}', "names no live model"),
        ('{"live": "fraud/v9"}', "fraud/v9 is live, and there is no folder"),
    ],
)
def test_what_is_not_named_well_is_one_clear_line_and_no_guess(models, reported, says):
    (models / "live.json").unlink()
    if reported is not None:
        (models / "live.json").write_text(reported)

    with pytest.raises(ModelError, match=says) as caught:
        live_model()
    assert "\n" not in str(caught.value)
    said_by = [call(*command) for command in (["scorer"], ["reassessor"], ["models", "list"])]
    for done in (*said_by, CliRunner().invoke(benchmarks, ["costs"])):
        assert done.exit_code == 1
        assert says in done.stderr
    assert usable_model(resolve_settings({})) is None


def test_a_model_that_cannot_be_used_does_not_go_live(models):
    shutil.copytree(models / "fraud/v4", models / "fraud/v5")
    (models / "fraud/v5/champion.json").write_text("{}")

    done = call("models", "live", "fraud/v5")

    assert "SHA-256 differs" in done.stderr
    for name in ("fraud/v6", "fraud", "../fraud/v4", "fraud/v04", "fraud/v4/"):
        with pytest.raises(ModelError):
            put_live(name)
        assert call("models", "live", name).exit_code == 1
    assert live_model() == models / "fraud/v4"


@pytest.mark.parametrize("output", ["fraud", "models/fraud/latest", "models/fraud/v0", "models/Fraud Model/v1"])
def test_a_release_is_named_like_one(models, output):
    done = call("train", "--output", output)

    assert done.exit_code == 1
    assert "named like models/fraud/v5" in done.stderr


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    numbers=st.sets(st.integers(1, 30)), others=st.sets(st.sampled_from(["v", "vx", "v1.partial", "w9", ".training-a"]))
)
def test_the_next_release_is_above_every_one_that_is_there(models, numbers, others):
    for old in (models / "fraud").iterdir():
        shutil.rmtree(old)
    for name in [*(f"v{n}" for n in numbers), *others]:
        (models / "fraud" / name).mkdir()

    found = next_release(models)

    assert found == models / "fraud" / f"v{max(numbers, default=0) + 1}"
    assert not found.exists()
    assert release_of(found) == f"fraud/{found.name}"
    assert release_of(models.parent / "other/fraud/v1") is None
