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
halted               a partition that its service leaves alone, since its state cannot be proved or somebody marked it
vacuous              a run that proves nothing
===================  ==================================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from services.checker.rest import Rest

WITNESSES_MAX: Final = 8
ANOMALIES: Final = (
    "lost-write", "unseen", "duplicate", "G1a", "torn-txn", "nonmonotonic", "divergent-state", "zombie-apply", "state-ahead",
    "hung-txn", "wrong-decision", "leak", "stuck", "halted", "vacuous",
)  # fmt: skip
NEVER_BY_MOVING: Final = ("duplicate", "nonmonotonic", "zombie-apply", "wrong-decision", "leak", "halted")
"""What is wrong even where records come and go while they are read; anything else may be only that, and must be looked at again at rest."""


@dataclass(slots=True)
class Verdict:
    """What was checked, and what is wrong."""

    counts: dict[str, int] = field(default_factory=dict)
    anomalies: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in ANOMALIES})
    totals: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    """By topic, how many of the totals are no more than that something waits to be worked off."""
    rest: Rest = field(default_factory=Rest)

    def wait(self, name: str, topic: str, witness: str) -> None:
        """Note an anomaly that is none if the service of that topic is stopped."""
        self.waits[topic] += 1
        self.blame(name, witness)

    def take(self, rest: Rest) -> None:
        """Take into account what was not at rest while the evidence was read."""
        self.rest = rest
        for (topic, partition), reason in rest.halts.items():
            self.blame("halted", f"{topic} {partition}: {reason}")

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

    @property
    def word(self) -> str:
        """``ok``, ``broken``, or ``not_at_rest`` where nothing is found that could not come of that."""
        if not self.rest.unrest:
            return "ok" if self.holds else "broken"
        states = {one.state for one in self.rest.unrest}
        missing = {one.topic for one in self.rest.unrest if one.state == "missing"}
        sure = sum(self.totals.values()) - sum(self.waits[topic] for topic in missing)
        if "moving" in states:
            sure = sum(self.totals[name] for name in NEVER_BY_MOVING)
        return "broken" if sure else "not_at_rest"

    def as_json(self) -> dict[str, Any]:
        """Return the verdict for machines."""
        found = {n: {"count": self.totals[n], "witnesses": self.anomalies[n]} for n in ANOMALIES if self.totals[n]}
        return {"verdict": self.word, **self.counts, **self.rest.as_json(), "anomalies": found}
