"""What the auditor counts: declared beside :mod:`.catalogue`, which has all the others and gives these out with them."""

from __future__ import annotations

from typing import Final

from services.runtime.metric import COUNTER, Label, Metric

MISMATCH: Final = Label("mismatch", ("vector", "record", "decision", "missing", "twice", "unfounded"))
"""What does not fit: a feature; another field that the transaction determines; score, action, class or reasons; no decision; a second one; one on
nothing, or on what is to be refused."""
PARITY_MISMATCHES = Metric(
    "proact_parity_mismatches_total",
    COUNTER,
    "decisions",
    "on audited cards that are not what plain Python makes of the same log: must stay 0",
    (MISMATCH,),
)
AUDITED = Metric(
    "proact_audited_total",
    COUNTER,
    "decisions",
    "made again by the auditor, the whole of it or without what depends on a past that it does not know yet",
    (Label("depth", ("whole", "without_past")),),
)
AUDIT_LEFT_OUT = Metric(
    "proact_audit_left_out_total",
    COUNTER,
    "decisions",
    "on audited cards that were not made again: their transactions came before the auditor's first look, or lie elsewhere, or too many waited",
    (Label("why", ("before", "elsewhere", "room")),),
)
