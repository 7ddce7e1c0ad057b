"""``proact dataset``: training sets from the lake."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from services.cli.lake import open_lake
from services.cli.options import UserError, example, progress, with_settings
from services.runtime.settings import Settings

if TYPE_CHECKING:
    from services.offline.datasets.served import Served, TrainingPeriod


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
def build(settings: Settings, recompute: bool, output: Path | None, **period: Any) -> int:
    """Write decisions with their vectors and the truth to transactions.parquet, and what they are to dataset.json.

    Labels that became known later than --until are not in it, nor are transactions that had no time to mature, repeats, and decisions below the
    champion; how many of each is said. The exit code is 1 if what was recomputed differs from what was served.
    """
    from services.offline.datasets.served import write_served

    wanted = period_of(**period, all_feature_sets=recompute)
    served = read(settings, wanted, recomputed=recompute)
    folder = output or Path("datasets") / wanted.until.isoformat()
    try:
        write_served(served, folder / "transactions.parquet")
        (folder / "dataset.json").write_text(json.dumps(served.description, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}") from None
    progress(f"wrote {folder}")
    click.echo(json.dumps(served.description))
    return int(served.description.get("recomputed", {}).get("different", 0) > 0)
