"""``proact lake``: the topics as tables."""

from __future__ import annotations

import getpass
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from services.cli.options import UserError, counted, example, progress, with_settings
from services.registry import BY_NAME
from services.runtime.remedies import with_remedy
from services.runtime.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from services.checker.evidence import Log
    from services.lake.queries import Lake

_LAKE = with_settings("lake_url")
ARCHIVED = tuple(log.topic for log in BY_NAME["archiver"].logs)


@click.group(epilog=example('proact lake sql "SELECT action, count(*) FROM card_decisions GROUP BY action"'))
def lake() -> None:
    """The lake: what happened, as Delta Lake tables; the archiver writes them."""


def open_lake(settings: Settings) -> Lake:
    """Return the lake. Raises UserError."""
    from services.lake.queries import Lake
    from services.lake.table import LakeError

    try:
        return Lake(settings.lake_url, ARCHIVED)
    except LakeError as error:
        raise UserError(str(error)) from None


@lake.command(epilog=example("proact lake status --json"))
@_LAKE
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(settings: Settings, as_json: bool) -> None:
    """Show what each table holds: rows, files, days, and up to which offset of each partition."""
    from services.lake.table import LakeError

    try:
        found = open_lake(settings).status()
    except LakeError as error:
        raise UserError(with_remedy(error)) from None
    if as_json:
        click.echo(json.dumps([one.as_json() for one in found]))
        return
    click.echo(f"{'table':<20} {'rows':>12} {'files':>6} {'MiB':>8}  days")
    for one in found:
        days = "" if one.first_day is None else f"{one.first_day} to {one.last_day}"
        click.echo(f"{one.table:<20} {one.rows:>12,} {one.files:>6,} {one.bytes / 2**20:>8.1f}  {days}")


@lake.command(
    epilog=example('proact lake sql "SELECT event_date, count(*) FROM card_transactions GROUP BY 1 ORDER BY 1"')
)
@_LAKE
@click.option(
    "--format", "form", default="auto", show_default=True, type=click.Choice(["auto", "table", "csv", "json"]),
    help="auto: a table on a terminal, else one JSON object a line.",
)  # fmt: skip
@click.argument("query")
def sql(settings: Settings, form: str, query: str) -> None:
    """Ask the tables with SQL (DuckDB's); their names are the topics', with underscores."""
    from services.lake.table import LakeError

    try:
        found = open_lake(settings).query(query)
    except LakeError as error:
        raise UserError(str(error)) from None
    _print(found, form if form != "auto" else "table" if sys.stdout.isatty() else "json")


def _print(found: pa.Table, form: str) -> None:
    if form == "csv":
        from pyarrow import csv

        csv.write_csv(found, sys.stdout.buffer)
    elif form == "json":
        for batch in found.to_batches():
            for row in batch.to_pylist():
                click.echo(json.dumps(row, default=str))
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table(*found.column_names)
        for row in found.to_pylist():
            table.add_row(*("" if value is None else str(value) for value in row.values()))
        Console().print(table)


@lake.command(epilog=example("proact lake optimize"))
@_LAKE
@click.option(
    "--keep-hours", default=168, show_default=True, type=click.IntRange(0),
    help="Files that the newest version does not need are kept for so long, for who still reads them.",
)  # fmt: skip
def optimize(settings: Settings, keep_hours: int) -> None:
    """Put small files together and delete those that nobody needs; the archiver does the same by itself."""
    from services.lake.table import LakeError

    try:
        done = open_lake(settings).optimize(keep_hours)
    except LakeError as error:
        raise UserError(with_remedy(error)) from None
    for table, (days, files) in done.items():
        click.echo(f"{table:<20} {counted(days, 'day')} put together, {counted(files, 'file')} deleted")


@lake.command(epilog=example("proact lake forget --customer customer-000123"))
@_LAKE
@click.option("--customer", required=True, help="The customer's token.")
@click.option("--who", default=None, help="Who asks for it; the user's name if left out.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(settings: Settings, customer: str, who: str | None, yes: bool) -> None:
    """Remove a customer's rows from every table and every file, and note it in the table lake_audit.

    What Kafka still holds is not archived again; what comes later is. Older versions of the tables can no longer be read where they held the
    customer.
    """
    import time

    from services.lake.table import LakeError

    found = open_lake(settings)
    if not yes:
        click.confirm(f"Remove {customer} from every table of {settings.lake_url} for good?", abort=True, err=True)
    try:
        removed = found.forget(customer, who or getpass.getuser(), time.time_ns() // 1_000_000)
    except LakeError as error:
        raise UserError(with_remedy(error)) from None
    for table, count in removed.items():
        click.echo(f"{table:<20} {counted(count, 'row')} removed")


@lake.command(epilog=example("proact lake check"))
@with_settings("lake_url", "kafka_bootstrap_servers", "archiver_group_id")
@click.option(
    "--table", "tables", multiple=True, type=click.Choice(ARCHIVED), help="The topic of a table; all if left out."
)
def check(settings: Settings, tables: tuple[str, ...]) -> int:
    """Compare every topic with its table, record by record and field by field, with code that shares nothing with the archiver's.

    Prints one JSON object; the exit code is 1 if a record that was archived is lost, twice or another one.
    """
    from services.checker.evidence import EvidenceError, Log, Where
    from services.lake.table import LakeError

    lake_, found = open_lake(settings), {}
    spec = BY_NAME["archiver"]
    try:
        for topic in tables or ARCHIVED:
            progress(f"comparing {topic} with its table")
            log = Log(Where(settings.kafka.admin({}), ""), spec.group_id(settings, topic))
            found[topic] = _compare(lake_, log, topic)
    except (EvidenceError, LakeError) as error:
        raise UserError(with_remedy(error)) from None
    holds = all(one["lost"] + one["twice"] + one["different"] + one["surplus"] == 0 for one in found.values())
    click.echo(json.dumps({"verdict": "ok" if holds else "broken", "tables": found}))
    return int(not holds)


def _compare(lake_: Lake, log: Log, topic: str) -> dict[str, Any]:
    from services.checker.lake import compare_table

    starts = log.starts(topic)
    ends = log.committed(starts, topic, stable=False)
    name = topic.replace("-", "_")
    rows = lake_.rows(name) if name in lake_.tables else iter(())
    return compare_table(topic, log.read(topic), rows, starts, ends).as_json() | {"committed": sum(ends.values())}
