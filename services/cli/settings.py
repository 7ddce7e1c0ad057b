"""``proact settings``."""

from __future__ import annotations

import click

from services.cli.options import UserError, example
from services.runtime.client_options import KAFKA, REDIS
from services.runtime.settings import SETTINGS, ConfigError, resolve_settings, settings_table


@click.command(epilog=example("PROACT_WORKERS=2 proact settings"))
@click.option("--markdown", is_flag=True, help="Print the table of all settings as docs/settings.md has it.")
def settings(markdown: bool) -> None:
    """Show every setting, its value here, and what it is for."""
    if markdown:
        click.echo(settings_table())
        return
    try:
        resolved = resolve_settings({})
    except ConfigError as error:
        raise UserError(str(error)) from None
    for name, setting in SETTINGS.items():
        shown = str(getattr(resolved, name))
        click.echo(f"{setting.variable:<32} {shown:<28} {setting.meaning}")
    for family, given in ((KAFKA, resolved.kafka_properties), (REDIS, resolved.redis_options)):
        for name in given:
            shown = given.shown(name) if given[name] else "not set"
            click.echo(f"{family.variable_of(name):<32} {shown:<28} {name} of {family.table.capitalize()}'s clients")
