"""What the tests of rules share: a batch to look at, and which of its rows a condition holds for."""

from __future__ import annotations

import numpy as np

from services.core.features import FEATURES
from services.core.policy import Action
from services.core.rules.engine import RuleEngine
from services.core.rules.rule_set import Rule, RuleList, RuleSet
from services.core.rules.vocabulary import Facts
from tests.generators import random_events, to_columns

N = 300


def facts_of(seed: int = 1, count: int = N) -> Facts:
    rng = np.random.default_rng(seed)
    columns = to_columns(random_events(seed, count, cards=20))
    vectors = rng.integers(0, 5, (len(columns), len(FEATURES))).astype(float)
    vectors[rng.random(vectors.shape) < 0.2] = np.nan
    scores = rng.random(len(columns))
    scores[::17] = np.nan
    return Facts(columns, vectors, scores, rng.random(len(columns)))


FACTS = facts_of()


def engine_of(*conditions: str, lists: tuple[RuleList, ...] = ()) -> RuleEngine:
    rules = tuple(Rule(f"rule-{i}", when, Action.REVIEW) for i, when in enumerate(conditions))
    return RuleEngine(RuleSet(rules, lists))


def held(condition: str, facts: Facts = FACTS, lists: tuple[RuleList, ...] = ()) -> list[bool]:
    return engine_of(condition, lists=lists).hits(facts).held[0].tolist()
