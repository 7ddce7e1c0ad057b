"""Who says what of a transaction, and whose word counts: account and customer, the rules, the model, what is strange. One policy for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from services.core.classes import classify
from services.core.columns import TransactionColumns, filled, type_f64, type_i64
from services.core.immutable import immutable
from services.core.ladder import Rung, SafeDefault, highest_rung
from services.core.policy import SEVERITY_OF_ACTION, Action, AlertKind, Voice, look_at_strange
from services.core.rules.engine import NOBODY, Hits, RuleEngine
from services.core.rules.vocabulary import Facts
from services.core.standing import OF_ACCOUNT, Standing
from services.inference import Anomaly, Model, Predictor

NO_BOOSTER = -1
_APPROVE, _MODEL, _ANOMALY = int(Action.APPROVE), int(Voice.MODEL), int(Voice.ANOMALY)


@dataclass(frozen=True, slots=True)
class Judges:
    """Who may have a say."""

    model: Model | None
    rules: RuleEngine | None
    safe: SafeDefault

    def rung(self, *, profiles: bool, others: bool) -> Rung:
        """Return the highest rung of the ladder; see :func:`highest_rung`."""
        champion = self.model is not None and self.model.champion is not None
        return highest_rung(champion=champion, small=self.model is not None, profiles=profiles, others=others)

    def predictor(self, rung: Rung) -> Predictor | None:
        """Return what scores on a rung."""
        if self.model is None or rung >= Rung.RULES:
            return None
        return self.model.champion if rung is Rung.CHAMPION else self.model.small

    def anomaly(self, rung: Rung) -> Anomaly | None:
        """Return what says on a rung how strange a transaction is."""
        return None if self.model is None or rung >= Rung.RULES else self.model.anomaly


@immutable
class Verdict:
    """What was said of n transactions, and what is done."""

    classes: type_i64
    """(n,) the :class:`services.core.classes.TransactionClass` of each."""
    rungs: type_i64
    """(n,) the :class:`Rung` that each decision was made on."""
    boosters: Sequence[str]
    spoke: type_i64
    """(n,) which of ``boosters`` scored, or NO_BOOSTER."""
    scores: type_f64
    """(n,) the model's; NaN where none spoke, as for the next."""
    anomaly_scores: type_f64
    hits: Hits | None
    """What the rules said; None where there are none."""
    actions: type_i64
    voices: type_i64
    """(n,) the :class:`Voice` whose word the action is."""
    refusals: type_i64
    """(n,) a mask of :class:`services.core.standing.Refusal`."""
    actions_by_risk: type_i64 | None = None
    """(n,) what would be done if account and customer forbade nothing; None where nobody asked them: then it is what is done."""

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


def judge(
    judges: Judges, rung: Rung, columns: TransactionColumns, vectors: type_f64, standing: Standing | None
) -> Verdict:
    """Decide on a batch.

    The thresholds of its class make a transaction's score an action; without any model the amount does. What the model would approve, and
    what is unlike all that was seen, goes to review. Then come the rules: the one of the highest priority approves, or makes the action at
    least as severe as its own. What the account cannot pay, and what the customer forbade, is blocked, whatever they all say.
    """
    by_risk = _with_rules(judges.rules, columns, vectors, _scored(judges, rung, columns, vectors))
    if standing is None:
        return by_risk
    refusals = standing.refusals(columns.billing_amount_minor)
    voices = np.where(refusals & OF_ACCOUNT != 0, np.int64(Voice.ACCOUNT), np.int64(Voice.CUSTOMER))
    refused = refusals != 0
    return replace(
        by_risk,
        actions=np.where(refused, np.int64(Action.BLOCK), by_risk.actions),
        voices=np.where(refused, voices, by_risk.voices),
        refusals=refusals,
        actions_by_risk=by_risk.actions,
    )


def _scored(judges: Judges, rung: Rung, columns: TransactionColumns, vectors: type_f64) -> Verdict:
    n, predictor, anomaly = len(columns), judges.predictor(rung), judges.anomaly(rung)
    nothing, silent = np.zeros(n, np.int64), filled(n, np.nan, np.float64)
    classes, rungs = classify(vectors), filled(n, rung)
    if predictor is None:
        actions = judges.safe.actions(columns.billing_amount_minor, columns.billing_currency)
        voices, rungs = filled(n, Voice.DEFAULT), filled(n, Rung.SAFE_DEFAULT)
        return Verdict(classes, rungs, (), filled(n, NO_BOOSTER), silent, silent, None, actions, voices, nothing)
    scores = predictor.predict(vectors)
    by_model, anomaly_scores, voices = predictor.actions(classes, scores), silent, filled(n, _MODEL)
    actions = by_model
    if anomaly is not None:
        anomaly_scores = anomaly.score(vectors)
        actions = look_at_strange(by_model, anomaly_scores >= anomaly.review)
        voices[actions != by_model] = _ANOMALY
    spoke = predictor.spoke(classes)
    return Verdict(classes, rungs, predictor.boosters, spoke, scores, anomaly_scores, None, actions, voices, nothing)


def _with_rules(rules: RuleEngine | None, columns: TransactionColumns, vectors: type_f64, before: Verdict) -> Verdict:
    if rules is None:
        return before
    hits = rules.hits(Facts(columns, vectors, before.scores, before.anomaly_scores))
    after = rules.actions(before.actions, hits)
    # Where nothing else could speak, a rule that decides is who decided; else one that agrees with what was said before it changes nothing.
    bottom = before.rungs == Rung.SAFE_DEFAULT
    by_rule = bottom & (hits.winner != NOBODY)
    return replace(
        before,
        hits=hits,
        actions=after,
        rungs=np.where(by_rule, np.int64(Rung.RULES), before.rungs),
        voices=np.where((after != before.actions) | by_rule, np.int64(Voice.RULE), before.voices),
    )
