"""Why transactions are not approved, and what would have let them pass: reported one by one, since they are few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from services.core.classes import classify
from services.core.columns import TransactionColumns, type_bool, type_f64, type_i64, unpack_code
from services.core.explain.declines import ExplainedDecline, describe_declines
from services.core.explain.reasons import Reason, describe_counterfactual, heaviest_reasons
from services.core.explain.what_if import Counterfactual, Passes, counterfactuals
from services.core.fallback import FallbackTier
from services.core.money import format_amount, scales_of
from services.core.policy import Action
from services.core.reference.eligibility import Eligibility
from services.core.rules.vocabulary import Facts
from services.decision.engine import DecisionEngine

REPORTED: Final = ("reasons", "declines", "counterfactuals")
"""The fields of an :class:`Explanation`, as decisions and alerts call them."""


@dataclass(frozen=True, slots=True)
class ExplainedCounterfactual:
    """What would have let a transaction pass, as it is reported."""

    changed: str
    amount_minor: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is said of one decision that is not APPROVE."""

    reasons: Sequence[Reason]
    declines: Sequence[ExplainedDecline]
    counterfactuals: Sequence[ExplainedCounterfactual]


class Explainer:
    """Explains what those who have a say on one fallback tier, and what is known of accounts and customers, decide."""

    def __init__(self, engine: DecisionEngine, tier: FallbackTier, eligibility: Eligibility | None) -> None:
        self._engine, self._eligibility = engine, eligibility
        self._predictor, self._anomaly = engine.predictor(tier), engine.anomaly(tier)

    def explain(
        self, columns: TransactionColumns, vectors: type_f64, declines: type_i64, rows: type_i64
    ) -> list[Explanation]:
        """Explain some rows of a batch.

        Args:
            columns: n transactions.
            vectors: (n, features).
            declines: (n,) the masks that :class:`Eligibility` gave.
            rows: (k,) which of them.
        """
        if not len(rows):
            return []
        weighed = vectors[rows]
        shares = np.zeros(weighed.shape) if self._predictor is None else self._predictor.explain(weighed)
        explained = []
        amounts = columns.billing_amount_minor[rows]
        scales = scales_of(columns.billing_currency[rows])
        passing = counterfactuals(vectors[rows], amounts, scales, self._passes(columns, rows))
        for row, share, one, amount in zip(rows.tolist(), shares, passing, amounts.tolist(), strict=True):
            currency = unpack_code(int(columns.billing_currency[row]))
            reasons = heaviest_reasons(share, vectors[row], format_amount(amount, currency))
            found = [] if one is None else [_reported(one, currency)]
            explained.append(Explanation(reasons, self._declines(columns, row, int(declines[row])), found))
        return explained

    def _declines(self, columns: TransactionColumns, row: int, mask: int) -> Sequence[ExplainedDecline]:
        return [] if self._eligibility is None else describe_declines(mask, row, self._eligibility, columns)

    def _passes(self, columns: TransactionColumns, rows: type_i64) -> Passes:
        """Return what says whether transactions would be approved with other vectors and amounts, by all who have a say."""
        rules = self._engine.rules

        def passes(vectors: type_f64, amounts_minor: type_i64, tried: type_i64) -> type_bool:
            currency = columns.billing_currency[rows[tried]]
            scores, anomaly_scores, approved = self._by_risk(vectors, amounts_minor, currency)
            if rules is not None:
                changed = replace(columns.take(rows[tried]), billing_amount_minor=amounts_minor)
                actions = np.where(approved, Action.APPROVE, Action.BLOCK).astype(np.int64)
                hits = rules.hits(Facts(changed, vectors, scores, anomaly_scores))
                approved = rules.actions(actions, hits) == Action.APPROVE
            if self._eligibility is not None:
                approved = approved & (self._eligibility.take(rows[tried]).declines(amounts_minor) == 0)
            return approved

        return passes

    def _by_risk(
        self, vectors: type_f64, amounts_minor: type_i64, currency: type_i64
    ) -> tuple[type_f64, type_f64, type_bool]:
        """Return scores, anomaly scores, and what they, or the safe default where there are none, would approve."""
        silent = np.full(len(vectors), np.nan)
        if self._predictor is None:
            return silent, silent, self._engine.safe.actions(amounts_minor, currency) == Action.APPROVE
        scores = self._predictor.predict(vectors)
        approved = scores < self._predictor.challenged_from(classify(vectors))
        if self._anomaly is None:
            return scores, silent, approved
        # How anomalous it is matters where the score would let it pass, or where a rule asks.
        rules, anomaly_scores = self._engine.rules, silent
        asked = np.flatnonzero(approved) if rules is None or not rules.asks("anomaly_score") else slice(None)
        anomaly_scores[asked] = self._anomaly.score(vectors[asked])
        return scores, anomaly_scores, approved & (anomaly_scores < self._anomaly.review)


def _reported(found: Counterfactual, currency: str) -> ExplainedCounterfactual:
    return ExplainedCounterfactual(found.changed, found.amount_minor, describe_counterfactual(found, currency))
