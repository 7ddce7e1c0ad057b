"""What was refused because deciding on it raises an exception: a record that is good must not be, unless the run meant it to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from services.checker.evidence import Seen
from services.checker.findings import Verdict
from services.checker.oracle import acceptable

INTERNAL_ERROR: Final = "INTERNAL_ERROR"
UNDECODED: Final = frozenset({"KILLS_DECODER", INTERNAL_ERROR, "OTHER"})
"""What is refused for these is in no fold, whatever it is; ``OTHER`` stands for a reason that only a newer program gives."""


def left_out(
    seen: Seen,
    record: dict[str, Any] | None,
    reasons: Collection[str | None],
    excused: Sequence[bytes],
    verdict: Verdict,
) -> bool:
    """Return whether a record is in no fold, by the reasons of its answers.

    An exception that refused a good one is blamed: who refuses everything so has answered everything, and decided nothing.
    """
    raised = INTERNAL_ERROR in reasons and not any(mark in (seen.value or b"") for mark in excused)
    if raised and record is not None and acceptable(record, seen.key, seen.timestamp_ms):
        where = f"{seen.partition}/{seen.offset}"
        verdict.blame("wrong-decision", f"{where} was refused ({INTERNAL_ERROR}), and is good")
    return not UNDECODED.isdisjoint(reasons)
