"""What the command line says of itself, and of its users' mistakes."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from services.cli.main import _COMMANDS
from services.cli.main import proact as command_line
from services.cli.options import UserError, person
from tests.benchmarks.__main__ import benchmarks
from tests.chaos.__main__ import chaos
from tests.cli.running import TOOLS, run

COMMANDS = [
    *([name] for name in (*_COMMANDS, *TOOLS)),
    ["stack", "up"],
    ["stack", "status"],
    ["stack", "down"],
    ["topics", "apply"],
    ["topics", "show"],
    ["models", "list"],
    ["models", "live"],
    *(["rules", name] for name in ("names", "check", "apply", "rollback", "status", "show", "backtest")),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command):
    first, *others = command
    group, words = (
        (chaos, others) if first == "chaos" else (benchmarks, command) if first in TOOLS else (command_line, command)
    )

    done = CliRunner().invoke(group, [*words, "--help"])  # in this process: to start one takes longer than its help

    assert done.exit_code == 0
    assert "Commands:" in done.output or "Example" in done.output


def test_help_is_shown_by_the_command_itself(proact):
    done = run(proact, "--help")

    assert (done.returncode, done.stderr) == (0, "")
    assert "Commands:" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "No such command"),
        (["stack", "nonsense"], "No such command"),
        (["tail", "nothing"], "is not one of"),
        (["tail"], "Missing argument"),
        (["scorer", "--nonsense"], "No such option"),
        (["scorer", "--workers", "0"], "must lie between 1 and 64"),
        (["simulate", "--rate", "5000", "--seconds", "100", "--cards", "10"], "give more --cards"),
        (["scorer", "--workers", "many"], "workers must be a whole number"),
        (["scorer", "--model-path", "/nowhere"], "is missing"),
        (["replay", "missing.parquet"], "there is no file"),
        (["replay", "x.parquet", "--mapping", "nowhere"], "there is no mapping"),
        (["replay", "x.parquet", "--speed", "fast"], "--speed must be"),
        (["simulate", "--start", "yesterday", "--output", "x.parquet"], "--start must be a day"),
        (["simulate", "--kafka-bootstrap-servers", "127.0.0.1:1"], "does not answer"),
        (["watch", "--kafka-bootstrap-servers", "127.0.0.1:1"], "does not answer"),
        (["tail", "card-alerts", "--kafka-bootstrap-servers", "127.0.0.1:1"], "does not answer"),
        (["tail", "card-alerts", "--since", "yesterday"], "such as 10m, 2h or 3d"),
        (["tail", "card-alerts", "--since", "10m", "--from-beginning"], "leave one out"),
        (["tail", "card-decisions", "--severity", "HIGH"], "--severity is for card-alerts"),
        (["tail", "dead-letters", "--card", "card-1"], "--card is for"),
        (["tail", "card-alerts", "--severity", "hihg"], "is not one of"),
        (["tail", "card-alerts", "--severity", "high", "--kafka-bootstrap-servers", "127.0.0.1:1"], "does not answer"),
        (["tail"], "Missing argument 'TOPIC'. Choose from: card-decisions,"),
        (["stak"], "No such command 'stak'. Did you mean 'stack'?"),
        (["rules", "statsu"], "Did you mean 'status'?"),
        (["scorer", "--worker", "2"], "Did you mean '--workers'?"),
        (["check", "--kafka-bootstrap-servers", "127.0.0.1:1"], "`make up` or `proact stack up`"),
        (["grid", "status", "--kafka-bootstrap-servers", "127.0.0.1:1"], "`make up` or `proact stack up`"),
        (["watch", "--kafka-bootstrap-servers", "127.0.0.1:1"], "`make up` or `proact stack up`"),
        (["rules", "status", "--kafka-bootstrap-servers", "127.0.0.1:1"], "`make up` or `proact stack up`"),
        (["report", "--prometheus-url", "http://127.0.0.1:1"], "start one with `make up`"),
        (["models", "live", "fraud/v999"], "there is no model fraud/v999"),
        (["train", "--output", "models/fraud/v4"], "is live"),
        (["topics", "apply", "--kafka-bootstrap-servers", "127.0.0.1:1"], "does not answer"),
        (["train", "--data", "missing.parquet"], "there is no file"),
        (["evaluate", "/nowhere"], "is missing"),
        (["parity", "/nowhere"], "must hold the handbook"),
        (["benchmark-quality", "/nowhere"], "there is no file"),
        (["rules", "check", "/nowhere"], "No such file"),
        (["rules", "backtest", "deploy/rules.yaml", "--data", "missing.parquet"], "there is no file"),
        (["rules", "nonsense"], "No such command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_users_mistake_is_one_clear_line_and_a_non_zero_exit(proact, arguments, says):
    done = run(proact, *arguments)

    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if not line.startswith("·")]) == 1, done.stderr


def test_where_nobody_knows_who_somebody_is_they_say_so_themselves(monkeypatch):
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 10001")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert person("ana") == "ana"
    with pytest.raises(UserError, match="--author"):
        person(None)
