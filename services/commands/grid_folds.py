"""``proact grid rebuild`` and ``verify``: fold the log again, to replace what Redis holds or to compare with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from services.commands.grid_stores import CONNECTION, PARTITION, SERVICE, Stores, open_stores
from services.commands.options import UserError, example, progress, with_settings
from services.runtime.config import Settings

if TYPE_CHECKING:
    from services.grid import PartitionStatus
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
            for offset in held.killers:
                stores.grid.note_killer(stores.topic, claim, offset)
            end = state.log_start if state.committed is None else state.committed
            profiles = _fold(
                stores, p, (state.log_start, end), held.killers, GridWriter(stores.grid, stores.topic, claim)
            )
            stores.grid.release(stores.topic, [claim])
            stores.grid.resume(stores.topic, p, 0)
            click.echo(f"partition {p}: {len(profiles):,} profiles folded from [{state.log_start:,}, {end:,})")


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
