"""``proact drift``: how far features and scores are from what they were in training."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click

from services.cli.dataset import SINCE, UNTIL, Day
from services.cli.lake import open_lake
from services.cli.options import UserError, example, progress, with_settings
from services.runtime.settings import Settings

if TYPE_CHECKING:
    from services.lake.queries import Lake
    from services.offline.watching.distribution import Binned

_SHOWN = 10


@click.command(epilog=example("proact drift --from 2026-03-01 --until 2026-03-08"))
@with_settings("lake_url", "model_path", "models_path")
@SINCE
@UNTIL
@click.option("--model", default=None, help="NAME/vN: compare with its training; else the model of the settings.")
@click.option("--baseline-from", default=None, type=Day(), help="Compare with these days of the lake instead.")
@click.option("--baseline-until", default=None, type=Day(), help="Their end, not of them any more.")
@click.option(
    "--output",
    default=Path("drift"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="A folder for the page.",
)
def drift(
    settings: Settings, since: date | None, until: date | None, model: str | None, output: Path, **other: date | None
) -> None:
    """Compare the features and scores of some days with those that the model was trained on, or with other days.

    Population stability index (above 0.25: look), the largest distance of the distributions, and what is missing, by feature; a page with plots.
    The last line is JSON.
    """
    from services.lake.table import LakeError
    from services.offline.watching.drift import DriftError, Window, as_json, counted, drifts
    from services.offline.watching.page import drift_page

    if since is None or until is None:
        raise UserError("say which days: --from 2026-03-01 --until 2026-03-08")
    lake = open_lake(settings)
    try:
        before, what = _before(settings, lake, model, other["baseline_from"], other["baseline_until"])
        now = counted(lake, Window.of_days(since, until), before, progress)
        found = drifts(before, now)
    except (DriftError, LakeError) as error:
        raise UserError(str(error)) from None
    rows = max(one.rows for one in now.values())
    for one in found[:_SHOWN]:
        said = f"{one.name:44} index {one.stability_index:7.3f}  distance {one.distance:6.3f}"
        click.echo(f"{said}  missing {one.missing_before:6.1%} -> {one.missing:6.1%}")
    facts = [f"{rows:,.0f} decisions from {since} until {until}, compared with {what}"]
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "drift.html").write_text(drift_page(f"Drift from {since} until {until}", facts, found, (before, now)))
    except OSError as error:
        raise UserError(f"{output}: {error.strerror or error}") from None
    progress(f"a page with plots: {output / 'drift.html'}")
    click.echo(json.dumps(as_json(found, rows) | {"compared_with": what}))


def _before(
    settings: Settings, lake: Lake, model: str | None, first: date | None, until: date | None
) -> tuple[dict[str, Binned], str]:
    """Return what is compared with, and its name. Raises UserError, DriftError, LakeError."""
    from services.decision.model_loader import models_root, released_folder
    from services.inference import ModelError
    from services.inference.artifact import load_manifest
    from services.inference.released import folder_of
    from services.offline.watching.distribution import read_distribution
    from services.offline.watching.drift import Window, baseline

    if (first is None) != (until is None):
        raise UserError("say both, --baseline-from and --baseline-until")
    if first is not None and until is not None:
        return baseline(lake, Window.of_days(first, until)), f"{first} until {until}"
    try:
        manifest = load_manifest(
            released_folder(settings) if model is None else folder_of(model, models_root(settings))
        )
        found = read_distribution(manifest.training.get("distribution"))
    except (ModelError, ValueError) as error:
        raise UserError(str(error)) from None
    name = f"{manifest.name}/{manifest.version}"
    if not found:
        raise UserError(
            f"the manifest of {name} holds no distribution: it was trained before there were any; say --baseline-from and "
            "--baseline-until, or train anew"
        )
    return found, f"the training of {name}"
