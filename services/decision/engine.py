"""Who says what of a transaction, and whose word counts: account and customer, the rules, the model, what is anomalous. One policy for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from services.core.classes import classify
from services.core.columns import TransactionColumns, filled, type_f64, type_i64
from services.core.control import NOT_LET_THROUGH, ControlGroup
from services.core.fallback import FallbackTier, SafeDefault, best_tier
from services.core.immutable import immutable
from services.core.policy import SEVERITY_OF_ACTION, Action, AlertKind, DecisionSource, escalate_anomalies
from services.core.reference.eligibility import OF_ACCOUNT, Eligibility
from services.core.rules.engine import NOBODY, Hits, RuleEngine
from services.core.rules.vocabulary import Facts
from services.inference import Anomaly, Model, Predictor

NO_BOOSTER = -1
_APPROVE, _MODEL, _ANOMALY = int(Action.APPROVE), int(DecisionSource.MODEL), int(DecisionSource.ANOMALY)


@dataclass(frozen=True, slots=True)
class DecisionEngine:
    """Who may have a say."""

    model: Model | None
    rules: RuleEngine | None
    safe: SafeDefault
    control: ControlGroup | None = None
    """Of whom some are let through; None: nobody is."""

    def tier(self, *, profiles: bool, others: bool) -> FallbackTier:
        """Return the highest fallback tier; see :func:`best_tier`."""
        champion = self.model is not None and self.model.champion is not None
        return best_tier(champion=champion, small=self.model is not None, profiles=profiles, others=others)

    def predictor(self, tier: FallbackTier) -> Predictor | None:
        """Return what scores on a fallback tier."""
        if self.model is None or tier >= FallbackTier.RULES:
            return None
        return self.model.champion if tier is FallbackTier.CHAMPION else self.model.small

    def anomaly(self, tier: FallbackTier) -> Anomaly | None:
        """Return what says on a fallback tier how anomalous a transaction is."""
        return None if self.model is None or tier >= FallbackTier.RULES else self.model.anomaly


@immutable
class DecisionBatch:
    """What was said of n transactions, and what is done."""

    classes: type_i64
    """(n,) the :class:`services.core.classes.TransactionClass` of each."""
    tiers: type_i64
    """(n,) the :class:`FallbackTier` that each decision was made on."""
    boosters: Sequence[str]
    scored_by: type_i64
    """(n,) which of ``boosters`` scored, or NO_BOOSTER."""
    scores: type_f64
    """(n,) the model's; NaN where none spoke, as for the next."""
    anomaly_scores: type_f64
    hits: Hits | None
    """What the rules said; None where there are none."""
    actions: type_i64
    sources: type_i64
    """(n,) the :class:`DecisionSource` whose word the action is."""
    declines: type_i64
    """(n,) a mask of :class:`services.core.reference.eligibility.DeclineReason`."""
    actions_by_risk: type_i64 | None = None
    """(n,) what would be done if account and customer forbade nothing; None where nobody asked them: then it is what is done."""

    propensities: type_f64 | None = None
    """(n,) the probability with which each was to be let through, NaN where it could not be; None: there is no control group."""
    let_through: type_i64 | None = None
    """(n,) what would have been done with those of the control group, NOT_LET_THROUGH for all others."""

    @property
    def flagged(self) -> type_i64:
        """Which are not APPROVE."""
        return (self.actions != _APPROVE).nonzero()[0]

    @property
    def alert_severities(self) -> type_i64:
        """(n,) the :class:`services.core.policy.Severity` that an alert has."""
        return SEVERITY_OF_ACTION[self.actions if self.actions_by_risk is None else self.actions_by_risk]

    @property
    def alert_kinds(self) -> type_i64:
        """(n,) the :class:`services.core.policy.AlertKind` that an alert has."""
        by_risk = self.actions if self.actions_by_risk is None else self.actions_by_risk
        return np.where(by_risk == _APPROVE, np.int64(AlertKind.DECLINE), np.int64(AlertKind.FRAUD))


