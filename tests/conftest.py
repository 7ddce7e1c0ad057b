"""What all tests share: one Kafka and Redis for the whole run, started when a test first asks for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from services.stack.embedded import EmbeddedStack
from services.stack.processes import free_port
from tests.containers import ContainerStack, choose_stack

# The first call of a kernel loads or compiles it; and no test is about time but those that say so.
hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.load_profile("house")

_STACK = choose_stack()
HANDBOOK = Path(__file__).parents[2] / "shared" / "data" / "handbook"


def pytest_terminal_summary(terminalreporter) -> None:
    """Say what kind of Kafka and Redis the tests ran on: nothing is skipped in silence."""
    what = {"containers": "Kafka and Redis in containers", "embedded": "the embedded Kafka and Redis, real servers too"}
    kind, why = _STACK
    terminalreporter.write_line(f"integration tests and contracts ran on {what[kind]}, {why}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on a Kafka or a Redis, by a fixture or as the real side of a contract; and what needs the machine for itself."""
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        real = parameters.get("log") == "kafka" or parameters.get("grid") == "redis"
        if real or {"stack", "own_stack"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("stack")
        if {"chaos", "compose"} & set(item.path.parts):
            item.add_marker("alone")


def new_stack(folder: Path) -> EmbeddedStack | ContainerStack:
    make = ContainerStack if _STACK[0] == "containers" else EmbeddedStack.of
    return make(folder, free_port(), free_port())


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack | ContainerStack]:
    """A running Kafka and Redis with the topics; tests that need an empty log use topics or stacks of their own."""
    shared = new_stack(tmp_path_factory.mktemp("stack"))
    try:
        shared.up(lambda _: None)
        shared.apply_topics({"partitions": 3})
        yield shared
    finally:
        shared.down()


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Callable[..., EmbeddedStack | ContainerStack]]:
    """A factory of stacks that a test may stop, starve and break."""
    started: list[EmbeddedStack | ContainerStack] = []

    def make(partitions: int = 3) -> EmbeddedStack | ContainerStack:
        own = new_stack(tmp_path / f"stack-{len(started)}")
        started.append(own)
        own.up(lambda _: None)
        own.apply_topics({"partitions": partitions})
        return own

    try:
        yield make
    finally:
        for own in started:
            own.down()


@pytest.fixture
def proact() -> list[str]:
    """The command line, in this interpreter."""
    return [sys.executable, "-m", "services.cli.main"]


@pytest.fixture
def handbook() -> Path:
    """The folder of the Fraud Detection Handbook's data."""
    if not HANDBOOK.is_dir():
        pytest.skip(f"the handbook's data are not at {HANDBOOK.parent.name}/{HANDBOOK.name} beside the checkout")
    return HANDBOOK
