"""``proact backtest``: a policy on what was decided, in money."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import click

from services.cli.dataset import DELAY, REPLAYED, SINCE, UNTIL, period_of
from services.cli.lake import open_lake
from services.cli.options import UserError, example, progress, with_settings
from services.runtime.settings import Settings


@click.command(epilog=example("proact backtest policy.yaml --from 2026-02-01 --until 2026-03-08"))
@click.argument("policy", type=click.Path(path_type=Path))
@with_settings("lake_url")
@SINCE
@UNTIL
@DELAY
@REPLAYED
@click.option(
    "--seed",
    default=7,
    show_default=True,
    type=click.IntRange(0),
    help="Of the cards that are drawn for the intervals.",
)
@click.option(
    "--output",
    default=None,
    type=click.Path(path_type=Path),
    help="A folder for the page and its JSON; backtests/POLICY by default.",
)
def backtest(
    settings: Settings, policy: Path, since: date | None, until: date | None, label_delay: int, **more: Any
) -> None:
    """Try POLICY, a file that names a model, thresholds and rules, on what was decided and became of it, in money.

    By the code that decides live, on the vectors that serving saw: fraud stopped, good sales lost, reviews and their minutes, net value, each
    with an interval and beside what was really done; by class and scenario; what would be decided otherwise, and why. Writes a page with plots;
    the last line is JSON.

    \b
      model: fraud/v5                  NAME/vN, or a folder beside the file; the live one if left out
      thresholds: {challenge: 0.1, review: 0.4, block: 0.8}     the model's own if left out
      rules: rules.yaml                none if left out
      review_minutes: 4
    """  # noqa: D301 - the mark is click's: it keeps the lines as they are
    from services.lake.table import LakeError
    from services.offline.backtests.money import run_backtest
    from services.offline.backtests.page import backtest_page
    from services.offline.backtests.policy import PolicyError, read_policy
    from services.offline.datasets.served import TrainingSetError

    period = period_of(since, until, label_delay, replayed=more["replayed"])
    folder = more["output"] or Path("backtests") / policy.stem
    try:
        found = run_backtest(open_lake(settings), read_policy(policy), period, more["seed"], progress)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "backtest.html").write_text(backtest_page(found))
        (folder / "backtest.json").write_text(json.dumps(found, indent=1) + "\n")
    except (PolicyError, TrainingSetError, LakeError) as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}") from None
    progress(f"a page with plots: {folder / 'backtest.html'}")
    click.echo(json.dumps({name: value for name, value in found.items() if name != "flips"}))
