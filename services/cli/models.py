"""``proact models``: which models there are, and which of them decide, try, or score in the shadow."""

from __future__ import annotations

import click

from services.cli.options import UserError, example, progress
from services.cli.releases import approve, promote, release, rollback, status


@click.group(
    epilog=example("proact models release fraud/v5 --stage shadow --reason 'eight more weeks'\n  proact models status")
)
def models() -> None:
    """See which models there are; try them beside the live one; put them live and take them back, while transactions flow."""


for command in (release, approve, promote, rollback, status):
    models.add_command(command)


@models.command("list", epilog=example("proact models list"))
def list_models() -> None:
    """Print the models whose files are here, and which one decides where none is released (see `proact models status`)."""
    from services.inference import ModelError
    from services.inference.artifact import load_manifest
    from services.inference.released import live_model, models_folder, releases

    try:
        root, found = models_folder(), releases()
    except ModelError as error:
        raise UserError(str(error)) from None
    try:
        live, trouble = live_model(), None
    except ModelError as error:
        live, trouble = None, str(error)
    for name in found:
        mark = "live" if live == root / name else ""
        try:
            said = f"trained {load_manifest(root / name).trained_at}"
        except ModelError as error:
            said = f"cannot be used: {error}"
        click.echo(f"{name:20} {mark:5} {said}")
    if trouble is not None:
        raise UserError(trouble)


@models.command(epilog=example("proact models show fraud/v4"))
@click.argument("model")
def show(model: str) -> None:
    """Print what MODEL, such as fraud/v4, is made of: JSON, without its trees."""
    import json
    from dataclasses import asdict

    from services.inference import ModelError
    from services.inference.artifact import load_manifest
    from services.inference.released import folder_of

    try:
        click.echo(json.dumps(asdict(load_manifest(folder_of(model))), indent=2))
    except ModelError as error:
        raise UserError(str(error)) from None


@models.command(epilog=example("proact models verify fraud/v4"))
@click.argument("model")
def verify(model: str) -> None:
    """Load MODEL, such as fraud/v4, as a worker does: its files, its features, its golden rows bit for bit."""
    from services.decision.release_loading import files_of
    from services.inference import ModelError
    from services.inference.released import folder_of

    try:
        for name, sha256 in sorted(files_of(folder_of(model)).items()):
            click.echo(f"{sha256}  {name}")
    except ModelError as error:
        raise UserError(str(error)) from None
    progress(f"{model} can be used")


@models.command(epilog=example("proact models live fraud/v4"))
@click.argument("model")
def live(model: str) -> None:
    """Name MODEL, such as fraud/v4, as the one that decides where no release is live, for whatever starts from now on.

    Workers that run take a model from `proact models release`.
    """
    from services.inference import ModelError
    from services.inference.artifact import load_model
    from services.inference.released import folder_of, put_live

    try:
        load_model(folder_of(model))
        put_live(model)
    except ModelError as error:
        raise UserError(str(error)) from None
    progress("scorers and reassessors that run go on with theirs: `proact models release` changes them while they run")
    click.echo(f"{model} is live")
