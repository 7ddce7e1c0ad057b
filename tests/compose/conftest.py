"""The whole of docker-compose.yml, once for all tests, in a project and on ports of its own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from services.grid.connection import GridConnection
from services.observer.questions import Answer, ask
from services.stack.processes import free_port
from services.streams.connection import KafkaConnection
from tests.containers import DOCKER, ROOT, available, image_of, no_docker


def no_compose() -> str | None:
    """Return why docker-compose.yml cannot be run here; None if it can."""
    reason = no_docker()
    if reason is None and subprocess.run([DOCKER, "compose", "version"], capture_output=True, check=False).returncode:
        return "docker has no compose plugin"
    return reason


@dataclass
class ComposeSystem:
    """The containers; looks like a stack to the checks of tests/integration/system.py."""

    project: str
    environment: dict[str, str]
    up_s: float = 0.0
    without: list[str] = field(default_factory=list)

    @property
    def kafka_address(self) -> str:
        return f"127.0.0.1:{self.environment['PROACT_KAFKA_PORT']}"

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.environment['PROACT_REDIS_PORT']}/0"

    @property
    def kafka_connection(self) -> KafkaConnection:
        return KafkaConnection(self.kafka_address)

    @property
    def grid_connection(self) -> GridConnection:
        return GridConnection.of(self.redis_url)

    @property
    def prometheus_url(self) -> str:
        return f"http://127.0.0.1:{self.environment['PROACT_PROMETHEUS_PORT']}"

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False, timeout=280
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def compose(self, *arguments: str, check: bool = True) -> str:
        return self.run("docker", "compose", *arguments, check=check)

    def up(self, *options: str) -> float:
        """Start everything, wait until it is healthy, return the seconds that it took."""
        begin = time.monotonic()
        self.compose("up", "--detach", "--wait", "--wait-timeout", "120", *self.without, *options)
        return time.monotonic() - begin

    def scale(self, scorers: int) -> None:
        self.compose(
            "up", "--detach", "--wait", "--wait-timeout", "60", "--no-deps", "--no-recreate", "--scale",
            f"scorer={scorers}", "scorer",
        )  # fmt: skip

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--quiet", service).split()

    def inspect(self, container: str) -> dict[str, Any]:
        return json.loads(self.run("docker", "inspect", container))[0]

    def in_scorer(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a scorer's container."""
        return subprocess.run(
            [DOCKER, "exec", self.containers("scorer")[0], *command], capture_output=True, text=True, check=False
        )

    def ask(self, query: str) -> list[Answer]:
        return ask(self.prometheus_url, query)

    def value(self, query: str) -> float:
        """Return the one value that a query has, 0 where it has none."""
        answers = self.ask(query)
        assert len(answers) <= 1, answers
        return answers[0].value if answers else 0.0

    def logs(self, service: str) -> list[str]:
        return self.compose("logs", "--no-log-prefix", service).splitlines()


@pytest.fixture(scope="session")
def docker() -> None:
    reason = no_compose()
    if reason:
        pytest.skip(f"{reason}, so docker-compose.yml is not tested here")


@pytest.fixture(scope="session")
def system(docker) -> Iterator[ComposeSystem]:
    ports = {f"PROACT_{name}_PORT": str(free_port()) for name in ("KAFKA", "REDIS", "PROMETHEUS", "GRAFANA")}
    project = f"proact-test-{os.getpid()}"
    own = {"COMPOSE_PROJECT_NAME": project, "PROACT_IMAGE_TAG": "test", "PROACT_ENV_FILE": "/dev/null", **ports}
    running = ComposeSystem(project, os.environ | own)
    try:
        running.compose("build", "--quiet")
        if not available(image_of("grafana")):
            running.without = ["--pull", "never", "--scale", "grafana=0"]
        running.up_s = running.up()
        yield running
    finally:
        running.compose("down", "--volumes", "--timeout", "5", check=False)