def decide_actions(
    engine: DecisionEngine,
    tier: FallbackTier,
    columns: TransactionColumns,
    vectors: type_f64,
    eligibility: Eligibility | None,
) -> DecisionBatch:
    """Decide on a batch.

    The thresholds of its class make a transaction's score an action; without any model the amount does. What the model would approve, and
    what is unlike all that was seen, goes to review. Then come the rules: the one of the highest priority approves, or makes the action at
    least as severe as its own. What the account cannot pay, and what the customer forbade, is blocked, whatever they all say. Last, some of
    what model or anomaly score alone would stop is let through, where there is a control group.
    """
    by_risk = _with_rules(engine.rules, columns, vectors, _scored(engine, tier, columns, vectors))
    decided = by_risk if eligibility is None else _with_eligibility(by_risk, columns, eligibility)
    return decided if engine.control is None else _with_control(engine.control, engine.rules, columns, decided)


def _with_eligibility(by_risk: DecisionBatch, columns: TransactionColumns, eligibility: Eligibility) -> DecisionBatch:
    declines = eligibility.declines(columns.billing_amount_minor)
    sources = np.where(declines & OF_ACCOUNT != 0, np.int64(DecisionSource.ACCOUNT), np.int64(DecisionSource.CUSTOMER))
    refused = declines != 0
    return replace(
        by_risk,
        actions=np.where(refused, np.int64(Action.BLOCK), by_risk.actions),
        sources=np.where(refused, sources, by_risk.sources),
        declines=declines,
        actions_by_risk=by_risk.actions,
    )


def _with_control(
    control: ControlGroup, rules: RuleEngine | None, columns: TransactionColumns, before: DecisionBatch
) -> DecisionBatch:
    """Let some of what model or anomaly score alone would stop through; what account, customer or a rule says stands."""
    stopped = (before.actions != _APPROVE) & ((before.sources == _MODEL) | (before.sources == _ANOMALY))
    stopped &= control.affordable(columns.billing_amount_minor, columns.billing_currency)
    if before.hits is not None and rules is not None:
        stopped &= ~rules.forbid_control(before.hits)
    drawn = stopped & control.drawn(columns.transaction_id)
    return replace(
        before,
        actions=np.where(drawn, _APPROVE, before.actions),
        propensities=np.where(stopped, control.share, np.nan),
        let_through=np.where(drawn, before.actions, NOT_LET_THROUGH),
    )


def _scored(
    engine: DecisionEngine, tier: FallbackTier, columns: TransactionColumns, vectors: type_f64
) -> DecisionBatch:
    n, predictor, anomaly = len(columns), engine.predictor(tier), engine.anomaly(tier)
    nothing, silent = np.zeros(n, np.int64), filled(n, np.nan, np.float64)
    classes, tiers = classify(vectors), filled(n, tier)
    if predictor is None:
        actions = engine.safe.actions(columns.billing_amount_minor, columns.billing_currency)
        sources, tiers = filled(n, DecisionSource.DEFAULT), filled(n, FallbackTier.SAFE_DEFAULT)
        return DecisionBatch(classes, tiers, (), filled(n, NO_BOOSTER), silent, silent, None, actions, sources, nothing)
    scores = predictor.predict(vectors)
    by_model, anomaly_scores, sources = predictor.actions(classes, scores), silent, filled(n, _MODEL)
    actions = by_model
    if anomaly is not None:
        anomaly_scores = anomaly.score(vectors)
        actions = escalate_anomalies(by_model, anomaly_scores >= anomaly.review)
        sources[actions != by_model] = _ANOMALY
    scored_by = predictor.scored_by(classes)
    return DecisionBatch(
        classes, tiers, predictor.boosters, scored_by, scores, anomaly_scores, None, actions, sources, nothing
    )


def _with_rules(
    rules: RuleEngine | None, columns: TransactionColumns, vectors: type_f64, before: DecisionBatch
) -> DecisionBatch:
    if rules is None:
        return before
    hits = rules.hits(Facts(columns, vectors, before.scores, before.anomaly_scores))
    after = rules.actions(before.actions, hits)
    # Where nothing else could speak, a rule that decides is who decided; else one that agrees with what was said before it changes nothing.
    bottom = before.tiers == FallbackTier.SAFE_DEFAULT
    by_rule = bottom & (hits.winner != NOBODY)
    return replace(
        before,
        hits=hits,
        actions=after,
        tiers=np.where(by_rule, np.int64(FallbackTier.RULES), before.tiers),
        sources=np.where((after != before.actions) | by_rule, np.int64(DecisionSource.RULE), before.sources),
    )
