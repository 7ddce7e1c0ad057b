"""No command and no service shows a password, whatever is away: the commands are those that there are, so a new one is tried by itself."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from services.cli.main import proact as command_line
from services.grid.redis import described
from services.registry import BY_NAME, process_of
from services.runtime.settings import ConfigError, resolve_settings
from services.secrets import SecretUrl
from tests.benchmarks.__main__ import benchmarks
from tests.chaos.__main__ import chaos
from tests.cli.running import run

CANARY = "c4n4ry"
USER = "c4n4rx"
AWAY = {
    "PROACT_REDIS_URL": f"redis://{USER}:{CANARY}@127.0.0.1:1/0",
    "PROACT_PROMETHEUS_URL": f"http://{USER}:{CANARY}@127.0.0.1:1",
    "PROACT_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "PROACT_GRID_TIMEOUT_MS": "500",
    "PROACT_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "PROACT_KAFKA_SASL_MECHANISM": "PLAIN",
    "PROACT_KAFKA_SASL_USERNAME": USER,
    "PROACT_KAFKA_SASL_PASSWORD": CANARY,
    "PROACT_REDIS_CLIENT_NAME": "proact",
}
FOREVER = set(BY_NAME)
"""Services: they wait for the stores."""
OWN_STACK = {
    "stack up",
    "demo",
    "demo-learning",
    "chaos",
    "bench",
    "bench-compare",
    "bench-gate",
    "bench-releases",
    "bench-training-sets",
    "costs",
    "parity",
    "bench-lake",
    "train",
    "benchmark-quality",
}
"""They start stores of their own or none, and take minutes: of these the help and a mistake are looked at."""
ARGUMENTS = {
    "replay": ["missing.parquet"], "tail": ["card-alerts"], "token": ["8a6e0804-2bd0-4672-b79d-d97027f9071a"], "rules check": ["missing.yaml"],
    "rules apply": ["missing.yaml"], "rules approve": ["1"], "models show": ["fraud/v4"], "models verify": ["fraud/v4"],
    "models release": ["fraud/v4", "--stage", "shadow"], "models promote": ["fraud/v4"], "models approve": ["fraud/v4"], "rules backtest": ["missing.yaml"], "evaluate": ["missing"], "parity": ["missing"],
    "benchmark-quality": ["missing"], "bench-compare": ["HEAD"], "models live": ["fraud/v4"],
    "lake sql": ["SELECT 1"], "lake forget": ["--customer", "c", "--yes"], "dataset build": ["--until", "2026-01-01"],
    "data suggest": ["missing.csv"], "data check": ["missing.csv"], "backtest": ["missing.yaml", "--until", "2026-01-01"],
    "control": ["--until", "2026-01-01"], "drift": ["--from", "2026-01-01", "--until", "2026-01-02"],
    "explain": ["8a6e0804-2bd0-4672-b79d-d97027f9071a"],
}  # fmt: skip


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = {" ".join(path): command for group in (command_line, benchmarks) for path, command in leaves(group)} | {
    "chaos": chaos
}


def assert_silent(*said: str) -> None:
    for text in said:
        assert CANARY not in text
        assert USER not in text


@pytest.mark.parametrize("name", COMMANDS)
def test_neither_help_nor_a_mistake_shows_a_secret(name):
    for arguments in (["--help"], ["--no-such-option"]):
        done = CliRunner(env=AWAY).invoke(COMMANDS[name], arguments)
        assert_silent(done.output)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in FOREVER | OWN_STACK])
def test_no_command_shows_a_secret_when_everything_is_away(proact, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    json_too = any("--json" in option.opts for option in COMMANDS[name].params)
    ways = [[], ["--json"]] if json_too else [[]]
    with ThreadPoolExecutor() as pool:  # they wait for what is away
        words = [[*name.split(), *ARGUMENTS.get(name, []), *more] for more in ways]
        every = list(pool.map(lambda arguments: run(proact, *arguments, timeout=120, **AWAY), words))
    assert len(every) == len(ways)
    for done in every:
        assert "Missing argument" not in done.stderr, "name its arguments above"
        assert "Traceback" not in done.stderr, done.stderr[-2_000:]
        assert_silent(done.stdout, done.stderr)


NEEDS_REDIS = [
    n for n, command in COMMANDS.items() if n not in FOREVER and any(p.name == "redis_url" for p in command.params)
]


@pytest.mark.parametrize("name", NEEDS_REDIS)
def test_nor_when_redis_alone_is_away(proact, stack, name):
    for _ in range(5):  # a broker that has just begun may not answer for groups yet
        there = {"PROACT_KAFKA_BOOTSTRAP_SERVERS": stack.kafka_address, "PROACT_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"}
        done = run(proact, *name.split(), timeout=120, **AWAY | there)
        assert done.returncode != 0
        assert_silent(done.stdout, done.stderr)
        if "Redis" in done.stderr:
            return
    pytest.fail(done.stderr)


@pytest.mark.parametrize("arguments", [*map(process_of, BY_NAME), ("services.monitor",)], ids=lambda a: a[-1])
def test_no_service_logs_a_secret_while_its_stores_are_away(tmp_path, arguments):
    log = tmp_path / "log"
    port = {"PROACT_METRICS_PORT": str(21_300 + len(arguments[-1])), "PROACT_LOG_FORMAT": "json"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], stdout=out, stderr=out, env={**os.environ, **AWAY, **port}, cwd=tmp_path
        )  # fmt: skip
        try:
            until_s = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < until_s and b"away" not in log.read_bytes():
                time.sleep(0.2)
            command = Path(f"/proc/{process.pid}/cmdline").read_text()
        finally:
            process.terminate()
            process.wait(60)
    assert_silent(log.read_text(), command)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{CANARY}@host:6379/0", f"redis://{USER}:{CANARY}@[::1]:6379/0?x={CANARY}", f"rediss://host/0?password={CANARY}",
        f"unix://{USER}:{CANARY}@/tmp/redis.sock",
    ],
)  # fmt: skip
def test_an_address_with_a_password_is_read_by_its_name_alone(url):
    secret = SecretUrl(url)

    assert secret.reveal() == url
    assert_silent(
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret!s:>60}",
        f"{secret!r}",
        str([secret]),
        str({"a": secret}),
    )
    assert SecretUrl(url) == secret != SecretUrl("redis://host")
    with pytest.raises(TypeError):
        pickle.dumps(secret)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PROACT_REDIS_URL", f"redis://:{CANARY}#x@host:6379/0"), ("PROACT_REDIS_URL", f"redis://host:{CANARY}/0"), ("PROACT_REDIS_URL", CANARY),
        ("PROACT_REDIS_URL", f"redis://:a/{CANARY}@host"), ("PROACT_REDIS_URL", f"redis://user:{CANARY}?5678@host:6379/0"), ("PROACT_KAFKA_BOOTSTRAP_SERVERS", f"{USER}:{CANARY}@host:9092"),
        ("PROACT_PROMETHEUS_URL", f"http://host:{CANARY}"),
    ],
)  # fmt: skip
def test_a_malformed_address_is_refused_without_being_shown(variable, value):
    with pytest.raises(ConfigError) as refused:
        resolve_settings({}, {variable: value})

    assert variable in str(refused.value)
    assert_silent(str(refused.value), repr(refused.value))


def test_what_redis_repeats_of_a_command_is_not_shown():
    assert_silent(
        described(ValueError(f"unknown command `HELLO`, with args beginning with: `3` `AUTH` `x` `{CANARY}`"))
    )


def test_a_child_gets_the_secret_by_its_environment():
    environment = resolve_settings({}, AWAY).environment()

    assert {name: environment[name] for name in AWAY} == AWAY
