"""A Kafka that asks for a password (SCRAM), with and without TLS, and a Redis whose users have rights: all clients of ours at once."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import redis
from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from services.registry import process_of, sandbox_of
from services.runtime.children import ServiceChild
from services.runtime.settings import resolve_settings
from services.stack.embedded import EmbeddedStack
from services.stack.kafka import EmbeddedKafka
from services.stack.processes import free_port
from services.stack.redis import EmbeddedRedis
from services.streams import Records
from services.worker.sandbox import ProcessSandbox, sandbox_command
from tests.cli.running import run
from tests.integration.system import wait_until

USER, CANARY = "c4n4rx", "c4n4ry"
OPENSSL = shutil.which("openssl")
LISTENERS = """
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,DOOR0:SASL_PLAINTEXT,DOOR1:SASL_SSL
listener.name.door0.sasl.enabled.mechanisms=SCRAM-SHA-256
listener.name.door0.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.door1.sasl.enabled.mechanisms=SCRAM-SHA-256
listener.name.door1.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.door1.ssl.keystore.type=PEM
listener.name.door1.ssl.keystore.location={folder}/server.pem
"""


def make_certificates(folder: Path) -> None:
    """Make a self-signed certificate of 127.0.0.1 and its key, and both in one file."""
    assert OPENSSL is not None
    subprocess.run(
        [OPENSSL, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / "ca.pem")], check=True, capture_output=True,
    )  # fmt: skip
    (folder / "server.pem").write_text((folder / "key.pem").read_text() + (folder / "ca.pem").read_text())


@dataclass
class Guarded:
    """A stack that lets nobody in without a password."""

    folder: Path
    stack: EmbeddedStack
    doors: list[int]

    def environment(self, protocol: str = "SASL_PLAINTEXT", user: str = USER) -> dict[str, str]:
        """Return what a process is given, with its passwords in files."""
        own = {
            "PROACT_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{self.doors[protocol == 'SASL_SSL']}",
            "PROACT_KAFKA_SECURITY_PROTOCOL": protocol, "PROACT_KAFKA_SASL_MECHANISM": "SCRAM-SHA-256",
            "PROACT_KAFKA_SASL_USERNAME": user, "PROACT_KAFKA_SASL_PASSWORD_FILE": str(self.folder / "password"),
            "PROACT_REDIS_URL": self.stack.redis_url, "PROACT_REDIS_USERNAME": user,
            "PROACT_REDIS_PASSWORD_FILE": str(self.folder / "password"), "PROACT_LOG_FORMAT": "json", "PROACT_PARTITIONS": "2",
        }  # fmt: skip
        return own | ({"PROACT_KAFKA_SSL_CA_LOCATION": str(self.folder / "ca.pem")} if protocol == "SASL_SSL" else {})

    def outside(self, protocol: str = "SASL_PLAINTEXT") -> dict[str, str]:
        """Return what somebody says who knows the addresses alone."""
        return {k: v for k, v in self.environment(protocol).items() if k.endswith(("SERVERS", "_URL"))}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    make_certificates(folder)
    (folder / "password").write_text(f"{CANARY}\n")
    doors = [free_port(), free_port()]
    kafka = EmbeddedKafka(folder, free_port(), [(door, door) for door in doors])
    stack = EmbeddedStack(kafka, EmbeddedRedis(folder, free_port()))
    try:
        stack.up(lambda _: None)
        admin = AdminClient({"bootstrap.servers": stack.kafka_address, "log_level": 0})
        scram = UserScramCredentialUpsertion(
            USER, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), CANARY.encode()
        )
        admin.alter_user_scram_credentials([scram])[USER].result()
        stack.kafka.down()
        with (folder / "kafka" / "server.properties").open("a") as properties:
            properties.write(LISTENERS.format(folder=folder))
        stack.kafka.up(lambda _: None)
        client = redis.Redis.from_url(stack.redis_url)
        client.acl_setuser(USER, enabled=True, passwords=[f"+{CANARY}"], keys=["*"], categories=["+@all"])
        client.acl_setuser("default", enabled=False)
        yield Guarded(folder, stack, doors)
    finally:
        stack.down()


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_everybody_works_with_credentials_and_nobody_shows_them(guarded, proact, tmp_path, protocol):
    own = guarded.environment(protocol) | {"PROACT_METRICS_PORT": str(free_port())}
    said: list[str] = []

    def command(*arguments: str, codes: tuple[int, ...] = (0,)) -> str:
        done = run(proact, *arguments, timeout=120, **own)
        assert done.returncode in codes, done.stderr[-2_000:]
        said.extend((done.stdout, done.stderr))
        return done.stdout

    command("topics", "apply")
    command("simulate", "--cards", "20", "--days", "2")
    log = tmp_path / "scorer.log"
    supervisor = subprocess.Popen(
        [*proact, "scorer", "--workers", "2"],
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        env={**os.environ, **own},
    )
    try:
        settings = resolve_settings({}, own)
        wait_until(lambda: all_is_decided(command), 200, "all is decided")
        children = psutil.Process(supervisor.pid).children(recursive=True)
        assert len(children) >= 2
        said += [" ".join(child.cmdline()) for child in children]
    finally:
        supervisor.terminate()
        supervisor.wait(30)
    assert settings.kafka.properties["sasl.password"] == CANARY
    said.append(log.read_text())
    tailed = command("tail", "card-decisions", "--from-beginning", "--limit", "5", "--json").splitlines()
    assert len(tailed) == 5
    verdict = json.loads(command("check", codes=(0, 1, 3)).splitlines()[-1])
    assert verdict["transactions"] > 0, verdict
    said.append(command("settings"))
    assert "PROACT_KAFKA_SASL_PASSWORD       ***" in said[-1]
    for text in said:
        assert CANARY not in text
        assert USER not in text


def all_is_decided(command: Callable[..., str]) -> bool:
    rows = [json.loads(line) for line in command("grid", "status", "--json", codes=(0, 1)).splitlines()]
    return bool(rows) and not any(row["waiting"] for row in rows)


NEEDS_KAFKA = [
    "topics apply",
    "simulate --cards 1 --days 1",
    "tail card-alerts",
    "watch",
    "rules status",
    "dead-letters redrive",
]


@pytest.mark.parametrize("name", [*NEEDS_KAFKA, "grid status", "check"])
def test_nobody_works_without_credentials_and_one_line_says_why(guarded, proact, name):
    done = run(proact, *name.split(), timeout=120, **guarded.outside())

    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if line.startswith("proact: ")]
    assert "security.protocol" in line, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["topics apply", "rules status", "check"])
def test_a_wrong_password_is_said_in_one_line(guarded, proact, tmp_path, name):
    (tmp_path / "wrong").write_text(f"{CANARY}-not")
    own = guarded.environment() | {"PROACT_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "wrong")}
    done = run(proact, *name.split(), timeout=120, **own)

    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if line.startswith("proact: ")]
    assert "Authentication failed" in line, done.stderr
    assert CANARY not in done.stderr + done.stdout


@pytest.mark.parametrize("name", ["grid status", "check"])
def test_a_redis_that_does_not_let_in_is_said_in_one_line(guarded, proact, tmp_path, name):
    (tmp_path / "wrong").write_text(f"{CANARY}-not")
    without = {k: v for k, v in guarded.environment().items() if "REDIS_USER" not in k and "REDIS_PASS" not in k}
    for own, why in (
        (without, "wants a password: set PROACT_REDIS_PASSWORD"),
        (
            guarded.environment() | {"PROACT_REDIS_PASSWORD_FILE": str(tmp_path / "wrong")},
            "invalid username-password pair",
        ),
    ):
        done = run(proact, *name.split(), timeout=120, **own)
        assert done.returncode == 1
        [line] = [line for line in done.stderr.splitlines() if line.startswith("proact: ")]
        assert why in line, done.stderr
        assert CANARY not in done.stderr + done.stdout


def test_a_worker_says_in_one_line_why_it_is_not_let_in(guarded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong").write_text(f"{CANARY}-not")
    files = {f"PROACT_{store}_PASSWORD_FILE": str(tmp_path / "wrong") for store in ("KAFKA_SASL", "REDIS")}
    own = resolve_settings({"metrics_port": free_port()}, guarded.environment() | files)
    log = tmp_path / "log"
    with ServiceChild(process_of("profiler"), own, log):
        for said in ("Authentication failed", "invalid username-password pair"):
            wait_until(lambda said=said: said in log.read_text(), 60, said)
        time.sleep(3.0)
    lines = [line for line in log.read_text().splitlines() if "Authentication failed" in line]
    assert len(lines) == 1, lines
    assert CANARY not in log.read_text()


def test_a_sandbox_works_with_the_credentials_that_its_parent_has(guarded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in guarded.environment().items():
        monkeypatch.setenv(name, value)
    nothing = np.zeros(1, np.int64)
    with closing(ProcessSandbox(sandbox_command(sandbox_of("scorer")), lambda _: None)) as sandbox:
        assert sandbox.survives(Records("card-transactions", nothing, nothing, nothing, [b"k"], [b"v"], 2))


@contextmanager
def in_tls(folder: Path, port: int) -> Iterator[int]:
    """Offer a port by TLS, since the embedded Redis is built without."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                accepted, _ = listener.accept()
                with suppress(OSError):
                    outer = context.wrap_socket(accepted, server_side=True)
                    inner = socket.create_connection(("127.0.0.1", port))
                    for pair in ((outer, inner), (inner, outer)):
                        threading.Thread(target=pump, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def test_a_redis_behind_tls_is_verified_by_its_certificate(guarded, proact):
    with in_tls(guarded.folder, int(guarded.stack.redis_url.rsplit(":", 1)[1].split("/")[0])) as port:
        own = guarded.environment() | {"PROACT_REDIS_URL": f"rediss://127.0.0.1:{port}/0"}
        trusted = own | {"PROACT_REDIS_SSL_CA_CERTS": str(guarded.folder / "ca.pem")}
        run(proact, "topics", "apply", **own)
        for _ in range(10):  # a broker that has just begun may not answer for groups yet
            done = run(proact, "grid", "status", "--json", timeout=120, **trusted)
            if not done.returncode:
                break
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 2

        done = run(proact, "grid", "status", timeout=120, **own)
        assert done.returncode == 1
        [line] = [line for line in done.stderr.splitlines() if line.startswith("proact: ")]
        assert "certificate verify failed" in line
