"""What all tests share: one embedded Kafka and Redis for the whole run, started when a test first asks for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.stack.embedded import EmbeddedStack
from services.stack.processes import free_port

HANDBOOK = Path(__file__).parents[2] / "shared" / "data" / "handbook"


def pytest_terminal_summary(terminalreporter) -> None:
    """Say what kind of Kafka and Redis the tests ran on: nothing is skipped in silence."""
    terminalreporter.write_line(
        "integration tests ran on the embedded Kafka and Redis (real servers, started as processes)"
    )


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    """A running Kafka and Redis with the topics; tests that need an empty log use topics or stacks of their own."""
    embedded = EmbeddedStack(tmp_path_factory.mktemp("stack"), free_port(), free_port())
    try:
        embedded.up(lambda _: None)
        embedded.apply_topics(3)
        yield embedded
    finally:
        embedded.down()


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Callable[..., EmbeddedStack]]:
    """A factory of stacks that a test may stop, starve and break."""
    started: list[EmbeddedStack] = []

    def make(partitions: int = 3) -> EmbeddedStack:
        embedded = EmbeddedStack(tmp_path / f"stack-{len(started)}", free_port(), free_port())
        started.append(embedded)
        embedded.up(lambda _: None)
        embedded.apply_topics(partitions)
        return embedded

    try:
        yield make
    finally:
        for embedded in started:
            embedded.down()


@pytest.fixture
def proact() -> list[str]:
    """The command line, in this interpreter."""
    return [sys.executable, "-m", "services.cli"]


@pytest.fixture
def handbook() -> Path:
    """The folder of the Fraud Detection Handbook's data."""
    if not HANDBOOK.is_dir():
        pytest.skip(f"the handbook's data are not at {HANDBOOK.parent.name}/{HANDBOOK.name} beside the checkout")
    return HANDBOOK
