"""``proact grid``: look at what Redis holds of each partition, put it right, and tell the workers to go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from services.commands.options import UserError, example, progress, with_settings
from services.runtime.config import Settings

if TYPE_CHECKING:
    from services.grid import PartitionStatus
    from services.grid.redis import RedisGrid
    from services.runtime.halting import Halt
    from services.streams import LogState, Records
    from services.streams.admin import KafkaAdmin

TOPIC = "card-transactions"
_CONNECTION = ("kafka_bootstrap_servers", "redis_url", "group_id", "grid_timeout_ms")
_PARTITION = click.option("--partition", default=None, type=click.IntRange(0), help="One partition; all if left out.")


@dataclass(frozen=True, slots=True)
class _Stores:
    """What the commands ask."""

    settings: Settings
    admin: KafkaAdmin
    grid: RedisGrid

    def states(self, partition: int | None) -> dict[int, LogState]:
        """Return what Kafka knows of the partitions. Raises UserError when there is no such partition."""
        from services.streams import LogState

        extents = {p: extent for (_, p), extent in self.admin.extents(TOPIC).items()}
        if not extents:
            raise UserError(f"there is no topic {TOPIC}: create the topics with `proact topics apply`")
        if partition is not None and partition not in extents:
            raise UserError(f"{TOPIC} has no partition {partition}, it has {len(extents)}")
        committed = self.admin.committed(TOPIC, self.settings.group_id, extents)
        topic_id = self.admin.topic_id(TOPIC)
        return {
            p: LogState(committed.get(p), start, end, topic_id, len(extents))
            for p, (start, end) in sorted(extents.items())
            if partition in (None, p)
        }


@contextmanager
def _stores(settings: Settings) -> Iterator[_Stores]:
    from services.grid import GridUnavailableError
    from services.grid.redis import RedisGrid
    from services.inference import ModelError
    from services.runtime.folding import FoldError
    from services.streams import StreamsError
    from services.streams.admin import KafkaAdmin

    try:
        yield _Stores(
            settings,
            KafkaAdmin(settings.kafka_bootstrap_servers),
            RedisGrid(settings.redis_url, settings.grid_timeout_ms / 1000),
        )
    except GridUnavailableError as error:
        raise UserError(f"Redis at {settings.redis_url} does not answer: {error}") from None
    except (StreamsError, FoldError, ModelError) as error:
        raise UserError(str(error)) from None


def _halt(state: LogState, held: PartitionStatus) -> Halt | None:
    """Return why workers leave a partition alone, as far as it can be seen from outside."""
    from services.runtime.halting import Cause, Halt, halt_of, identity_halt

    if held.halted is not None:
        return Halt(Cause.MARKED, held.halted)
    moved = None if held.identity is None else identity_halt(held.identity, state)
    if moved is not None:
        return moved
    return halt_of(state, held.applied)


def _row(partition: int, state: LogState, held: PartitionStatus) -> dict[str, Any]:
    halt = _halt(state, held)
    behind = (state.committed or state.log_start) - (held.applied or 0)
    return {
        "partition": partition,
        "state": "halted" if halt else "empty" if held.applied is None else "behind" if behind else "current",
        "applied": held.applied,
        "committed": state.committed,
        "log_start": state.log_start,
        "log_end": state.log_end,
        "epoch": held.epoch,
        "profiles": held.profiles,
        "killers": sorted(held.killers),
        "reason": None if halt is None else str(halt),
        "remedy": None if halt is None else halt.cause.remedy,
    }


@click.group(epilog=example("proact grid status"))
def grid() -> None:
    """Look at the grid's partitions, put them right, and tell the workers to go on."""


