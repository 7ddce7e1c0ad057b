"""Releases in the shadow: scored on the same vectors, by their own thresholds and rules; what they would have done decides nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from services.codec.schemas import topics
from services.codec.writing import Column, ColumnarWriter
from services.core.columns import TransactionColumns, type_f64
from services.core.immutable import immutable
from services.core.reference.eligibility import Eligibility
from services.core.rules.engine import RuleEngine
from services.decision.engine import DecisionBatch, DecisionEngine, decide_actions
from services.runtime.logs import fields, frames_of
from services.streams import Output, Records

if TYPE_CHECKING:
    from services.decision.outputs import Decided

log = logging.getLogger("proact.model")

SHADOW_DECISIONS: Final = "shadow-decisions"


@dataclass(frozen=True, slots=True)
class Shadow:
    """One release in the shadow."""

    release: str
    engine: DecisionEngine
    rule_set_version: int | None
    """None: no rules."""
    own_rules: bool = False
    """Whether it keeps its rules when others go live."""

    def with_rules(self, version: int | None, rules: RuleEngine | None) -> Shadow:
        """Return it with the rules that are live now, where it has none of its own."""
        return (
            self
            if self.own_rules
            else replace(self, engine=replace(self.engine, rules=rules), rule_set_version=version)
        )


@immutable
class ShadowDecided:
    """What one release in the shadow would have done with a batch."""

    shadow: Shadow
    decisions: DecisionBatch


class Shadows:
    """All of them. One that raises an exception is left out from then on: it must not touch what is decided."""

    def __init__(self, shadows: Sequence[Shadow] = ()) -> None:
        self._shadows = list(shadows)
        self.failed: dict[str, str] = {}
        """Of each release that raised an exception, which."""

    @property
    def all(self) -> Sequence[Shadow]:
        """Those that score."""
        return self._shadows

    def with_rules(self, version: int | None, rules: RuleEngine | None) -> Shadows:
        """Return them with the rules that are live now; see :meth:`Shadow.with_rules`."""
        other = Shadows([one.with_rules(version, rules) for one in self._shadows])
        other.failed = self.failed
        return other

    def decide(
        self, seen: tuple[bool, bool], columns: TransactionColumns, vectors: type_f64, eligibility: Eligibility | None
    ) -> list[ShadowDecided]:
        """Return what each would do with a batch.

        Args:
            seen: whether the cards' profiles, and what is known of others, were read.
            columns: n transactions.
            vectors: (n, features), which are not changed.
            eligibility: what account and customer allow; None where it was not read.
        """
        found = []
        for one in tuple(self._shadows):
            try:
                tier = one.engine.tier(profiles=seen[0], others=seen[1])
                found.append(ShadowDecided(one, decide_actions(one.engine, tier, columns, vectors, eligibility)))
            except Exception as error:  # noqa: BLE001 - whatever a candidate does, the live model decides
                self._shadows.remove(one)
                self.failed[one.release] = f"it raises {type(error).__name__}"
                said = fields(release=one.release, traceback=frames_of(error))
                log.error("a release in the shadow raises an exception: it is left out", extra=said)  # noqa: TRY400
        return found


class ShadowEncoder:
    """Encodes what releases in the shadow would have done."""

    def __init__(self) -> None:
        self._writer = ColumnarWriter(topics()[SHADOW_DECISIONS].written)

    def encode(self, records: Records, decided: Decided, keys: Sequence[bytes | None], now_ms: int) -> list[Output]:
        """Return the records of all that score in the shadow, a transaction each.

        Args:
            records: the batch.
            decided: what was decided on d of them, and what would have been.
            keys: (d,) the cards.
            now_ms: when it was decided.
        """
        rows = decided.rows
        shared: dict[str, Column] = {
            "transaction_id": decided.columns.transaction_id,
            "card_id": decided.columns.card_id,
            "event_time_ms": decided.columns.event_time_ms,
            "decided_at_ms": now_ms,
            "decided_action": decided.decisions.actions,
            "decided_score": decided.decisions.scores,
            "source_partition": records.partition[rows],
            "source_offset": records.offset[rows],
        }
        outputs = []
        for one in decided.shadows:
            columns = shared | {
                "release": one.shadow.release.encode(),
                "rule_set_version": one.shadow.rule_set_version,
                "action": one.decisions.actions,
                "score": one.decisions.scores,
                "anomaly_score": one.decisions.anomaly_scores,
                "decided_by": one.decisions.sources,
            }
            outputs.append(Output(SHADOW_DECISIONS, keys, self._writer.write(columns, len(rows))))
        return outputs


def counted_by_action(decided: Sequence[ShadowDecided], actions: int) -> list[int]:
    """Return how many transactions the releases in the shadow would have answered with each action."""
    counts = np.zeros(actions, np.int64)
    for one in decided:
        counts += np.bincount(one.decisions.actions, minlength=actions)
    return [int(n) for n in counts]
