"""Who says what of a transaction, and whose word counts: the model, what is strange, the rules. One policy for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from services.core.columns import TransactionColumns, type_f64, type_i64
from services.core.policy import Voice, look_at_strange
from services.core.rules.engine import Hits, RuleEngine
from services.core.rules.vocabulary import Facts
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


def judge(model: Model, rules: RuleEngine | None, columns: TransactionColumns, vectors: type_f64) -> Verdict:
    """Decide on a batch.

    The model's thresholds make its score an action. What it would approve, and what is unlike all that was seen, goes to review. Then come
    the rules: the one of the highest priority approves, or makes the action at least as severe as its own.
    """
    scores, anomaly_scores = model.predict(vectors), model.anomaly.score(vectors)
    by_model = model.thresholds.actions(scores)
    actions = look_at_strange(by_model, anomaly_scores >= model.anomaly.review)
    voices = np.where(actions != by_model, Voice.ANOMALY, Voice.MODEL).astype(np.int64)
    if rules is None:
        return Verdict(scores, anomaly_scores, None, actions, voices)
    hits = rules.hits(Facts(columns, vectors, scores, anomaly_scores))
    after = rules.actions(actions, hits)
    # A rule that agrees with what was said before it changes nothing.
    return Verdict(scores, anomaly_scores, hits, after, np.where(after != actions, np.int64(Voice.RULE), voices))
