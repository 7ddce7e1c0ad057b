"""What was seen of the grid while the run went on."""

from __future__ import annotations

from typing import Final

from services.checker.evidence import Evidence, Sample
from services.checker.findings import Verdict

LOOK_S: Final = 1.0
"""How long one look at all partitions may take."""


def check_samples(evidence: Evidence, verdict: Verdict) -> None:
    """Blame what must never have been so at any of the looks at the grid while the run went on."""
    last: dict[int, Sample] = {}
    for sample in evidence.samples:
        p, applied = sample.partition, sample.applied
        where = f"{sample.at_s:.1f} s, partition {p}"
        if applied is not None and sample.committed is not None and applied > sample.committed:
            verdict.blame("state-ahead", f"{where}: {applied} > {sample.committed}")
        before = last.get(p)
        last[p] = sample
        # It is noted a moment before it happens: a look may fall in between.
        if before is None or any(before.at_s - LOOK_S < at <= sample.at_s + LOOK_S for at in evidence.set_back_s):
            continue
        if sample.epoch < before.epoch:
            verdict.blame("zombie-apply", f"{where}: epoch {before.epoch} -> {sample.epoch}")
        if sample.epoch == before.epoch and (applied or 0) < (before.applied or 0):
            verdict.blame("zombie-apply", f"{where}: {before.applied} -> {applied} in epoch {sample.epoch}")
