"""deploy/roll replaces all services in an order in which nobody meets a schema that it does not know, and goes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ORDER = ["monitor", "profiler", "reference", "reassessor", "router", "scorer", "scorer"]


class World:
    def __init__(self, folder: Path) -> None:
        self._file, self._folder = folder / "world.json", folder
        # This interpreter, without what it loads at its start: a roll asks docker dozens of times.
        stand_in = (Path(__file__).parent / "docker").read_text().splitlines(keepends=True)
        (folder / "docker").write_text("".join([f"#!{sys.executable} -IS\n", *stand_in[1:]]))
        (folder / "docker").chmod(0o755)
        containers = {f"c{i}": {"service": name, "image": "old"} for i, name in enumerate(ORDER)}
        self.write(
            {"images": {"proact:dev": "old"}, "containers": containers, "broken": [], "refused": [], "started": [], "number": len(ORDER)}
        )  # fmt: skip

    def read(self) -> dict:
        return json.loads(self._file.read_text())

    def write(self, world: dict) -> None:
        self._file.write_text(json.dumps(world))

    def change(self, **changes) -> None:
        self.write(self.read() | changes)

    def roll(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        own = {"FAKE_DOCKER": str(self._file), "PATH": f"{self._folder}:{os.environ['PATH']}"}
        return subprocess.run(
            [ROOT / "deploy/roll", *arguments],
            env=os.environ | own,
            capture_output=True,
            text=True,
            check=False,
            timeout=250,
        )

    @property
    def running(self) -> list[tuple[str, str]]:
        return sorted((one["service"], one["image"]) for one in self.read()["containers"].values())


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def test_all_services_are_replaced_readers_first_after_the_topics(world):
    done = world.roll()

    assert done.returncode == 0, done.stderr
    assert world.running == [(name, "new") for name in sorted(ORDER)]
    assert world.read()["started"] == [[name, "new"] for name in ("topics", *ORDER)]
    assert world.read()["images"] == {"proact:dev": "new", "proact:dev-previous": "old"}


def test_the_way_back_goes_the_other_way_round(world):
    world.roll()
    world.change(started=[])

    done = world.roll("back")

    assert done.returncode == 0, done.stderr
    assert world.read()["started"] == [[name, "old"] for name in reversed(ORDER)]
    assert world.read()["images"] == {"proact:dev": "old", "proact:dev-previous": "new"}


@pytest.mark.parametrize("broken", ["monitor", "router", "scorer"])
def test_when_one_does_not_become_healthy_all_that_was_replaced_goes_back(world, broken):
    world.change(broken=[[broken, "new"]])

    done = world.roll()

    assert done.returncode == 1
    assert f"the new {broken} did not become healthy" in done.stderr
    assert "what was is back" in done.stderr
    assert world.running == [(name, "old") for name in sorted(ORDER)]
    assert world.read()["images"]["proact:dev"] == "old"
    begun = ORDER.index(broken) + 1
    back = [service for service, image in world.read()["started"] if image == "old"]
    assert back == list(reversed(ORDER[:begun]))


@pytest.mark.parametrize("refused", ["monitor", "router", "scorer"])
def test_when_no_container_is_created_all_that_was_removed_is_there_again(world, refused):
    world.change(refused=[[refused, "new"]])

    done = world.roll()

    assert done.returncode == 1
    assert f"the new {refused} did not become healthy" in done.stderr
    assert "what was is back" in done.stderr
    assert world.running == [(name, "old") for name in sorted(ORDER)]


def test_it_is_reported_when_none_of_the_image_before_is_created_either(world):
    world.change(refused=[["router", "new"], ["router", "old"]])

    done = world.roll()

    assert done.returncode == 1
    assert "what was is back" not in done.stderr
    assert "the one before does not become healthy either: router" in done.stderr


def test_topics_that_cannot_be_applied_leave_everything_as_it_is(world):
    world.change(broken=[["topics", "new"]])

    done = world.roll()

    assert done.returncode == 1
    assert "the topics could not be applied" in done.stderr
    assert world.running == [(name, "old") for name in sorted(ORDER)]
    assert world.read()["images"]["proact:dev"] == "old"


def test_what_does_not_run_is_not_started(world):
    kept = {name: one for name, one in world.read()["containers"].items() if one["service"] != "reassessor"}
    world.change(containers=kept)

    assert world.roll().returncode == 0
    assert "reassessor" not in {service for service, _ in world.running}


@pytest.mark.parametrize(
    ("arguments", "says"), [(["back"], "no image before this one"), (["sideways"], "say deploy/roll")]
)
def test_a_mistake_is_reported(world, arguments, says):
    done = world.roll(*arguments)

    assert done.returncode == 1
    assert says in done.stderr
    assert world.running == [(name, "old") for name in sorted(ORDER)]


def test_nothing_that_runs_is_reported(world):
    world.change(containers={})

    assert "nothing of ours runs" in world.roll().stderr
