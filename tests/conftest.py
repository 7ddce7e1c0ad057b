"""What all tests share: one Kafka and Redis for the whole run, started when a test first asks for it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.containers import choose_stack
from tests.stacks import Stack, StackPool, new_stack

# The first call of a kernel loads or compiles it; and no test is about time but those that say so.
hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.load_profile("house")

# A test that was started in the background, or by nohup, would have its children ignore what it sends them.
for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _usual)

_STACK = choose_stack()
HANDBOOK = Path(__file__).parents[2] / "shared" / "data" / "handbook"


def pytest_terminal_summary(terminalreporter) -> None:
    """Say what kind of Kafka and Redis the tests ran on: nothing is skipped in silence."""
    what = {"containers": "Kafka and Redis in containers", "embedded": "the embedded Kafka and Redis, real servers too"}
    kind, why = _STACK
    terminalreporter.write_line(f"integration tests and contracts ran on {what[kind]}, {why}")


STARTS_SERVERS = {"integration", "chaos", "compose"}
"""Folders whose tests start a Kafka or a Redis, or commands that do."""
FIXTURES = {"stack", "own_stack", "stack_pool", "guarded_redis"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on a Kafka or a Redis, by its folder, a fixture or as the real side of a contract."""
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        real = bool({"kafka", "redis"} & {one for one in parameters.values() if isinstance(one, str)})
        if real or STARTS_SERVERS & set(item.path.parts) or FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("stack")


@pytest.fixture(scope="session")
def no_servers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a ``redis-server`` that does not start, before all others on the path."""
    folder = tmp_path_factory.mktemp("no-servers")
    command = folder / "redis-server"
    command.write_text("#!/bin/sh\necho 'a test that starts servers is marked with pytest.mark.stack' >&2\nexit 1\n")
    command.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(autouse=True)
def _servers_are_of_the_stack(request: pytest.FixtureRequest, no_servers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the marker ``stack`` no test starts a server: every stack and command of ours starts a Redis first."""
    if not request.node.get_closest_marker("stack"):
        monkeypatch.setenv("PATH", no_servers)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running Kafka and Redis with the topics; tests that need an empty log use topics or stacks of their own."""
    shared = new_stack(_STACK[0], tmp_path_factory.mktemp("stack"))
    try:
        shared.up(lambda _: None)
        shared.apply_topics({"partitions": 3})
        yield shared
    finally:
        shared.down()


@pytest.fixture(scope="session")
def stack_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackPool]:
    """Running stacks that tests have alone, one after the other."""
    pool = StackPool(lambda: new_stack(_STACK[0], tmp_path_factory.mktemp("stack")))
    try:
        yield pool
    finally:
        pool.down()


@pytest.fixture
def own_stack(stack_pool: StackPool) -> Iterator[Callable[..., Stack]]:
    """A factory of stacks that a test may stop, starve and break."""

    others = stack_pool.lent

    def make(partitions: int = 3) -> Stack:
        return stack_pool.take(partitions)

    try:
        yield make
    finally:
        for stack in stack_pool.lent:
            if stack not in others:
                stack_pool.give_back(stack)


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
