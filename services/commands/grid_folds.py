"""``proact grid rebuild`` and ``verify``: fold the log again, to replace what Redis holds or to compare with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import click

from services.commands.grid_stores import CONNECTION, PARTITION, SERVICE, Stores, open_stores
from services.commands.options import UserError, example, progress, with_settings
from services.runtime.config import Settings

if TYPE_CHECKING:
    from services.grid import PartitionStatus
    from services.runtime.folding import Folded
    from services.runtime.recalling import LeftOut
    from services.streams import LogState, Records


def _fold(
    stores: Stores,
    partition: int,
    extent: tuple[int, int],
    excluded: Mapping[int, LeftOut],
    write: Callable[[int, dict[bytes, bytes]], None],
) -> Folded:
    """Fold a partition's log, without what must not be decoded, telling progress. Raises UserError."""
    from services.runtime.folding import FoldError, fold_log
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

    try:
        return fold_log(stores.processor, batches(), excluded, write)
    except FoldError as error:
        raise UserError(f"partition {partition}: {error}") from None


def _refused_before(stores: Stores, partition: int, extent: tuple[int, int]) -> dict[int, LeftOut]:
    """Return which records the dead letters say were refused undecoded: a grid that was lost does not know it any more."""
    from services.runtime.recalling import KafkaLetters, recall

    letters = KafkaLetters(stores.settings.kafka_bootstrap_servers)
    return recall(letters, stores.topic, {partition: extent}).get(partition, {})


def _require_offset(stores: Stores, partition: int, state: LogState, held: PartitionStatus) -> None:
    """Raise UserError when nothing says how far the partition was decided: workers would decide all of it again."""
    recreated = held.identity is not None and held.identity.topic_id != state.topic_id
    if state.committed is None and held.applied is not None and not recreated:
        raise UserError(
            f"partition {partition} stays as it is: the group has no committed offset. Stop the {stores.service}s and "
            f"say `proact grid resume --accept-applied` first, if the group was idle at the grid's offset {held.applied}"
        )


def _require_history(stores: Stores, partition: int, state: LogState) -> None:
    """Raise UserError when the log is too short to fold the profiles from it alone."""
    import time

    from services.runtime.halting import history_missing
    from services.streams.kafka import KafkaSource

    source = KafkaSource(stores.settings.kafka_bootstrap_servers, "proact-reader", stores.topic)
    try:
        halt = history_missing(source, partition, state, stores.processor.history_ms, time.time_ns() // 1_000_000)
    finally:
        source.close()
    if halt is not None:
        raise UserError(f"partition {partition} stays as it is. {halt.detail}; {halt.cause.remedy(stores.topic)}")


@click.command(epilog=example("proact grid rebuild --partition 3"))
@with_settings(*CONNECTION, "model_path")
@SERVICE
@PARTITION
def rebuild(settings: Settings, service: str, partition: int | None) -> None:
    """Throw a partition's profiles away and fold them anew from the log, while the workers leave it alone.

    Only where the log is whole or reaches back past the horizon of the profiles; else nothing is touched. It may be said
    again if it was interrupted.
    """
    from services.grid import LogIdentity
    from services.runtime.folding import GridWriter
    from services.runtime.recalling import left_out

    with open_stores(settings, service) as stores:
        seen = stores.look(partition)
        for p, (state, held) in seen.items():
            _require_offset(stores, p, state, held)
            _require_history(stores, p, state)
        for p in seen:
            [held] = stores.grid.status(stores.topic, [p])
            stores.grid.halt(
                stores.topic, p, "it is rebuilt from the log; if that was interrupted: proact grid rebuild", drop=True
            )
            # Asked again: nobody decides on it any more, but a batch was perhaps under way.
            state = stores.log_states([p], stable=True)[p]
            identity = LogIdentity(state.topic_id, state.partitions, stores.processor.layout)
            claim = stores.grid.claim(stores.topic, p, identity, even_if_halted=True)
            end = state.log_start if state.committed is None else state.committed
            extent = (state.log_start, end)
            excluded = _refused_before(stores, p, extent) | left_out(held.killers, held.errors)
            folded = _fold(stores, p, extent, excluded, GridWriter(stores.grid, stores.topic, claim))
            for offset in folded.killers:
                stores.grid.note_killer(stores.topic, claim, offset)
            stores.grid.note_errors(stores.topic, claim, folded.errors)
            stores.grid.release(stores.topic, [claim])
            stores.grid.resume(stores.topic, p, 0)
            click.echo(f"partition {p}: {len(folded.profiles):,} profiles folded from [{state.log_start:,}, {end:,})")


@click.command(epilog=example("proact grid verify"))
@with_settings(*CONNECTION, "model_path")
@SERVICE
@PARTITION
def verify(settings: Settings, service: str, partition: int | None) -> int:
    """Fold every partition's log again and compare with what Redis holds, byte by byte; the exit code is 1 if they differ.

    Profiles that change meanwhile are asked for again: a partition is compared at an offset at which it stood still.
    """
    from services.runtime.folding import difference
    from services.runtime.recalling import left_out

    wrong = 0
    with open_stores(settings, service) as stores:
        for p, state in stores.log_states(stores.numbers(partition)).items():
            status, held = _stand_still(stores, p)
            applied = status.applied
            if applied is None:
                click.echo(f"partition {p}: empty")
                continue
            excluded = left_out(status.killers, status.errors)
            folded = _fold(stores, p, (state.log_start, applied), excluded, lambda *_: None)
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
        [before] = stores.grid.status(stores.topic, [partition])
        held = stores.grid.dump(stores.topic, partition)
        [after] = stores.grid.status(stores.topic, [partition])
        if before.applied == after.applied:
            return after, held
    raise UserError(f"partition {partition} never stands still: verify it when there is less traffic")
