"""``proact lake``: the topics as tables."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from services.cli.options import UserError, counted, example, person, progress, with_settings
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
    click.echo(f"{'table':<20} {'rows':>12} {'files':>6} {'MiB':>8}  {'days':<24}  next offset of each partition")
    for one in found:
        days = "" if one.first_day is None else f"{one.first_day} to {one.last_day}"
        offsets = " ".join(f"{partition}:{offset}" for partition, offset in one.next_offsets.items())
        click.echo(f"{one.table:<20} {one.rows:>12,} {one.files:>6,} {one.bytes / 2**20:>8.1f}  {days:<24}  {offsets}")


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
    names = _distinct(found.column_names)
    if form == "csv":
        import csv

        written = csv.writer(sys.stdout, lineterminator="\n")
        written.writerow(names)
        written.writerows(
            [json.dumps(_finite(v)) if isinstance(v, list | dict) else v for v in row] for row in _rows(found)
        )
    elif form == "json":
        for row in _rows(found):
            click.echo(json.dumps(_finite(dict(zip(names, row, strict=True))), default=str))
    else:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table(*map(escape, names))
        for row in _rows(found):
            table.add_row(*("" if value is None else escape(str(value)) for value in row))
        Console().print(table)


def _distinct(names: list[str]) -> list[str]:
    """Return names of which none stands twice."""
    return [name if name not in names[:i] else f"{name}_{i}" for i, name in enumerate(names)]


def _rows(found: pa.Table) -> Iterator[tuple[Any, ...]]:
    for batch in found.to_batches():
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _finite(value: Any) -> Any:
    """Return a value as JSON can have it: it has no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list) else value


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

    Say it again for what came later, or if it was interrupted: labels come days after their transactions. What Kafka still holds is not archived
    again. Older versions of the tables can no longer be read where they held the customer.
    """
    import time

    from services.lake.forgetting import forget as run
    from services.lake.table import LakeError

    found = open_lake(settings)
    if not yes:
        click.confirm(f"Remove {customer} from every table of {settings.lake_url} for good?", abort=True, err=True)
    try:
        removed = run(found, customer, person(who), time.time_ns() // 1_000_000, time.sleep)
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
    from services.checker.evidence import EvidenceError, Log, Where, kafka_answers
    from services.lake.table import LakeError
    from services.streams import StreamsError

    spec, found = BY_NAME["archiver"], {}
    try:
        with kafka_answers():
            for topic in tables or ARCHIVED:
                progress(f"comparing {topic} with its table")
                log = Log(Where(settings.kafka.admin({}), ""), spec.group_id(settings, topic))
                found[topic] = _compare(settings, log, topic)
    except (EvidenceError, LakeError, StreamsError) as error:
        raise UserError(with_remedy(error)) from None
    holds = all(one["lost"] + one["twice"] + one["different"] + one["surplus"] == 0 for one in found.values())
    click.echo(json.dumps({"verdict": "ok" if holds else "broken", "tables": found}))
    return int(not holds)


def _compare(settings: Settings, log: Log, topic: str) -> dict[str, Any]:
    from services.checker.lake import ArchivedTopic, compare_table
    from services.codec.schemas import topics
    from services.lake.queries import FORGOTTEN
    from services.lake.table import table_name
    from services.streams.admin import KafkaAdmin

    starts = log.starts(topic)
    ends = log.committed(
        starts, topic, stable=False
    )  # before the table is looked at: what is committed by now is in it
    described, name, lake_ = topics()[topic], table_name(topic), open_lake(settings)
    forgotten = lake_.of_rows(FORGOTTEN, "true", "transaction_sha256") if FORGOTTEN in lake_.tables else []
    table = ArchivedTopic(
        topic,
        KafkaAdmin(settings.kafka).topic_id(topic),
        compacted=described.retention_days is None,
        forgotten=frozenset(forgotten),
    )
    rows = lake_.rows(name) if name in lake_.tables else iter(())
    return compare_table(table, log.read(topic), rows, starts, ends).as_json() | {"committed": sum(ends.values())}
