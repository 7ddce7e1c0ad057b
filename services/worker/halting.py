"""When a partition's state cannot be proved: then nothing of it is decided until somebody has put it right."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from services.grid import LogIdentity
from services.registry import DEFAULT_LOG, LOGS, service_name
from services.streams import LogState, Source

MINUTE_MS = 60_000


class Cause(Enum):
    """Why a partition is halted, with what helps: each names one command, and whoever follows what that says in turn ends where it runs again."""

    TOPIC_RECREATED = (
        "the topic is not the one that the profiles were folded from; if that was meant: proact grid rebuild"
    )
    TOPIC_MISSING = (
        "the topic is gone: find out who deleted it; make it again: proact topics apply; it will not be the one that the profiles were "
        "folded from, so let them begin with it then: proact grid rebuild"
    )
    PARTITIONS_CHANGED = (
        "cards have moved to other partitions, away from their profiles: copy the records to a new topic with the wanted number; "
        "or let the moved cards begin anew: proact grid rebuild"
    )
    OFFSETS_MISSING = (
        "nothing says what was decided on: if the group was idle since the grid's offset, stop the workers and say proact grid resume "
        "--accept-applied; else find the last decided offset in the outputs first"
    )
    LOG_BEHIND = "Kafka lost what it had acknowledged: find out how; then stop the workers and say proact grid resume --accept-gap"
    RETENTION = (
        "records were deleted before they were decided on or folded: restore them; or stop the workers and say "
        "proact grid resume --accept-gap"
    )
    HISTORY_MISSING = (
        "the log does not reach back far enough to fold the profiles from it: restore Redis or the log; or let the profiles begin "
        "with the log: proact grid rebuild --accept-loss"
    )
    MARKED = "somebody or a worker halted it, see the reason; when that is mended: proact grid resume"

    def remedy(self, log: str, partition: int | None = None) -> str:
        """What the operator can do about a partition of a log, by the name that the grid knows."""
        return _named_for(log, self.value, partition)


_COMMAND: Final = re.compile(r"(proact grid \w+)(?: --service [\w-]+)?((?: --accept-\w+)*)")


def _named_for(log: str, remedy: str, partition: int | None = None) -> str:
    """Return a remedy with its commands meant for one partition, and for the service that works a log off; one is theirs by default."""
    named = "" if log not in LOGS or service_name(log) == DEFAULT_LOG else f" --service {service_name(log)}"
    named += "" if partition is None else f" --partition {partition}"
    return _COMMAND.sub(rf"\g<1>{named}\g<2>", remedy)


def damaged(log: str, error: Exception) -> str:
    """Return what people read where stored profiles are not what was written."""
    return f"damaged profiles: {error}; remedy: {_named_for(log, 'proact grid rebuild')}"


REBUILDING: Final = "it is rebuilt from the log; if that was interrupted: proact grid rebuild"
"""What people read of a partition while it is rebuilt, and afterwards if that was interrupted."""
REBUILDING_SHORT: Final = (
    "it is rebuilt from a log that is not whole; if that was interrupted: proact grid rebuild --accept-loss"
)
GAP_ACCEPTED: Final = "a gap in its log is accepted; if that was interrupted: proact grid resume --accept-gap"


@dataclass(frozen=True, slots=True)
class Halt:
    """Why one partition is left alone."""

    cause: Cause
    detail: str

    def __str__(self) -> str:
        return f"{self.cause.name}: {self.detail}"

    def remedy(self, log: str, partition: int) -> str:
        """What helps: of a mark that names a command itself, that one."""
        named = list(_COMMAND.finditer(self.detail)) if self.cause is Cause.MARKED else []
        return _named_for(log, named[-1].group(), partition) if named else self.cause.remedy(log, partition)


def halt_of(state: LogState, applied: int | None) -> Halt | None:
    """Say why a partition's state cannot be proved, None where it can.

    Args:
        state: what Kafka knows of the partition.
        applied: the offset up to which the grid holds its fold, None where it holds nothing.
    """
    committed, start = state.committed, state.log_start
    if applied is not None and committed is None:
        return Halt(Cause.OFFSETS_MISSING, f"the grid is at offset {applied}, but the group has no committed offset")
    if applied is not None and committed is not None and applied > committed:
        return Halt(Cause.LOG_BEHIND, f"the grid is at offset {applied}, ahead of the committed {committed}")
    if committed is not None and committed > state.log_end:
        return Halt(Cause.LOG_BEHIND, f"offset {committed} is committed, but the log ends at {state.log_end}")
    held = committed if applied is None else applied
    if held is not None and held < start:
        return Halt(Cause.RETENTION, f"the next record is that of offset {held}, but the log begins at {start}")
    return None


def identity_halt(held: LogIdentity, state: LogState) -> Halt | None:
    """Say why the grid's profiles of a partition are not of this log, None where they are; another layout is no reason."""
    if held.topic_id != state.topic_id:
        return Halt(
            Cause.TOPIC_RECREATED,
            f"the grid holds the fold of topic id {held.topic_id}, the topic's is {state.topic_id}",
        )
    if held.partitions != state.partitions:
        return Halt(Cause.PARTITIONS_CHANGED, f"the topic had {held.partitions} partitions, it has {state.partitions}")
    return None


def history_missing(source: Source, partition: int, state: LogState, horizon_ms: int, now_ms: int) -> Halt | None:
    """Say whether the log is too short to fold the profiles from it alone.

    It is long enough if it is whole, or if it begins more than ``horizon_ms`` before the first record that is still to be
    decided (by their timestamps): nothing older counts then.

    Raises:
        StreamsError: an outage.
    """
    if state.log_start == 0:
        return None
    next_offset = state.log_start if state.committed is None else state.committed
    next_ms = now_ms if next_offset >= state.log_end else _timestamp_of(source, partition, next_offset, now_ms)
    # A time before 1970 is a code to Kafka, not a time.
    if source.offset_at(partition, max(0, next_ms - horizon_ms)) > state.log_start:
        return None
    return Halt(
        Cause.HISTORY_MISSING,
        f"the grid holds nothing, and the log begins at offset {state.log_start}, less than "
        f"{horizon_ms / 86_400_000:.0f} days before offset {next_offset}",
    )


def beginning_of(source: Source, partition: int, state: LogState, now_ms: int) -> int:
    """Return before what time a log that does not reach back far enough says nothing, to the minute. Raises StreamsError."""
    if state.log_start >= state.log_end:
        return now_ms
    return _timestamp_of(source, partition, state.log_start, now_ms) + MINUTE_MS


def _timestamp_of(source: Source, partition: int, offset: int, now_ms: int) -> int:
    """Return, to the minute, when the record at an offset was written: by asking for offsets of times, since it is rare."""
    low, high = 0, now_ms // MINUTE_MS + 1
    while low < high:
        middle = (low + high) // 2
        if source.offset_at(partition, middle * MINUTE_MS) > offset:
            high = middle
        else:
            low = middle + 1
    return (low - 1) * MINUTE_MS
