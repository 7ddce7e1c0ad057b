"""``proact data``: a file of one's own, before anything is done with it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from services.cli.options import UserError, counted, example, progress

if TYPE_CHECKING:
    from services.offline.datasets.report import FileReport

_FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group(
    epilog=example("proact data suggest FILE.csv > mine.yaml && proact data check FILE.csv --mapping mine.yaml")
)
def data() -> None:
    """Your own files of transactions: draft a mapping, and see what would become of every row."""


@data.command(epilog=example("proact data suggest transactions.csv.gz > mine.yaml"))
@_FILE
def suggest(file: Path) -> None:
    """Draft a mapping of FILE, which may be a folder, from its header and first rows; it goes to the standard output."""
    from services.offline.datasets.labels import DatasetError
    from services.offline.datasets.suggest import suggest as run

    try:
        found = run(file)
    except DatasetError as error:
        raise UserError(str(error)) from None
    for note in found.notes:
        progress(note)
    click.echo(found.as_yaml(), nl=False)


@data.command(epilog=example("proact data check transactions.csv.gz --mapping mine.yaml"))
@_FILE
@click.option(
    "--mapping",
    default="proact",
    show_default=True,
    help="The file's mapping: proact, handbook, or a YAML file's path.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(file: Path, mapping: str, as_json: bool) -> int:
    """Read all of FILE, which may be a folder, through a mapping: rows, ranges, what is missing, labels, and what would be refused and why.

    Sends and writes nothing. The exit code is 1 if it cannot be trained on or replayed as it is.
    """
    from services.offline.datasets.labels import DatasetError
    from services.offline.datasets.mapping import load_mapping
    from services.offline.datasets.report import report_on

    try:
        found = report_on(file, load_mapping(mapping), time.time_ns() // 1_000_000, _RowsRead())
    except DatasetError as error:
        raise UserError(str(error)) from None
    if as_json:
        click.echo(json.dumps(found.as_json()))
    else:
        _print(found)
    return int(not found.usable)


class _RowsRead:
    """Says how many rows were read, at most once a second."""

    def __init__(self) -> None:
        self._next_s = time.monotonic() + 1.0

    def __call__(self, rows: int) -> None:
        if time.monotonic() >= self._next_s:
            progress(f"{counted(rows, 'row')} read")
            self._next_s = time.monotonic() + 1.0


def _print(found: FileReport) -> None:
    said = found.as_json()
    click.echo(f"{counted(found.rows, 'row')} in {counted(found.files, 'file')}, {found.days:.1f} days")
    click.echo(f"{'field':<24}{'missing':>9}{'wrong':>9}  from to")
    for name, one in said["fields"].items():
        extent = " .. ".join(map(str, one["range"])) if "range" in one else ""
        click.echo(f"{name:<24}{one['missing']:>9.2%}{one['wrong']:>9,}  {extent}")
    for name, cost in found.left_out.items():
        click.echo(f"{name:<24} left out: {cost}")
    if found.labels:
        click.echo("labels: " + ", ".join(f"{count:,} {name}" for name, count in found.labels.items()))
    for reason, count in found.refused.items():
        click.echo(f"would be refused, {reason}: {count:,}")
    for line in said["examples"]:
        click.echo(f"  {line}")
    click.echo("it can be trained on and replayed" if found.usable else "it cannot be used as it is")
