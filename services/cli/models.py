"""``proact models``: which models there are, and which one is live."""

from __future__ import annotations

import click

from services.cli.options import UserError, example, progress


@click.group(epilog=example("proact models list\n  proact models live fraud/v4"))
def models() -> None:
    """See which models there are, and name the live one."""


@models.command("list", epilog=example("proact models list"))
def list_models() -> None:
    """Print the models that there are, and which one is live."""
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


@models.command(epilog=example("proact models live fraud/v4"))
@click.argument("release")
def live(release: str) -> None:
    """Name RELEASE, such as fraud/v4, as the live model, if it can be used: whatever starts from now on scores with it."""
    from services.inference import ModelError
    from services.inference.artifact import load_model
    from services.inference.released import folder_of, put_live

    try:
        load_model(folder_of(release))
        put_live(release)
    except ModelError as error:
        raise UserError(str(error)) from None
    progress("scorers and reassessors that run go on with theirs until they are started again")
    click.echo(f"{release} is live")
