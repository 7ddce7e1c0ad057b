"""One batch of transactions decided on: what is known of others is seen, everybody is heard, what is not approved is explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np

from services.codec.reference import ACCOUNTS, CUSTOMERS
from services.codec.terminal_events import TOPIC as TERMINALS
from services.core.card.features import FoldedCards
from services.core.card.windows import DEGRADATIONS, MODEL_MISSED, PROFILE_MISSED, REFERENCE_MISSED, REPEAT
from services.core.columns import Text, TransactionColumns, type_bool, type_i64
from services.core.features import CARD_COLUMNS
from services.core.immutable import immutable
from services.decision.engine import DecisionEngine, decide_actions
from services.decision.explanations import Explainer
from services.decision.outputs import Decided
from services.decision.reference import group_keys, see_eligibility
from services.decision.shadows import Shadows
from services.decision.terminals import see_terminals
from services.worker.processor import LookedUp

OTHERS: Final = (TERMINALS, ACCOUNTS, CUSTOMERS)
"""The topics whose profiles a decision looks at beside the card's own."""


@immutable
class Wanted:
    """What transactions are to be looked up of others."""

    keys: Mapping[str, Text]
    """By topic, the distinct keys."""
    slots: Mapping[str, type_i64]
    """By topic (n,) the key that each transaction has."""

    @classmethod
    def of(cls, columns: TransactionColumns, topics: Sequence[str] = OTHERS) -> Wanted:
        """Return the terminals, accounts and customers of a batch, or those of them that these topics are about."""
        if not topics:
            return cls({}, {})
        named = {TERMINALS: columns.terminal_id, ACCOUNTS: columns.account_id, CUSTOMERS: columns.customer_id}
        grouped = {topic: group_keys(named[topic]) for topic in topics}
        return cls({t: keys for t, (keys, _) in grouped.items()}, {t: slots for t, (_, slots) in grouped.items()})


@immutable
class TransactionBatch:
    """Transactions to decide on, and what was seen of their cards."""

    columns: TransactionColumns
    rows: type_i64
    """(n,) the record that each came from."""
    folded: FoldedCards
    slots: Mapping[str, type_i64]
    profiles_seen: bool
    """Whether the cards' own profiles were read."""

    def take(self, rows: type_bool) -> TransactionBatch:
        """Return some of them; their vectors and flags are copies."""
        return replace(
            self,
            columns=self.columns.take(rows),
            rows=self.rows[rows],
            folded=FoldedCards(self.folded.vectors[rows], self.folded.flags[rows]),
            slots={topic: slots[rows] for topic, slots in self.slots.items()},
        )


def decide(
    engine: DecisionEngine, batch: TransactionBatch, found: Mapping[str, LookedUp], shadows: Shadows | None = None
) -> Decided:
    """Decide on a batch; its vectors and flags are changed in place.

    Args:
        engine: who may have a say.
        batch: the transactions.
        found: what was found of others, by topic; a topic is missing where it did not come in time.
        shadows: who scores beside it.
    """
    columns, vectors, flags = batch.columns, batch.folded.vectors, batch.folded.flags
    behind = see_terminals(columns, batch.slots[TERMINALS], found.get(TERMINALS), batch.folded)
    if not batch.profiles_seen:
        # A card of which nothing could be read is not a new one.
        vectors[:, CARD_COLUMNS] = np.nan
        flags |= PROFILE_MISSED
    eligibility = see_eligibility(columns, batch.slots, found, batch.folded)
    if eligibility is None:
        flags |= REFERENCE_MISSED
    seen = batch.profiles_seen, all(topic in found for topic in OTHERS)
    tier = engine.tier(profiles=seen[0], others=seen[1])
    if engine.model is None or engine.model.champion is None:
        flags |= MODEL_MISSED
    decisions = decide_actions(engine, tier, columns, vectors, eligibility)
    explainer = Explainer(engine, tier, eligibility)
    return Decided(
        columns=columns,
        rows=batch.rows,
        vectors=vectors,
        decisions=decisions,
        explain=partial(explainer.explain, columns, vectors, decisions.declines, decisions.flagged),
        degraded=DEGRADED_BITS[flags],
        behind_ms=behind,
        repeat=REPEATED[flags],
        shadows=() if shadows is None else shadows.decide(seen, columns, vectors, eligibility),
    )


_SUMS: Final = np.arange(2 * max(DEGRADATIONS.values()))
"""Every sum of flags."""
DEGRADED_BITS: Final = sum(
    ((_SUMS & flag) != 0).astype(np.int64) << at for at, flag in enumerate(DEGRADATIONS.values())
)
"""Of each sum of flags, one bit for each of ``DEGRADATIONS``."""


REPEATED: Final = (_SUMS & REPEAT) != 0
"""Of each sum of flags, whether it holds that."""
