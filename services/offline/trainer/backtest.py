"""A rule set on history, by the code that runs it live: what it would have stopped, and what it would have cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from services.core.classes import classify
from services.core.columns import type_bool, type_f64
from services.core.offline import compute_offline
from services.core.policy import Action, escalate_anomalies
from services.core.profiles import DAY_MS
from services.core.rules.engine import RuleEngine
from services.core.rules.rule_set import RuleSet
from services.core.rules.vocabulary import Facts
from services.core.vacuous import require_both, require_finite
from services.inference.artifact import ReleasedModel
from services.offline.trainer.costs import CostTable
from services.offline.trainer.labelled import History


@dataclass(frozen=True, slots=True)
class Tried:
    """What one rule, or all of them with the model, would have done; money in EUR."""

    name: str
    action: str
    hits: int
    frauds: int
    precision: float
    recall: float
    stopped_eur: float
    """Of frauds that are hit."""
    lost_eur: float
    """Of genuine transactions that are hit."""
    new_frauds: int
    """Frauds that are hit, and that the model alone approves."""


@dataclass(frozen=True, slots=True)
class Backtest:
    """What came of a rule set on history."""

    transactions: int
    frauds: int
    rules: list[Tried]
    model_alone: Tried
    with_rules: Tried
    cost_alone_eur: float
    cost_with_rules_eur: float

    def as_json(self) -> dict[str, Any]:
        """Return the same for machines."""
        return asdict(self)

    def table(self) -> str:
        """Return the same for people."""
        head = (
            f"{'':34}{'action':>10}{'hits':>9}{'frauds':>8}{'precision':>11}{'recall':>8}{'new':>6}"
            f"{'stopped EUR':>14}{'good EUR':>14}"
        )
        lines = [f"{self.transactions:,} transactions, {self.frauds:,} frauds", head]
        lines.extend(
            f"{one.name:34}{one.action:>10}{one.hits:>9,}{one.frauds:>8,}{one.precision:>11.1%}{one.recall:>8.1%}"
            f"{one.new_frauds:>6,}{one.stopped_eur:>14,.2f}{one.lost_eur:>14,.2f}"
            for one in (*self.rules, self.model_alone, self.with_rules)
        )
        lines.append(
            f"cost by the cost table: {self.cost_alone_eur:,.2f} EUR without rules, {self.cost_with_rules_eur:,.2f} EUR with the rules"
        )
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Truth:
    fraud: type_bool
    amount_eur: type_f64
    approved_alone: type_bool

    def tried(self, name: str, action: str, hit: type_bool) -> Tried:
        caught = hit & self.fraud
        return Tried(
            name, action, int(hit.sum()), int(caught.sum()),
            round(float(caught.sum() / hit.sum()), 4) if hit.any() else 0.0,
            round(float(caught.sum() / self.fraud.sum()), 4) if self.fraud.any() else 0.0,
            round(float(self.amount_eur[caught].sum()), 2), round(float(self.amount_eur[hit & ~self.fraud].sum()), 2),
            int((caught & self.approved_alone).sum()),
        )  # fmt: skip


def run_backtest(
    rule_set: RuleSet, model: ReleasedModel, history: History, warm_up_days: int, progress: Callable[[str], None]
) -> Backtest:
    """Try a rule set on all transactions with a label after the days that only fill the windows.

    Raises:
        ValueError: nothing is left after those days, or it is of one kind only.
    """
    progress(f"computing the features of {len(history.columns):,} transactions")
    vectors = compute_offline(history.columns, history.labels, history.reference).vectors
    day = history.columns.event_time_ms // DAY_MS
    rows = np.flatnonzero(history.has_label & (day - day.min() >= warm_up_days))
    if not len(rows):
        raise ValueError(f"there is nothing with a label after the first {warm_up_days} days")
    columns, vectors, fraud = history.columns.take(rows), vectors[rows], history.fraud[rows]
    require_both("what rules are tried on", fraud)
    amount_eur, scores = history.amount_eur[rows], require_finite("scores", model.champion.predict(vectors))
    progress(f"trying {len(rule_set.rules)} rules on {len(rows):,} transactions")
    engine = RuleEngine(rule_set)
    anomaly_scores = model.anomaly.score(vectors)
    hits = engine.hits(Facts(columns, vectors, scores, anomaly_scores))
    alone = escalate_anomalies(
        model.champion.actions(classify(vectors), scores), anomaly_scores >= model.anomaly.review
    )
    together = engine.actions(alone, hits)
    truth, costs = _Truth(fraud, amount_eur, alone == Action.APPROVE), CostTable()
    return Backtest(
        len(rows), int(fraud.sum()),
        [truth.tried(r.rule_id, r.action.name, held) for r, held in zip(rule_set.rules, hits.held, strict=True)],
        truth.tried("(without rules, not approved)", "", alone != Action.APPROVE),
        truth.tried("(with the rules, not approved)", "", together != Action.APPROVE),
        _cost(alone, fraud, amount_eur, costs), _cost(together, fraud, amount_eur, costs),
    )  # fmt: skip


def _cost(actions: np.ndarray, fraud: type_bool, amount_eur: type_f64, costs: CostTable) -> float:
    return round(float(np.choose(actions, [costs.of(a, fraud, amount_eur) for a in Action]).sum()), 2)
