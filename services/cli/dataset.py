"""``proact dataset``: training sets from the lake."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from services.cli.lake import open_lake
from services.cli.options import UserError, example, progress, with_settings
from services.runtime.settings import Settings

if TYPE_CHECKING:
    from services.offline.datasets.served import Served, TrainingPeriod
    from services.offline.workers import TaskRunner

WHOLE: Final = "transactions.parquet"


class Day(click.ParamType[date]):
    """A day such as 2026-11-28."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """See click."""
        try:
            return value if isinstance(value, date) else date.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no day: say it like 2026-11-28.", param, ctx)


class Days(click.ParamType[int]):
    """A number of days, such as 7d."""

    name = "days"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See click."""
        found = re.fullmatch(r"(\d{1,4})d?", str(value))
        if found is None:
            self.fail(f"{value!r} is no number of days: say it like 7d.", param, ctx)
        return int(found[1])


SINCE = click.option(
    "--from", "since", default=None, type=Day(), help="The first day of transactions; all if left out."
)
UNTIL = click.option("--until", default=None, type=Day(), help="The day before which everything was known, 00:00 UTC.")
DELAY = click.option(
    "--label-delay",
    default="7d",
    show_default=True,
    type=Days(),
    help="Transactions of so many days before it are left out.",
)


@click.group(epilog=example("proact dataset build --until 2026-03-01"))
def dataset() -> None:
    """Training sets: what serving saw, joined with what was known of it by a day."""


REPLAYED = click.option(
    "--replayed",
    is_flag=True,
    help="The lake holds history that was replayed: when it was decided says nothing of what was known.",
)


SCHEDULER = click.option(
    "--scheduler",
    default=None,
    metavar="ADDRESS",
    help="Work in parts on the Dask cluster of this scheduler, such as tcp://10.0.0.7:8786; its workers see the same lake and folders.",
)


def period_of(since: date | None, until: date | None, label_delay: int, **more: bool) -> TrainingPeriod:
    """Return which decisions are meant. Raises UserError."""
    from services.offline.datasets.served import TrainingPeriod, TrainingSetError

    if until is None:
        raise UserError("say --until DATE: the day before which everything must have been known")
    try:
        return TrainingPeriod(until, label_delay, since, **more)
    except TrainingSetError as error:
        raise UserError(str(error)) from None


def read(settings: Settings, period: TrainingPeriod, *, recomputed: bool = False) -> Served:
    """Return a training set of the lake, its description saying whether the log makes the same. Raises UserError."""
    from dataclasses import replace

    from services.lake.table import LakeError
    from services.offline.code_revision import code_revision
    from services.offline.datasets.recomputed import recompute
    from services.offline.datasets.served import TrainingSetError, read_served

    lake = open_lake(settings)
    progress(f"reading decisions until {period.until} and what was known of them")
    try:
        served = read_served(lake, period, code_revision())
        if not recomputed:
            return served
        progress("folding the log again")
        made = recompute(lake, served, period)
    except (TrainingSetError, LakeError) as error:
        raise UserError(str(error)) from None
    said = {
        "recomputed": {
            "compared": made.compared, "different": made.different, "rows_too_early": made.too_early, "rows_made": made.made,
        }
    }  # fmt: skip
    return replace(served, vectors=made.vectors, description=served.description | said)


@contextmanager
def in_parts(
    settings: Settings, wanted: TrainingPeriod, folder: Path, scheduler: str | None
) -> Iterator[tuple[dict[str, Any], TaskRunner]]:
    """Write a training set in parts into a folder; give its description, and what ran the tasks. Raises UserError, from inside, too."""
    from services.lake.table import LakeError
    from services.offline.code_revision import code_revision
    from services.offline.datasets.parted import build_parted
    from services.offline.datasets.served import TrainingSetError
    from services.offline.workers import ClusterError, InThisProcess, connected

    lake, here = open_lake(settings), InThisProcess(progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with nullcontext(here) if scheduler is None else connected(scheduler, folder.resolve(), progress) as runner:
            yield build_parted(lake, wanted, folder, runner, code_revision()), runner
    except (TrainingSetError, LakeError, ClusterError) as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}") from None


@dataset.command(epilog=example("proact dataset build --until 2026-03-01 --label-delay 7d --output datasets/march"))
@with_settings("lake_url")
@SINCE
@UNTIL
@DELAY
@REPLAYED
@click.option(
    "--recompute",
    is_flag=True,
    help="Fold the log again, by the kernels that serve: compare with what was served, bit by bit, and make the vectors of other feature sets anew.",
)
@click.option(
    "--output",
    default=None,
    type=click.Path(path_type=Path),
    help="A folder; datasets/UNTIL by default. What was there is written over.",
)
@click.option(
    "--in-parts",
    is_flag=True,
    help="Write transactions/part-NNNNN.parquet: with memory for a part, however long the history is.",
)
@SCHEDULER
def build(settings: Settings, recompute: bool, output: Path | None, **more: Any) -> int:
    """Write decisions with their vectors and the truth to transactions.parquet, and what they are to dataset.json.

    Labels that became known later than --until are not in it, nor are transactions that had no time to mature, repeats, and decisions below the
    champion; how many of each is said. The exit code is 1 if what was recomputed differs from what was served.
    """
    scheduler, parts = more.pop("scheduler"), more.pop("in_parts")
    wanted = period_of(**more, all_feature_sets=recompute)
    folder = output or Path("datasets") / wanted.until.isoformat()
    if parts or scheduler:
        with in_parts(settings, wanted, folder, scheduler) as (description, _):
            _write_description(folder, description)
        (folder / WHOLE).unlink(missing_ok=True)
    else:
        description = _write_whole(settings, wanted, folder)
    progress(f"wrote {folder}")
    click.echo(json.dumps(description))
    return int(description.get("recomputed", {}).get("different", 0) > 0)


def _write_whole(settings: Settings, wanted: TrainingPeriod, folder: Path) -> dict[str, Any]:
    """Make a training set in memory, and write it as one file; return what it is. Raises UserError."""
    from services.offline.datasets.parted import PARTS
    from services.offline.datasets.served import write_served

    served = read(settings, wanted, recomputed=wanted.all_feature_sets)
    try:
        write_served(served, folder / WHOLE)
        _write_description(folder, served.description)
        shutil.rmtree(folder / PARTS, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}") from None
    return served.description


def _write_description(folder: Path, description: dict[str, Any]) -> None:
    (folder / "dataset.json").write_text(json.dumps(description, indent=1) + "\n")
