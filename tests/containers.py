"""The stack of the integration tests in containers, with the images and settings of docker-compose.yml."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from services.grid.connection import GridConnection
from services.stack.embedded import EmbeddedRedis
from services.streams.admin import KafkaAdmin
from services.streams.connection import KafkaConnection
from services.topology import topic_plans

ROOT = Path(__file__).parents[1]
DOCKER = shutil.which("docker") or ""
ANSWER_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15


def image_of(service: str) -> str:
    """Return the image that docker-compose.yml names for a service."""
    return str(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][service]["image"])


def available(image: str) -> bool:
    """Whether an image is there, or can be pulled."""
    commands = (["image", "inspect", image], ["pull", "--quiet", image])
    return any(subprocess.run([DOCKER, *c], capture_output=True, check=False).returncode == 0 for c in commands)


def no_docker() -> str | None:
    """Return why containers cannot be run here; None if they can."""
    if not DOCKER:
        return "there is no docker command"
    if subprocess.run([DOCKER, "info"], capture_output=True, check=False).returncode:
        return "no Docker engine answers"
    return next((f"{i} cannot be had" for i in map(image_of, ("kafka", "redis")) if not available(i)), None)


def choose_stack() -> tuple[str, str]:
    """Return on what integration tests run, ``containers`` or ``embedded``, and why: ``PROACT_TEST_STACK``, or what is there."""
    wanted = os.environ.get("PROACT_TEST_STACK", "auto")
    assert wanted in {"auto", "containers", "embedded"}, f"PROACT_TEST_STACK={wanted}"
    if wanted != "auto":
        return wanted, "as PROACT_TEST_STACK says"
    reason = no_docker()
    return ("embedded", f"since {reason}") if reason else ("containers", "since a Docker engine answers")


class ContainerPart:
    """One container that can be stopped and started again on the same port, with its data."""

    def __init__(self, container: Any, answers: Callable[[], bool]) -> None:
        self._container, self._answers, self._started = container, answers, False

    @property
    def pid(self) -> int | None:
        """The process that runs in it; None where none does."""
        if not self._started:
            return None
        container = self._container.get_wrapped_container()
        container.reload()
        return container.attrs["State"]["Pid"] or None

    def answers(self) -> bool:
        """Whether it answers."""
        return self._answers()

    def up(self, _progress: Callable[[str], None]) -> None:
        """Start it, where it does not run, and wait until it answers."""
        if self.pid is not None:
            return
        if self._started:
            self._container.get_wrapped_container().start()
        else:
            self._container.start()
            self._started = True
        deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
        while not self._answers():
            assert time.monotonic() < deadline_s, self._container.get_wrapped_container().logs()[-2_000:]
            time.sleep(0.1)

    def down(self) -> None:
        """Stop it; its data stay."""
        self._container.get_wrapped_container().stop(timeout=STOP_TIMEOUT_S)

    def remove(self) -> None:
        """Throw it away with its data."""
        if self._started:
            self._container.get_wrapped_container().remove(force=True, v=True)


class ContainerStack:
    """A Kafka and a Redis in containers: the same to a test as the embedded stack."""

    def __init__(self, _folder: Path, kafka_port: int, redis_port: int) -> None:
        from testcontainers.core.config import testcontainers_config  # noqa: PLC0415 - only where Docker is
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415

        if not testcontainers_config.ryuk_disabled and not available(testcontainers_config.ryuk_image):
            # Its reaper has an image of its own, which may not be had; every stack here is removed by its fixture.
            testcontainers_config.ryuk_disabled = True
        self.kafka_address = f"127.0.0.1:{kafka_port}"
        self.redis_url = f"redis://127.0.0.1:{redis_port}/0"
        self.kafka_connection, self.grid_connection = (
            KafkaConnection(self.kafka_address),
            GridConnection.of(self.redis_url),
        )
        kafka = (
            DockerContainer(image_of("kafka"))
            .with_command("bash /etc/proact/start")
            .with_env("CLUSTER_ID", "cHJvYWN0LXRlc3RzMDAwMQ")
            .with_env("PROACT_KAFKA_PORT", str(kafka_port))
            .with_env("KAFKA_HEAP_OPTS", "-Xms256m -Xmx512m")
            .with_volume_mapping(str(ROOT / "deploy/kafka"), "/etc/proact", "ro")
            .with_kwargs(hostname="kafka")
        )
        command = "redis-server --appendonly yes --save '' --maxmemory-policy noeviction"
        redis = DockerContainer(image_of("redis")).with_command(command).with_kwargs(user="redis")
        # Its with_bind_ports binds to every address of the host.
        kafka.ports, redis.ports = {"9092/tcp": ("127.0.0.1", kafka_port)}, {"6379/tcp": ("127.0.0.1", redis_port)}
        self.kafka = ContainerPart(kafka, KafkaAdmin(self.kafka_connection).answers)
        self.redis = ContainerPart(redis, EmbeddedRedis(_folder, redis_port).answers)

    def up(self, progress: Callable[[str], None]) -> None:
        """Start both."""
        self.redis.up(progress)
        self.kafka.up(progress)

    def apply_topics(self, counts: Mapping[str, int]) -> dict[str, str]:
        """Create the topics."""
        return KafkaAdmin(self.kafka_connection).apply(topic_plans(counts))

    def down(self) -> None:
        """Remove both."""
        self.kafka.remove()
        self.redis.remove()
