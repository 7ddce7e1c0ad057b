"""What the commands share: settings as flags, and errors as one line."""

from __future__ import annotations

import functools
import getpass
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from services.runtime.settings import SETTINGS, ConfigError, Settings, resolve_settings
from services.signals import end_in_order


class UserError(click.ClickException):
    """A user's mistake or an outage, said in one line; exit code 1."""

    def show(self, file: Any = None) -> None:  # noqa: ARG002 - click's signature
        """Print the line."""
        click.echo(f"proact: {self.message}", err=True)


def with_settings(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command flags for these settings, and the resolved :class:`Settings` as its first argument."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(**arguments: Any) -> Any:
            flags = {name: arguments.pop(name) for name in names}
            try:
                settings: Settings = resolve_settings(flags)
            except ConfigError as error:
                raise UserError(str(error)) from None
            return command(settings, **arguments)

        for name in reversed(names):
            setting = SETTINGS[name]
            shown = f"{setting.meaning}  [{setting.variable}; default {setting.default!r}]"
            run = click.option(setting.flag, name, default=None, metavar=setting.metavar, help=shown)(run)
        return run

    return decorate


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and a closed terminal end what is inside, with its cleaning up; a second signal ends the process at once.

    What it started ends with it in either case (:mod:`services.subprocesses`).
    """
    terminals = [fd for fd in (1, 2) if os.isatty(fd)]

    def interrupt() -> None:
        for fd in terminals:
            if not os.isatty(fd):  # it is gone, and whoever wrote to it would fail in the middle of the cleaning up
                os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
        raise KeyboardInterrupt

    end_in_order(interrupt)
    try:
        yield
    except KeyboardInterrupt:
        click.echo("proact: interrupted; what this command started is stopped", err=True)
        raise SystemExit(130) from None


def example(text: str) -> str:
    """Return the epilog of a command: its example, kept on lines of its own."""
    return f"\b\nExample:\n  {text}"


def person(author: str | None) -> str:
    """Return who does something: the author that was named, or the operating system's user. Raises UserError: nobody knows."""
    try:
        return author or getpass.getuser()
    except (KeyError, OSError):  # as in a container, whose user has no name
        raise UserError("nobody knows who you are: say --author NAME") from None


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, such as ``1 day`` or ``1,200 records``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def progress(message: str) -> None:
    """Tell what is being done; standard error, so that standard output stays for results."""
    click.echo(f"· {message}", err=True)
