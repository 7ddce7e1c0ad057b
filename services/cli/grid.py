"""``proact grid``: look at what Redis holds of each partition, put it right, and tell the workers to go on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from services.cli.grid_folds import rebuild, verify
from services.cli.grid_stores import CONNECTION, PARTITION, SERVICE, Stores, halt_seen, open_stores
from services.cli.options import counted, example, with_settings
from services.runtime.settings import Settings
from services.worker.halting import GAP_ACCEPTED

if TYPE_CHECKING:
    from services.grid import PartitionStatus
    from services.streams import LogState

SHOWN_MAX: Final = 20
"""So many offsets are shown of a partition; `--json` has them all."""


def _row(stores: Stores, partition: int, state: LogState, held: PartitionStatus) -> dict[str, Any]:
    halt, waiting = halt_seen(state, held), stores.waiting(partition, state, held)
    behind = (state.committed or state.log_start) - (held.applied or 0)
    states = {"halted": halt, "empty": held.applied is None, "behind": behind, "waiting": waiting, "current": True}
    return {
        "partition": partition,
        "state": next(name for name, holds in states.items() if holds),
        "waiting": waiting,
        "applied": held.applied,
        "committed": state.committed,
        "log_start": state.log_start,
        "log_end": state.log_end,
        "epoch": held.epoch,
        "profiles": held.profiles,
        "poison": sorted(held.poison),
        "errors": sorted(held.errors),
        "reason": None if halt is None else str(halt),
        "remedy": None if halt is None else halt.remedy(stores.log, partition),
    }


def _some(offsets: list[int]) -> str:
    """Return the newest of some offsets, for people."""
    shown = ", ".join(map(str, offsets[-SHOWN_MAX:]))
    return shown if len(offsets) <= SHOWN_MAX else f"{len(offsets):,}, the last ones {shown}"


@click.group(epilog=example("proact grid status"))
def grid() -> None:
    """Look at the grid's partitions, put them right, and tell the workers to go on."""


@grid.command(epilog=example("proact grid status --json"))
@with_settings(*CONNECTION)
@SERVICE
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def status(settings: Settings, service: str, as_json: bool) -> int:
    """Show how far each partition is, how many records wait, who is there, and why it is halted if it is; the exit code is 1 if one is.

    A partition is "halted", or "empty" (the grid holds nothing of it), or "behind" (the grid lacks what is committed), or "waiting" (records are
    not committed), or "current".
    """
    with open_stores(settings, service) as stores:
        rows = [_row(stores, p, state, held) for p, (state, held) in stores.look(None).items()]
        members = stores.admin.members(stores.group_id)
    if as_json:
        for row in rows:
            click.echo(json.dumps(row | {"members": members}))
    else:
        names = ("partition", "state", "waiting", "applied", "committed", "log_start", "log_end", "epoch", "profiles")
        click.echo("".join(f"{name:>11}" for name in names))
        for row in rows:
            click.echo("".join(f"{'-' if row[name] is None else row[name]!s:>11}" for name in names))
        for row in rows:
            if row["reason"]:
                click.echo(f"partition {row['partition']} is halted: {row['reason']}\n  remedy: {row['remedy']}")
            if row["poison"]:
                click.echo(f"partition {row['partition']}: records that kill who decodes them: {row['poison']}")
            if row["errors"]:
                click.echo(f"partition {row['partition']}: records that raised an exception: {_some(row['errors'])}")
        click.echo(_who_works(stores, sum(row["waiting"] for row in rows), members))
    return int(any(row["reason"] for row in rows))


def _who_works(stores: Stores, waiting: int, members: int) -> str:
    """Say whether somebody is there for what waits."""
    if members:
        wait = f"{counted(waiting, 'record')} {'waits' if waiting == 1 else 'wait'}"
        return f"{wait} for {members} running of group {stores.group_id}"
    if not waiting:
        return f"no record waits; nobody of group {stores.group_id} is running"
    return (
        f"{counted(waiting, 'record')} {'waits' if waiting == 1 else 'wait'}, and nobody of group {stores.group_id} is running: "
        f"start it with `proact {stores.command}`"
    )


@grid.command(epilog=example("proact grid resume --partition 3"))
@with_settings(*CONNECTION)
@SERVICE
@PARTITION
@click.option(
    "--accept-applied",
    is_flag=True,
    help="Where the group's committed offset is gone: take the grid's applied offset for it. Only when the group was idle.",
)
@click.option(
    "--accept-gap", is_flag=True,
    help="Where the log does not hold what is committed any more: go on with what it holds; profiles begin anew.",
)  # fmt: skip
def resume(settings: Settings, service: str, partition: int | None, accept_applied: bool, accept_gap: bool) -> None:
    """Take the mark of halted partitions away, an open breaker's too, and tell the workers to look at them again.

    What lies in the partition now is accepted as it is: bad records of it become dead letters and open no breaker again, and a
    lost grid may be folded from a log that is too short. The two flags set committed offsets, for which no scorer may run.
    """
    with open_stores(settings, service) as stores:
        # Where offsets are set, what a dead scorer left open must be over.
        for p, (state, held) in stores.look(partition, stable=accept_applied or accept_gap).items():
            applied = held.applied
            if accept_applied and state.committed is None and applied is not None:
                _set_committed(stores, p, applied)
            if accept_gap and state.committed is not None:
                _accept_gap(stores, p, state, applied)
            stores.grid.resume(stores.log, p, state.log_end)
        for p, (state, held) in stores.look(partition).items():
            halt = halt_seen(state, held)
            said = "resumed" if halt is None else f"still halted, {halt}\n  remedy: {halt.remedy(stores.log, p)}"
            click.echo(f"partition {p}: {said}")


def _set_committed(stores: Stores, partition: int, offset: int) -> None:
    stores.admin.commit(stores.topic, stores.group_id, {partition: offset})
    click.echo(f"partition {partition}: committed offset set to {offset:,}")


def _accept_gap(stores: Stores, partition: int, state: LogState, applied: int | None) -> None:
    """Bring the committed offset to what the log holds, and drop profiles that are of another stretch of it."""
    assert state.committed is not None
    committed = min(max(state.committed, state.log_start), state.log_end)
    if committed != state.committed:
        _set_committed(stores, partition, committed)
    if applied is not None and not state.log_start <= applied <= committed:
        stores.grid.halt(stores.log, partition, GAP_ACCEPTED, drop=True)
        click.echo(f"partition {partition}: profiles at offset {applied:,} dropped")


grid.add_command(rebuild)
grid.add_command(verify)
