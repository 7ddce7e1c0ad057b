"""Why a transaction is not approved, and what would have let it pass: one by one, since such transactions are few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from services.core.columns import TransactionColumns, type_bool, type_f64, type_i64, unpack_code
from services.core.money import exponents_of, format_amount
from services.core.policy import Action
from services.core.reasons import Reason, describe_counterfactual, heaviest_reasons
from services.core.refusals import ToldRefusal, describe_refusals
from services.core.rules.engine import RuleEngine
from services.core.rules.vocabulary import Facts
from services.core.standing import Standing
from services.core.what_if import Counterfactual, Passes, counterfactual
from services.inference import FEW_PRECISION, Model

TOLD: Final = ("reasons", "refusals", "counterfactuals")
"""The fields of an :class:`Explanation`, as decisions and alerts call them."""


@dataclass(frozen=True, slots=True)
class ToldCounterfactual:
    """What would have let a transaction pass, as it is told."""

    changed: str
    amount_minor: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is told of one decision that is not APPROVE."""

    reasons: Sequence[Reason]
    refusals: Sequence[ToldRefusal]
    counterfactuals: Sequence[ToldCounterfactual]


class Explainer:
    """Explains what one model, one rule set, and what is known of accounts and customers, decide."""

    def __init__(self, model: Model, rules: RuleEngine | None, standing: Standing | None) -> None:
        self._model, self._rules, self._standing = model, rules, standing

    def explain(self, columns: TransactionColumns, vectors: type_f64, rows: type_i64) -> list[Explanation]:
        """Explain some rows of a batch."""
        if not len(rows):
            return []
        shares = self._model.explain(vectors[rows])
        scales = 10.0 ** exponents_of(columns.billing_currency[rows])
        found = []
        for row, share, scale in zip(rows.tolist(), shares, scales.tolist(), strict=True):
            currency = unpack_code(int(columns.billing_currency[row]))
            amount_minor = int(columns.billing_amount_minor[row])
            reasons = heaviest_reasons(share, vectors[row], format_amount(amount_minor, currency))
            one = counterfactual(vectors[row], amount_minor, scale, self._passes(columns, row))
            told = [] if one is None else [_told(one, currency)]
            found.append(Explanation(reasons, self._refusals(columns, row), told))
        return found

    def _refusals(self, columns: TransactionColumns, row: int) -> Sequence[ToldRefusal]:
        if self._standing is None:
            return []
        mask = int(self._standing.refusals(columns.billing_amount_minor)[row])
        return describe_refusals(mask, row, self._standing, columns)

    def _passes(self, columns: TransactionColumns, row: int) -> Passes:
        """Return what says whether a transaction would be approved with other vectors and amounts, by all who have a say."""
        standing = None if self._standing is None else self._standing.take(np.array([row]))
        sure = self._model.thresholds.challenge * (1.0 - FEW_PRECISION)

        def passes(vectors: type_f64, amounts_minor: type_i64) -> type_bool:
            scores, anomaly_scores = self._model.predict_few(vectors), self._model.anomaly.score(vectors)
            approved = (scores < sure) & (anomaly_scores < self._model.anomaly.review)
            free = standing is None or standing.take(np.zeros(len(vectors), np.int64)).refusals(amounts_minor) == 0
            if self._rules is None:
                return approved & free
            tried = replace(columns.take(np.full(len(vectors), row)), billing_amount_minor=amounts_minor)
            actions = np.where(approved, Action.APPROVE, Action.BLOCK).astype(np.int64)
            hits = self._rules.hits(Facts(tried, vectors, scores, anomaly_scores))
            return (self._rules.actions(actions, hits) == Action.APPROVE) & free

        return passes


def _told(found: Counterfactual, currency: str) -> ToldCounterfactual:
    return ToldCounterfactual(found.changed, found.amount_minor, describe_counterfactual(found, currency))
