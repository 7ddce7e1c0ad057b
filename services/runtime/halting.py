"""When a partition's state cannot be proved: then nothing of it is decided until somebody has put it right."""

from __future__ import annotations

from services.streams.base import LogState


def halt_reason(state: LogState, applied: int | None) -> str | None:
    """Say why a partition's state cannot be proved, None where it can.

    Args:
        state: what Kafka knows of the partition.
        applied: the offset up to which the grid holds its fold, None where it holds nothing.
    """
    if applied is None:
        return None
    if state.committed is None:
        return f"the grid is at offset {applied}, but the group has no committed offset: it expired or was deleted"
    if applied > state.committed:
        return f"the grid is at offset {applied}, ahead of the committed {state.committed}: Kafka lost what it had acknowledged"
    if applied < state.log_start:
        return f"the grid is at offset {applied}, but the log begins at {state.log_start}: retention overtook the grid"
    return None
