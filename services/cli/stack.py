"""``proact stack``: the embedded Kafka and Redis."""

from __future__ import annotations

import json
from pathlib import Path

import click

from services.cli.options import UserError, example, interruptible, progress, with_settings
from services.runtime.settings import TOPIC_SCALES, Settings

STOP_S, COMMAND_STOP_S = 15.0, 60.0
"""How long one may take to end in order; a command ends all that it has started."""


@click.group()
def stack() -> None:
    """Start, look at and stop the embedded Kafka and Redis."""


@stack.command(epilog=example("proact stack up --data-folder /tmp/proact --kafka-port 19092 --redis-port 16379"))
@with_settings("data_folder", "kafka_port", "redis_port", *TOPIC_SCALES)
@click.option("--timeout-s", default=60.0, show_default=True, help="How long each may take to answer.")
def up(settings: Settings, timeout_s: float) -> None:
    """Start both, wait until they answer, and create the topics. Does nothing for what runs already."""
    from services.stack.embedded import EmbeddedStack
    from services.stack.processes import StackError
    from services.streams import StreamsError

    embedded = EmbeddedStack.of(Path(settings.data_folder), settings.kafka_port, settings.redis_port, outlives=True)
    try:
        with interruptible():
            embedded.up_with_topics(progress, settings.topic_counts, timeout_s)
    except (StackError, StreamsError) as error:
        raise UserError(str(error)) from None
    click.echo(f"Kafka  {embedded.kafka_address}   log {embedded.kafka.log}")
    click.echo(f"Redis  {embedded.redis_url}   log {embedded.redis.log}")
    if (settings.kafka, settings.grid) != (embedded.kafka_connection, embedded.grid_connection):
        click.echo("To use them from other commands:")
        click.echo(
            f"  export PROACT_KAFKA_BOOTSTRAP_SERVERS={embedded.kafka_address} PROACT_REDIS_URL={embedded.redis_url}"
        )


@stack.command(epilog=example("proact stack status --json"))
@with_settings("data_folder", "kafka_port", "redis_port")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(settings: Settings, as_json: bool) -> None:
    """Say whether both run and answer; exit code 1 if not."""
    from services.stack.embedded import EmbeddedStack

    embedded = EmbeddedStack.of(Path(settings.data_folder), settings.kafka_port, settings.redis_port)
    state = embedded.status()
    if as_json:
        click.echo(json.dumps(state))
    else:
        for name, part in state.items():
            says = "answers" if part["answers"] else "does not answer"
            runs = f"process {part['pid']}" if part["pid"] else "not started from this folder"
            click.echo(f"{name:<6} {says:<16} {part['address']:<28} {runs}")
    if not all(part["answers"] for part in state.values()):
        raise SystemExit(1)


@stack.command(epilog=example("proact stack down"))
@with_settings("data_folder", "kafka_port", "redis_port")
def down(settings: Settings) -> None:
    """Stop all that was started from this data folder, a demo or a measurement that is under way included; the data stay."""
    from services.stack.folders import check_readable
    from services.stack.processes import COMMAND, StackError, daemons_below

    folder, stopped, left = Path(settings.data_folder), [], []
    try:
        check_readable(folder)
    except StackError as error:
        raise UserError(str(error)) from None
    for daemon in daemons_below(folder):
        where = daemon.folder.relative_to(folder)
        name = f"the command that used {where}" if daemon.name == COMMAND else daemon.name.capitalize()
        try:
            ran = daemon.stop(COMMAND_STOP_S if daemon.name == COMMAND else STOP_S)
        except StackError as error:
            left.append(str(error))
            continue
        if ran:
            stopped.append(name if daemon.name == COMMAND or where == Path(daemon.name) else f"{name} in {where}")
    if stopped or not left:
        click.echo("stopped " + " and ".join(stopped) if stopped else "nothing ran")
    if left:
        raise UserError("; ".join(left))
