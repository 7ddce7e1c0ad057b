"""``proact grid rebuild`` and ``verify``: fold the log again, to replace what Redis holds or to compare with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from services.commands.grid_stores import CONNECTION, PARTITION, SERVICE, Stores, open_stores
from services.commands.options import UserError, example, progress, with_settings
from services.runtime.config import Settings
from services.runtime.halting import REBUILDING, REBUILDING_SHORT

if TYPE_CHECKING:
    from services.grid import PartitionStatus
    from services.runtime.halting import Halt
    from services.streams import LogState, Records


def _fold(
    stores: Stores,
    partition: int,
    extent: tuple[int, int],
    killers: frozenset[int],
    write: Callable[[int, dict[bytes, bytes]], None],
) -> dict[bytes, bytes]:
    """Fold a partition's log, telling progress."""
    from services.runtime.folding import fold_log
    from services.streams.ranges import read_range

    begin, end = extent

    def batches() -> Iterator[Records]:
        told = begin
        for records in read_range(stores.settings.kafka_bootstrap_servers, stores.topic, partition, extent):
            yield records
            at = int(records.offset[-1]) + 1
            if at - told >= 50_000:
                told = at
                progress(f"partition {partition}: {at - begin:,} of {end - begin:,} records")

    return fold_log(stores.processor, batches(), killers, write)


def _stays(stores: Stores, partition: int, halt: Halt) -> UserError:
    """Return why a partition is not rebuilt, with the command that helps."""
    return UserError(f"partition {partition} stays as it is. {halt}; {halt.remedy(stores.topic, partition)}")


def _require_offset(stores: Stores, partition: int, state: LogState, held: PartitionStatus) -> None:
    """Raise UserError when what is committed cannot be the end of the fold: it is not known, or the log does not reach from there to there."""
    from services.runtime.halting import halt_of

    recreated = held.identity is not None and held.identity.topic_id != state.topic_id
    # What the grid holds is thrown away; of a log that was made anew it says nothing.
    halt = halt_of(state, held.applied if state.committed is None and not recreated else None)
    if halt is not None:
        raise _stays(stores, partition, halt)


def _missing_history(stores: Stores, partition: int, state: LogState) -> Halt | None:
    """Say whether the log is too short to fold the profiles from it alone."""
    import time

    from services.runtime.halting import history_missing
    from services.streams.kafka import KafkaSource

    if not stores.processor.history_ms:
        return None
    source = KafkaSource(stores.settings.kafka_bootstrap_servers, "proact-reader", stores.topic)
    try:
        return history_missing(source, partition, state, stores.processor.history_ms, time.time_ns() // 1_000_000)
    finally:
        source.close()


@click.command(epilog=example("proact grid rebuild --partition 3"))
@with_settings(*CONNECTION, "model_path")
@SERVICE
@PARTITION
@click.option(
    "--accept-loss",
    is_flag=True,
    help="Where the log does not reach back far enough: fold what it holds; what came before is lost to the profiles.",
)
def rebuild(settings: Settings, service: str, partition: int | None, accept_loss: bool) -> None:
    """Throw a partition's profiles away and fold them anew from the log, while the workers leave it alone.

    Only where the log is whole or reaches back past the horizon of the profiles, or the loss is accepted; else nothing is touched. It may be
    said again if it was interrupted.
    """
    with open_stores(settings, service) as stores:
        seen = stores.look(partition)
        lost: dict[int, Halt] = {}
        for p, (state, held) in seen.items():
            _require_offset(stores, p, state, held)
            halt = _missing_history(stores, p, state)
            if halt is not None and not accept_loss:
                raise _stays(stores, p, halt)
            if halt is not None:
                lost[p] = halt
        for p in seen:
            if p in lost:
                click.echo(f"partition {p}: what came before is lost to its profiles: {lost[p].detail}")
            _rebuild(stores, p, short=p in lost)


def _rebuild(stores: Stores, partition: int, *, short: bool) -> None:
    """Rebuild one partition, from a log that is whole or ``short``."""
    from services.grid import LogIdentity
    from services.runtime.folding import GridWriter

    topic, grid = stores.topic, stores.grid
    [held] = grid.status(topic, [partition])
    grid.halt(topic, partition, REBUILDING_SHORT if short else REBUILDING, drop=True)
    # Asked again: nobody decides on it any more, but a batch was perhaps under way.
    state = stores.log_states([partition], stable=True)[partition]
    claim = grid.claim(
        topic,
        partition,
        LogIdentity(state.topic_id, state.partitions, stores.processor.layout),
        even_if_halted=True,
    )
    for offset in held.killers:
        grid.note_killer(topic, claim, offset)
    begin, writer = state.log_start, GridWriter(grid, topic, claim)
    end = begin if state.committed is None else state.committed
    profiles = _fold(stores, partition, (begin, end), held.killers, writer)
    if state.committed is not None:
        writer(end, {})  # behind the last record, too, and where there was none
    grid.release(topic, [claim])
    grid.resume(topic, partition, state.log_end if short else 0)
    click.echo(f"partition {partition}: {len(profiles):,} profiles folded from [{begin:,}, {end:,})")


@click.command(epilog=example("proact grid verify"))
@with_settings(*CONNECTION, "model_path")
@SERVICE
@PARTITION
def verify(settings: Settings, service: str, partition: int | None) -> int:
    """Fold every partition's log again and compare with what Redis holds, byte by byte; the exit code is 1 if they differ.

    Profiles that change meanwhile are asked for again: a partition is compared at an offset at which it stood still.
    """
    from services.runtime.folding import difference

    wrong = 0
    with open_stores(settings, service) as stores:
        for p, state in stores.log_states(stores.numbers(partition)).items():
            applied, held, killers = _stand_still(stores, p)
            if applied is None:
                click.echo(f"partition {p}: empty")
                continue
            folded = _fold(stores, p, (state.log_start, applied), killers, lambda *_: None)
            found = difference(folded, held)
            wrong += not found.holds
            click.echo(
                f"partition {p}: {found.compared:,} profiles at offset {applied:,}: "
                + (
                    "equal"
                    if found.holds
                    else f"{found.different} differ, {found.missing} missing, {found.surplus} too many"
                )
                + (", from a log that is not whole" if state.log_start else "")
            )
    return int(wrong > 0)


def _stand_still(stores: Stores, partition: int) -> tuple[int | None, dict[bytes, bytes], frozenset[int]]:
    for _ in range(20):
        [before] = stores.grid.status(stores.topic, [partition])
        held = stores.grid.dump(stores.topic, partition)
        [after] = stores.grid.status(stores.topic, [partition])
        if before.applied == after.applied:
            return after.applied, held, after.killers
    raise UserError(f"partition {partition} never stands still: verify it when there is less traffic")
