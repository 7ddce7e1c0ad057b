"""Who says what of a transaction, and whose word counts: account and customer, the rules, the model, what is strange. One policy for all."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from services.core.columns import TransactionColumns, type_f64, type_i64
from services.core.policy import Action, Voice, look_at_strange
from services.core.rules.engine import Hits, RuleEngine
from services.core.rules.vocabulary import Facts
from services.core.standing import OF_ACCOUNT, Standing
from services.inference import Model


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was said of n transactions, and what is done."""

    scores: type_f64
    """(n,) the model's."""
    anomaly_scores: type_f64
    hits: Hits | None
    """What the rules said; None where there are none."""
    actions: type_i64
    voices: type_i64
    """(n,) the :class:`Voice` whose word the action is."""
    refusals: type_i64
    """(n,) a mask of :class:`services.core.standing.Refusal`."""


def judge(
    model: Model, rules: RuleEngine | None, columns: TransactionColumns, vectors: type_f64, standing: Standing | None
) -> Verdict:
    """Decide on a batch.

    The model's thresholds make its score an action. What it would approve, and what is unlike all that was seen, goes to review. Then come
    the rules: the one of the highest priority approves, or makes the action at least as severe as its own. What the account cannot pay, and
    what the customer forbade, is blocked, whatever they all say.
    """
    by_risk = _by_risk(model, rules, columns, vectors)
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
    )


def _by_risk(model: Model, rules: RuleEngine | None, columns: TransactionColumns, vectors: type_f64) -> Verdict:
    none_refused = np.zeros(len(columns), np.int64)
    scores, anomaly_scores = model.predict(vectors), model.anomaly.score(vectors)
    by_model = model.thresholds.actions(scores)
    actions = look_at_strange(by_model, anomaly_scores >= model.anomaly.review)
    voices = np.where(actions != by_model, Voice.ANOMALY, Voice.MODEL).astype(np.int64)
    if rules is None:
        return Verdict(scores, anomaly_scores, None, actions, voices, none_refused)
    hits = rules.hits(Facts(columns, vectors, scores, anomaly_scores))
    after = rules.actions(actions, hits)
    # A rule that agrees with what was said before it changes nothing.
    voices = np.where(after != actions, np.int64(Voice.RULE), voices)
    return Verdict(scores, anomaly_scores, hits, after, voices, none_refused)
