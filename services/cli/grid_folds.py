"""``proact grid rebuild`` and ``verify``: fold the log again, to replace what Redis holds or to compare with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from services.cli.grid_stores import CONNECTION, PARTITION, SERVICE, Stores, open_stores
from services.cli.options import UserError, example, progress, with_settings
from services.runtime.settings import Settings
from services.worker.halting import REBUILDING, REBUILDING_SHORT

if TYPE_CHECKING:
    from services.grid import PartitionStatus
    from services.streams import LogState, Records
    from services.worker.excluded import Excluded
    from services.worker.folding import FoldedLog
    from services.worker.halting import Halt


def _fold(
    stores: Stores,
    partition: int,
    extent: tuple[tuple[int, int], int | None],
    excluded: Mapping[int, Excluded],
    write: Callable[[int, dict[bytes, bytes]], None],
) -> FoldedLog:
    """Fold a partition's log, without what must not be decoded, telling progress. Raises UserError.

    The extent is where it begins and ends, and before what time nothing is known.
    """
    from services.streams.ranges import read_range
    from services.worker.folding import FoldError, fold_log

    (begin, end), begins_ms = extent

    def batches() -> Iterator[Records]:
        last = begin
        for records in read_range(stores.settings.kafka, stores.topic, partition, (begin, end)):
            yield records
            at = int(records.offset[-1]) + 1
            if at - last >= 50_000:
                last = at
                progress(f"partition {partition}: {at - begin:,} of {end - begin:,} records")

    try:
        return fold_log(stores.processor, batches(), excluded, write, begins_ms)
    except FoldError as error:
        raise UserError(f"partition {partition}: {error}") from None


def _refused_before(stores: Stores, partition: int, extent: tuple[int, int]) -> dict[int, Excluded]:
    """Return which records the dead letters say were refused undecoded: a grid that was lost does not know it any more."""
    from services.worker.excluded import KafkaDeadLetters, recall

    letters = KafkaDeadLetters(stores.settings.kafka)
    return recall(letters, stores.topic, {partition: extent}).get(partition, {})


def _stays(stores: Stores, partition: int, halt: Halt) -> UserError:
    """Return why a partition is not rebuilt, with the command that helps."""
    return UserError(f"partition {partition} stays as it is. {halt}; {halt.remedy(stores.log, partition)}")


def _require_offset(stores: Stores, partition: int, state: LogState, held: PartitionStatus) -> None:
    """Raise UserError when what is committed cannot be the end of the fold: it is not known, or the log does not reach from there to there."""
    from services.worker.halting import halt_of

    recreated = held.identity is not None and held.identity.topic_id != state.topic_id
    # What the grid holds is thrown away; of a log that was made anew it says nothing.
    halt = halt_of(state, held.applied if state.committed is None and not recreated else None)
    if halt is not None:
        raise _stays(stores, partition, halt)


def _missing_history(stores: Stores, partition: int, state: LogState) -> tuple[Halt, int] | None:
    """Say whether the log is too short to fold the profiles from it alone, and before what time it says nothing."""
    import time

    from services.streams.kafka import KafkaSource
    from services.worker.halting import beginning_of, history_missing

    if not stores.processor.history_ms:
        return None
    source = KafkaSource(stores.settings.kafka, "proact-reader", stores.topic)
    now_ms = time.time_ns() // 1_000_000
    try:
        halt = history_missing(source, partition, state, stores.processor.history_ms, now_ms)
        return None if halt is None else (halt, beginning_of(source, partition, state, now_ms))
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
        begins_ms: dict[int, int] = {}
        for p, (state, held) in seen.items():
            _require_offset(stores, p, state, held)
            missing = _missing_history(stores, p, state)
            if missing is not None and not accept_loss:
                raise _stays(stores, p, missing[0])
            if missing is not None:
                begins_ms[p] = missing[1]
                lost = f"what came before {datetime.fromtimestamp(missing[1] / 1000, UTC):%Y-%m-%d %H:%M} UTC is lost to its profiles"
                click.echo(f"partition {p}: {lost}: {missing[0].detail}")
        for p in seen:
            _rebuild(stores, p, begins_ms.get(p))


def _rebuild(stores: Stores, partition: int, begins_ms: int | None) -> None:
    """Rebuild one partition, from a log that is whole, or says nothing before some time."""
    from services.grid import LogIdentity
    from services.worker.excluded import excluded_of
    from services.worker.folding import FoldWriter

    log, grid = stores.log, stores.grid
    [held] = grid.status(log, [partition])
    grid.halt(log, partition, REBUILDING if begins_ms is None else REBUILDING_SHORT, drop=True)
    # Asked again: nobody decides on it any more, but a batch was perhaps under way.
    state = stores.log_states([partition], stable=True)[partition]
    identity = LogIdentity(state.topic_id, state.partitions, stores.processor.layout)
    claim = grid.claim(log, partition, identity, even_if_halted=True)
    if begins_ms is not None:
        grid.note_beginning(log, claim, begins_ms)
    begin, writer = state.log_start, FoldWriter(grid, log, claim)
    end = begin if state.committed is None else state.committed
    excluded = _refused_before(stores, partition, (begin, end)) | excluded_of(held.poison, held.errors)
    folded = _fold(stores, partition, ((begin, end), begins_ms), excluded, writer)
    if state.committed is not None:
        writer(end, {})  # behind the last record, too, and where there was none
    for offset in folded.poison:
        grid.note_poison(log, claim, offset)
    grid.note_errors(log, claim, folded.errors)
    grid.release(log, [claim])
    grid.resume(log, partition, 0 if begins_ms is None else state.log_end)
    click.echo(f"partition {partition}: {len(folded.profiles):,} profiles folded from [{begin:,}, {end:,})")


@click.command(epilog=example("proact grid verify"))
@with_settings(*CONNECTION, "model_path")
@SERVICE
@PARTITION
def verify(settings: Settings, service: str, partition: int | None) -> int:
    """Fold every partition's log again and compare with what Redis holds, byte by byte; the exit code is 1 if they differ.

    Profiles that change meanwhile are asked for again: a partition is compared at an offset at which it stood still.
    """
    from services.worker.excluded import excluded_of
    from services.worker.folding import difference

    wrong = 0
    with open_stores(settings, service) as stores:
        for p, state in stores.log_states(stores.numbers(partition)).items():
            status, held = _stand_still(stores, p)
            applied = status.applied
            if applied is None:
                click.echo(f"partition {p}: empty")
                continue
            excluded = excluded_of(status.poison, status.errors)
            extent = (state.log_start, applied), status.begins_ms
            folded = _fold(stores, p, extent, excluded, lambda *_: None)
            found = difference(folded.profiles, held)
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


def _stand_still(stores: Stores, partition: int) -> tuple[PartitionStatus, dict[bytes, bytes]]:
    for _ in range(20):
        [before] = stores.grid.status(stores.log, [partition])
        held = stores.grid.dump(stores.log, partition)
        [after] = stores.grid.status(stores.log, [partition])
        if before.applied == after.applied:
            return after, held
    raise UserError(f"partition {partition} never stands still: verify it when there is less traffic")
