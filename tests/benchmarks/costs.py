"""What each part of a decision costs, in microseconds of one thread, without Kafka and Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from services.core.classes import classify
from services.core.columns import TransactionColumns, type_f64, type_i64
from services.core.fallback import FallbackTier, SafeDefault
from services.core.features import FEATURES
from services.core.offline import compute_offline
from services.core.policy import Action
from services.core.reference.eligibility import Eligibility
from services.core.reference.features import ReferenceRows, see_reference
from services.core.rules.engine import RuleEngine
from services.core.rules.rule_set import Rule, RuleSet
from services.core.rules.vocabulary import Facts
from services.core.terminal.windows import fraud_labels
from services.core.vacuous import require_positive
from services.decision.engine import DecisionEngine
from services.decision.explanations import Explainer
from services.inference.artifact import ReleasedModel
from services.offline.simulator.generate import simulate
from services.offline.simulator.reference import simulate_reference

BATCH: Final = 1_000
RULES: Final = 50
EXPLAINED: Final = 50
"""Transactions that are explained: those with the highest scores."""
_START_MS: Final = 1_767_225_600_000


def some_rules(count: int = RULES, *, seldom: bool = False) -> RuleSet:
    """Return rules over different features, as analysts write them: three conditions each.

    Args:
        count: how many.
        seldom: whether they hold for next to nothing, as in a system that people live with.
    """
    more = " && transaction.amount > 2500" if seldom else ""
    numeric = [f for f in FEATURES if f.entity in ("card", "terminal")]
    rules = []
    for i in range(count):
        one, other = numeric[i % len(numeric)], numeric[(7 * i + 3) % len(numeric)]
        names = [f"{f.entity}.{f.name.removeprefix(f.entity + '_')}" for f in (one, other)]
        when = f"{names[0]} > {3 + i} && ({names[1]} > {i}.5 || transaction.amount > {1_000 + i}){more}"
        rules.append(Rule(f"rule-{i}", when, Action.CHALLENGE, priority=i % 5))
    return RuleSet(tuple(rules))


def _median_us(work: Callable[[], Any], count: int, repeats: int) -> float:
    require_positive("what is measured at once", min(count, repeats))
    work()  # what is compiled or allocated once
    took = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        took.append(time.perf_counter() - begin)
    return round(require_positive("the time of a part", float(np.median(took))) * 1e6 / count, 2)


def measure_costs(model: ReleasedModel, repeats: int = 30) -> dict[str, Any]:
    """Return microseconds a transaction of each part, in batches of 1,000 and one by one; medians. Raises VacuousError."""
    traffic = simulate(500, 40, 7, _START_MS)
    reference = simulate_reference(traffic.columns, traffic.scenario == 0, 7).rows_of(traffic.columns)
    # With labels: else every terminal's features are missing, and half of the rules ask for them.
    vectors = compute_offline(traffic.columns, fraud_labels(traffic.columns, traffic.scenario > 0), reference).vectors
    last = np.arange(len(traffic) - BATCH, len(traffic))
    engine = RuleEngine(some_rules())
    batch = _parts(model, engine, traffic.columns.take(last), vectors[last], _taken(reference, last))
    single = _parts(model, engine, traffic.columns.take(last[:1]), vectors[last[:1]], _taken(reference, last[:1]))
    top = np.argsort(-model.champion.predict(vectors))[:EXPLAINED]
    columns, flagged = traffic.columns.take(top), vectors[top]
    eligibility = see_reference(columns, _taken(reference, top), flagged)
    return {
        "batch_us": {name: _median_us(work, BATCH, repeats) for name, work in batch.items()},
        "single_us": {name: _median_us(work, 1, 10 * repeats) for name, work in single.items()},
        "explanation_us": _explaining(_explainer(model, None, eligibility), columns, flagged, repeats),
        "explanation_with_rules_us": _explaining(_explainer(model, engine, eligibility), columns, flagged, repeats),
        "rules": RULES,
    }


def _explainer(model: ReleasedModel, engine: RuleEngine | None, eligibility: Eligibility) -> Explainer:
    return Explainer(DecisionEngine(model, engine, SafeDefault(0.0, 0.0)), FallbackTier.CHAMPION, eligibility)


def _taken(reference: ReferenceRows, rows: type_i64) -> ReferenceRows:
    return ReferenceRows(reference.accounts, reference.account[rows], reference.customers, reference.customer[rows])


def _parts(
    model: ReleasedModel, engine: RuleEngine, columns: TransactionColumns, vectors: type_f64, reference: ReferenceRows
) -> Mapping[str, Callable[[], Any]]:
    facts = Facts(columns, vectors, model.champion.predict(vectors), model.anomaly.score(vectors))
    return {
        "score": lambda: model.champion.predict(vectors),
        "anomaly_score": lambda: model.anomaly.score(vectors),
        "classify": lambda: classify(vectors),
        "rules": lambda: engine.hits(facts),
        "account_and_customer": lambda: see_reference(columns, reference, vectors.copy()),
    }


def _explaining(explainer: Explainer, columns: TransactionColumns, vectors: type_f64, repeats: int) -> float:
    rows, none_refused = np.arange(len(columns)), np.zeros(len(columns), np.int64)
    return _median_us(lambda: explainer.explain(columns, vectors, none_refused, rows), len(rows), repeats)