@grid.command(epilog=example("proact grid status --json"))
@with_settings(*_CONNECTION)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def status(settings: Settings, as_json: bool) -> int:
    """Show how far each partition is, and why it is halted if it is; the exit code is 1 if one is."""
    with _stores(settings) as stores:
        states = stores.states(None)
        held = stores.grid.status(TOPIC, list(states))
    rows = [_row(p, state, one) for (p, state), one in zip(states.items(), held, strict=True)]
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
    else:
        names = ("partition", "state", "applied", "committed", "log_start", "log_end", "epoch", "profiles")
        click.echo("".join(f"{name:>11}" for name in names))
        for row in rows:
            click.echo("".join(f"{'-' if row[name] is None else row[name]!s:>11}" for name in names))
        for row in rows:
            if row["reason"]:
                click.echo(f"partition {row['partition']} is halted: {row['reason']}\n  remedy: {row['remedy']}")
            if row["killers"]:
                click.echo(f"partition {row['partition']}: records that kill who decodes them: {row['killers']}")
    return int(any(row["reason"] for row in rows))


def _fold(
    stores: _Stores,
    partition: int,
    extent: tuple[int, int],
    killers: frozenset[int],
    write: Callable[[int, dict[bytes, bytes]], None],
) -> dict[bytes, bytes]:
    """Fold a partition's log, telling progress."""
    from services.runtime.folding import fold_log
    from services.scorer.processor import ScorerProcessor
    from services.scorer.wiring import released_model
    from services.streams.ranges import read_range

    begin, end = extent

    def batches() -> Iterator[Records]:
        told = begin
        for records in read_range(stores.settings.kafka_bootstrap_servers, TOPIC, partition, extent):
            yield records
            at = int(records.offset[-1]) + 1
            if at - told >= 50_000:
                told = at
                progress(f"partition {partition}: {at - begin:,} of {end - begin:,} records")

    return fold_log(ScorerProcessor(released_model(stores.settings)), batches(), killers, write)


def _require_offset(partition: int, state: LogState, held: PartitionStatus) -> None:
    """Raise UserError when nothing says how far the partition was decided: workers would decide all of it again."""
    recreated = held.identity is not None and held.identity.topic_id != state.topic_id
    if state.committed is None and held.applied is not None and not recreated:
        raise UserError(
            f"partition {partition} stays as it is: the group has no committed offset. Stop the scorers and "
            f"say `proact grid resume --accept-applied` first, if the group was idle at the grid's offset {held.applied}"
        )


