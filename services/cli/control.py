"""``proact control``: what the control group says of those who stop transactions."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import click

from services.cli.dataset import DELAY, REPLAYED, SINCE, UNTIL, period_of
from services.cli.lake import open_lake
from services.cli.options import UserError, example, with_settings
from services.runtime.settings import Settings


@click.command(epilog=example("proact control --from 2026-02-01 --until 2026-03-08"))
@with_settings("lake_url")
@SINCE
@UNTIL
@DELAY
@REPLAYED
@click.option("--seed", default=7, show_default=True, type=click.IntRange(0), help="Of the cards that are drawn.")
def control(settings: Settings, since: date | None, until: date | None, label_delay: int, **more: Any) -> None:
    """Estimate precision and recall of model and anomaly score from the control group, without the bias that blocking makes for itself.

    Of what they would stop, and what could have been let through (`control_share`, `control_amount_max`). "naive" is what the labels of the
    stopped ones alone would say. The last line is JSON.
    """
    from services.lake.table import LakeError
    from services.offline.backtests.control import estimate, read_control
    from services.offline.datasets.served import TrainingSetError

    period = period_of(since, until, label_delay, replayed=more["replayed"])
    try:
        found = estimate(read_control(open_lake(settings), period), more["seed"])
    except (TrainingSetError, LakeError) as error:
        raise UserError(str(error)) from None
    for name in ("precision", "recall"):
        one = found[name]
        low, high = one["interval"]
        click.echo(
            f"{name:10} {one['value']}, between {low} and {high} ({found['level']:.0%}); by labels alone {one['naive']}"
        )
    click.echo(json.dumps(found))
