"""What was found, by name.

The names are Jepsen's where it has one for the thing:

===================  ==================================================================================================
lost-write           a transaction below the committed offset that has no answer
unseen               a transaction that was never taken up, though the run is at rest
duplicate            a transaction with more than one answer, a decision that is no repeat with more than one terminal event
G1a                  an answer to what is not committed, or one that a reader saw and that is not there any more
torn-txn             an alert, terminal event or request without its decision, or a decision without one that it must have
nonmonotonic         answers of one card that are not in the order of its transactions
divergent-state      a profile of a card or terminal that is not the fold of the log up to the applied offset
zombie-apply         the grid's epoch went back, or its offset did under one epoch: somebody wrote who had no right to
state-ahead          the grid ahead of the committed offset
hung-txn             an atomic commit that is still open
wrong-decision       a decision that is not the one that its transaction, its card's past and its model make
leak                 a card number where none must be
stuck                a partition whose committed or applied offset does not reach the end of its log
vacuous              a run that proves nothing
===================  ==================================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

WITNESSES_MAX: Final = 8
ANOMALIES: Final = (
    "lost-write", "unseen", "duplicate", "G1a", "torn-txn", "nonmonotonic", "divergent-state", "zombie-apply", "state-ahead",
    "hung-txn", "wrong-decision", "leak", "stuck", "vacuous",
)  # fmt: skip


@dataclass(slots=True)
class Verdict:
    """What was checked, and what is wrong."""

    counts: dict[str, int] = field(default_factory=dict)
    anomalies: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in ANOMALIES})
    totals: Counter[str] = field(default_factory=Counter)

    def blame(self, name: str, witness: str) -> None:
        """Note an anomaly."""
        self.totals[name] += 1
        if len(self.anomalies[name]) < WITNESSES_MAX:
            self.anomalies[name].append(witness)

    def compare(self, what: str, wanted: Mapping[bytes, bytes], held: Mapping[bytes, bytes]) -> None:
        """Blame every key of which the grid does not hold what it should; no bytes stand for nothing."""
        for key in sorted(wanted.keys() | held.keys()):
            mine, theirs = wanted.get(key), held.get(key)
            if (mine or b"") != (theirs or b""):
                how = "missing" if not theirs else "too much" if not mine else "another"
                self.blame("divergent-state", f"{what} is {how}")

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not self.totals

    def as_json(self) -> dict[str, Any]:
        """Return the verdict for machines."""
        found = {n: {"count": self.totals[n], "witnesses": self.anomalies[n]} for n in ANOMALIES if self.totals[n]}
        return {"verdict": "ok" if self.holds else "broken", **self.counts, "anomalies": found}
