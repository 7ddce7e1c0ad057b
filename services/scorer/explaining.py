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
from services.core.rules.engine import RuleEngine
from services.core.rules.vocabulary import Facts
from services.core.what_if import Counterfactual, Passes, counterfactual
from services.inference import FEW_PRECISION, Model

TOLD: Final = ("reasons", "counterfactuals")
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
    counterfactuals: Sequence[ToldCounterfactual]


class Explainer:
    """Explains what one model and one rule set decide."""

    def __init__(self, model: Model, rules: RuleEngine | None) -> None:
        self._model, self._rules = model, rules

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
            found.append(Explanation(reasons, told))
        return found

    def _passes(self, columns: TransactionColumns, row: int) -> Passes:
        """Return what says whether a transaction would be approved with other vectors, by model and rules."""
        sure = self._model.thresholds.challenge * (1.0 - FEW_PRECISION)

        def passes(vectors: type_f64, amounts_minor: type_i64) -> type_bool:
            scores, anomaly_scores = self._model.predict_few(vectors), self._model.anomaly.score(vectors)
            approved = (scores < sure) & (anomaly_scores < self._model.anomaly.review)
            if self._rules is None:
                return approved
            tried = replace(columns.take(np.full(len(vectors), row)), billing_amount_minor=amounts_minor)
            actions = np.where(approved, Action.APPROVE, Action.BLOCK).astype(np.int64)
            hits = self._rules.hits(Facts(tried, vectors, scores, anomaly_scores))
            return self._rules.actions(actions, hits) == Action.APPROVE

        return passes


def _told(found: Counterfactual, currency: str) -> ToldCounterfactual:
    return ToldCounterfactual(found.changed, found.amount_minor, describe_counterfactual(found, currency))
