"""``python -m tests.chaos``: `make chaos` and `make chaos-full` run it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from services.cli.main import run_command
from services.cli.options import UserError, example, interruptible, progress, with_settings
from services.runtime.settings import TOPIC_SCALES, Settings

NAME = "python -m tests.chaos"


@click.command(epilog=example(f"{NAME} --seed 7\n  {NAME} --fault F-04 --fault F-13\n  {NAME} --full"))
@with_settings("data_folder", *TOPIC_SCALES, "session_timeout_ms")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Chooses order, victims and points.")
@click.option("--fault", "faults", multiple=True, help="Only this one; may be said again.")
@click.option("--full", is_flag=True, help="All faults: about half an hour.")
@click.option("--list", "listed", is_flag=True, help="Say what each fault is, and make none.")
def chaos(settings: Settings, seed: int, faults: tuple[str, ...], full: bool, listed: bool) -> int:
    """Break everything under load, on a Kafka and a Redis of its own, and let the checker judge.

    Three scorers behind proxies, load at 40 % of what they can do (5,000 a second at most), faults from a seed. The last line is one JSON object; its
    "verdict" is "ok" only if every fault came to pass, nothing is lost, nothing twice, every profile is the fold of the log, and
    partitions were taken over in time.
    """
    from services.checker.evidence import EvidenceError
    from services.runtime.children import ChildError
    from services.stack.folders import claimed
    from services.stack.processes import StackError
    from services.streams import StreamsError
    from tests.chaos.faults import FAULTS
    from tests.chaos.halting import HALTING
    from tests.chaos.run import ALL, QUICK, Attack

    if listed:
        titles = {name: one.title for name, one in FAULTS.items()} | {one.name: one.title for one in HALTING}
        for name in sorted(titles):
            click.echo(f"{name:10} {'  ' if name in QUICK else '* '}{titles[name]}")
        click.echo("* only with --full")
        return 0
    unknown = set(faults) - set(ALL)
    if unknown:
        raise UserError(f"there is no fault {min(unknown)}: {NAME} --list")
    try:
        folder = Path(settings.data_folder) / "chaos"
        with claimed(folder, "chaos"), interruptible():
            chosen = faults or (ALL if full else QUICK)
            report = Attack(settings, folder, progress, seed).run(chosen).as_json()
    except (ChildError, EvidenceError, StackError, StreamsError) as error:
        raise UserError(str(error)) from None
    click.echo(json.dumps(report))
    return int(report["verdict"] != "ok")


if __name__ == "__main__":
    sys.exit(run_command(chaos, NAME))
