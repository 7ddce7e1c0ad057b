"""The live view on a terminal, or a line now and then where there is none."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.live import Live

from services.observer.tally import Tally
from services.observer.view import Progress, one_line, render

REDRAW_S = 0.25
LINE_EVERY_S = 5.0


class LiveView:
    """Shows a tally on standard error: redrawn in place on a terminal, else as a line every ``LINE_EVERY_S``."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=False) if sys.stderr.isatty() else None
        self._shown_s = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, tally: Tally, progress: Progress, *, now: bool = False) -> None:
        """Show the tally if it is time to."""
        at_s = time.monotonic()
        if not now and at_s - self._shown_s < (LINE_EVERY_S if self._live is None else REDRAW_S):
            return
        self._shown_s = at_s
        if self._live is None:
            click.echo(one_line(tally, progress, at_s), err=True)
        else:
            self._live.update(render(tally, progress, at_s), refresh=True)