def _require_history(stores: _Stores, partition: int, state: LogState) -> None:
    """Raise UserError when the log is too short to fold the profiles from it alone."""
    import time

    from services.runtime.halting import history_missing
    from services.runtime.ownership import HISTORY_MS
    from services.streams.kafka import KafkaSource

    source = KafkaSource(stores.settings.kafka_bootstrap_servers, "proact-reader", TOPIC)
    try:
        halt = history_missing(source, partition, state, HISTORY_MS, time.time_ns() // 1_000_000)
    finally:
        source.close()
    if halt is not None:
        raise UserError(f"partition {partition} stays as it is. {halt.detail}; {halt.cause.remedy}")


@grid.command(epilog=example("proact grid rebuild --partition 3"))
@with_settings(*_CONNECTION, "model_path")
@_PARTITION
def rebuild(settings: Settings, partition: int | None) -> None:
    """Throw a partition's profiles away and fold them anew from the log, while the workers leave it alone.

    Only where the log is whole or reaches back past the horizon of the profiles; else nothing is touched. It may be said
    again if it was interrupted.
    """
    from services.core.profiles import LAYOUT
    from services.grid import LogIdentity
    from services.runtime.folding import GridWriter

    with _stores(settings) as stores:
        states = stores.states(partition)
        for p, state in states.items():
            _require_offset(p, state, stores.grid.status(TOPIC, [p])[0])
            _require_history(stores, p, state)
        for p, state in states.items():
            [held] = stores.grid.status(TOPIC, [p])
            stores.grid.halt(
                TOPIC, p, "it is rebuilt from the log; if that was interrupted: proact grid rebuild", drop=True
            )
            # Asked again: nobody decides on it any more, but a batch was perhaps under way.
            state = stores.states(p)[p]  # noqa: PLW2901
            identity = LogIdentity(state.topic_id, state.partitions, LAYOUT)
            claim = stores.grid.claim(TOPIC, p, identity, even_if_halted=True)
            for offset in held.killers:
                stores.grid.note_killer(TOPIC, claim, offset)
            end = state.log_start if state.committed is None else state.committed
            profiles = _fold(stores, p, (state.log_start, end), held.killers, GridWriter(stores.grid, TOPIC, claim))
            stores.grid.release(TOPIC, [claim])
            stores.grid.resume(TOPIC, p, 0)
            click.echo(f"partition {p}: {len(profiles):,} profiles folded from [{state.log_start:,}, {end:,})")


@grid.command(epilog=example("proact grid verify"))
@with_settings(*_CONNECTION, "model_path")
@_PARTITION
def verify(settings: Settings, partition: int | None) -> int:
    """Fold every partition's log again and compare with what Redis holds, byte by byte; the exit code is 1 if they differ.

    Profiles that change meanwhile are asked for again: a partition is compared at an offset at which it stood still.
    """
    from services.runtime.folding import difference

    wrong = 0
    with _stores(settings) as stores:
        for p, state in stores.states(partition).items():
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


def _stand_still(stores: _Stores, partition: int) -> tuple[int | None, dict[bytes, bytes], frozenset[int]]:
    for _ in range(20):
        [before] = stores.grid.status(TOPIC, [partition])
        held = stores.grid.dump(TOPIC, partition)
        [after] = stores.grid.status(TOPIC, [partition])
        if before.applied == after.applied:
            return after.applied, held, after.killers
    raise UserError(f"partition {partition} never stands still: verify it when there is less traffic")


@grid.command(epilog=example("proact grid resume --partition 3"))
@with_settings(*_CONNECTION)
@_PARTITION
@click.option(
    "--accept-applied",
    is_flag=True,
    help="Where the group's committed offset is gone: take the grid's applied offset for it. Only when the group was idle.",
)
@click.option(
    "--accept-gap", is_flag=True,
    help="Where the log does not hold what is committed any more: go on with what it holds; profiles begin anew.",
)  # fmt: skip
def resume(settings: Settings, partition: int | None, accept_applied: bool, accept_gap: bool) -> None:
    """Take the mark of halted partitions away, an open breaker's too, and tell the workers to look at them again.

    What lies in the partition now is accepted as it is: bad records of it become dead letters and open no breaker again, and a
    lost grid may be folded from a log that is too short. The two flags set committed offsets, for which no scorer may run.
    """
    with _stores(settings) as stores:
        states = stores.states(partition)
        held = dict(zip(states, stores.grid.status(TOPIC, list(states)), strict=True))
        for p, state in states.items():
            applied = held[p].applied
            if accept_applied and state.committed is None and applied is not None:
                _set_committed(stores, p, applied)
            if accept_gap and state.committed is not None:
                _accept_gap(stores, p, state, applied)
            stores.grid.resume(TOPIC, p, state.log_end)
        for p, state in stores.states(partition).items():
            halt = _halt(state, stores.grid.status(TOPIC, [p])[0])
            said = "resumed" if halt is None else f"still halted, {halt}\n  remedy: {halt.cause.remedy}"
            click.echo(f"partition {p}: {said}")


def _set_committed(stores: _Stores, partition: int, offset: int) -> None:
    stores.admin.commit(TOPIC, stores.settings.group_id, {partition: offset})
    click.echo(f"partition {partition}: committed offset set to {offset:,}")


def _accept_gap(stores: _Stores, partition: int, state: LogState, applied: int | None) -> None:
    """Bring the committed offset to what the log holds, and drop profiles that are of another stretch of it."""
    assert state.committed is not None
    committed = min(max(state.committed, state.log_start), state.log_end)
    if committed != state.committed:
        _set_committed(stores, partition, committed)
    if applied is not None and not state.log_start <= applied <= committed:
        stores.grid.halt(TOPIC, partition, "a gap in its log is accepted", drop=True)
        click.echo(f"partition {partition}: profiles at offset {applied:,} dropped")
