"""Run a batch through everything, so that the first real one meets compiled kernels."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from services.codec.transactions import TOPIC, encode_transactions
from services.core.columns import Text, TransactionColumns, pack_code
from services.core.fallback import FallbackTier
from services.core.features import FEATURES
from services.core.policy import Action
from services.core.rules.engine import RuleEngine
from services.core.rules.rule_set import Rule, RuleSet
from services.core.rules.vocabulary import Facts
from services.decision.explanations import Explainer
from services.grid import Found
from services.scorer.processor import PreparedTransactions, ScorerProcessor
from services.streams import Records
from services.worker.lookups import ForeignCache, LookupPlan
from services.worker.processor import LookedUp

_AT_MS = 1_767_225_600_000


def _transactions(count: int) -> TransactionColumns:
    card = Text.of([b"warm-up-%d" % (i % 2) for i in range(count)])
    euro = np.full(count, pack_code("EUR"), np.int64)
    minor = np.full(count, 1_000, np.int64)
    return TransactionColumns(
        transaction_id=np.repeat(np.arange(count, dtype=np.uint8)[:, None], 16, axis=1),
        card_id=card, customer_id=card, account_id=card, terminal_id=card, merchant_id=card,
        device_id=Text.constant(b"", count),
        merchant_category_code=np.full(count, 5411, np.int64),
        amount_minor=minor, currency=euro, billing_amount_minor=minor, billing_currency=euro,
        event_time_ms=_AT_MS + 60_000 * np.arange(count),
        entry_mode=np.zeros(count, np.int64),
        country=np.full(count, pack_code("BE"), np.int64),
        latitude=np.full(count, 50.8), longitude=np.full(count, 4.3),
    )  # fmt: skip


def nothing_known(prepared: PreparedTransactions) -> dict[str, LookedUp]:
    """Return what is found of others as if everything was folded, and nothing known."""
    plan = LookupPlan(prepared.lookups, dict.fromkeys(prepared.lookups, 2), ForeignCache(0))
    plan.take([Found([None] * len(lookup.keys), _AT_MS, 0) for lookup in plan.lookups])
    return plan.found


_RULES: Final = RuleSet(
    (
        Rule(
            "warm-up",
            "transaction.amount > 1 && transaction.card_id in ['x'] || has(score)",
            Action.BLOCK,
            percentage=50,
        ),
    )
)


def _warm_explanations(processor: ScorerProcessor) -> None:
    """Compile what only a transaction needs that is not approved, and what only rules need."""
    columns, vectors = _transactions(2), np.ones((2, len(FEATURES)))
    rule_engine = RuleEngine(_RULES)
    rule_engine.hits(Facts(columns, vectors, np.zeros(2), np.zeros(2)))
    engine = replace(processor.engine, rules=rule_engine)
    for tier in (FallbackTier.CHAMPION, FallbackTier.SMALL_MODEL, FallbackTier.RULES):
        Explainer(engine, tier, None).explain(columns, vectors, np.zeros(2, np.int64), np.arange(2))


def warm_up(processor: ScorerProcessor) -> None:
    """Compile every kernel of the scorer, on a batch with good and bad records; what it decides is thrown away."""
    columns = _transactions(8)
    # The bad one is masked, too.
    values: list[bytes | None] = [*encode_transactions(columns), None, b"bad 4111111111111111"]
    keys: list[bytes | None] = [*columns.card_id.tolist(), None, b"bad"]
    n = len(values)
    zeros = np.zeros(n, np.int64)
    records = Records(TOPIC, zeros, np.arange(n), np.full(n, _AT_MS), keys, values, partitions=1)
    first = processor.prepare(records, np.zeros(n, np.int64))
    outcome = processor.decide(first, [None] * len(first.cards), nothing_known(first), np.ones(n, bool), _AT_MS)
    list(outcome.outputs)
    again = processor.prepare(replace(records, offset=records.offset + n), np.zeros(n, np.int64))
    some = np.arange(n) % 2 == 0
    list(processor.decide(again, outcome.profiles, nothing_known(again), some, _AT_MS).outputs)
    list(processor.decide_without_profiles(first, {}, _AT_MS).outputs)
    _warm_explanations(processor)
