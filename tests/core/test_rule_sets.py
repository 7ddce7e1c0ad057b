"""What rule sets decide, and which documents are one."""

from __future__ import annotations

import numpy as np
import pytest

from services.core.columns import unpack_code
from services.core.features import FEATURE_NAMES, FEATURES
from services.core.policy import Action
from services.core.rules import engine
from services.core.rules.engine import NOBODY, RuleEngine
from services.core.rules.rule_set import Entry, Mode, Rule, RuleList, RuleSet, read_rule_set
from services.core.rules.syntax import (
    RuleError,
)
from services.core.rules.vocabulary import VARIABLES, Facts, Kind
from tests.core.rules import FACTS, N, held
from tests.generators import random_events, to_columns


def test_a_member_of_a_list_is_one_until_its_time():
    events = random_events(3, 50, cards=3)
    columns = to_columns(events)
    facts = Facts(columns, np.zeros((len(columns), len(FEATURES))), *np.zeros((2, len(columns))))
    card = columns.card_id.tolist()[0].decode()
    times_ms = columns.event_time_ms[[c.decode() == card for c in columns.card_id.tolist()]]
    moment_ms = int(np.sort(times_ms)[len(times_ms) // 2])  # of one of its transactions: there it is no member any more
    listed = RuleList("watched", Kind.TEXT, (Entry(card, moment_ms), Entry("nobody")))

    found = held("transaction.card_id in lists.watched", facts, (listed,))

    expected = [
        c.decode() == card and t < moment_ms
        for c, t in zip(columns.card_id.tolist(), columns.event_time_ms, strict=True)
    ]
    assert found == expected
    assert any(expected)
    longest = RuleList("watched", Kind.TEXT, (Entry(card, moment_ms), Entry(card), Entry(card, 1)))
    assert sum(held("transaction.card_id in lists.watched", facts, (longest,))) > sum(expected)


def test_lists_hold_numbers_and_countries_too():
    codes = FACTS.columns.merchant_category_code.tolist()
    lands = [unpack_code(int(c)) for c in FACTS.columns.country]
    lists = (
        RuleList("codes", Kind.NUMBER, (Entry(str(codes[0])), Entry("-3"))),
        RuleList("lands", Kind.COUNTRY, (Entry(lands[0]),)),
        RuleList("nothing", Kind.TEXT, ()),
    )

    assert held("transaction.merchant_category_code in lists.codes", lists=lists) == [c == codes[0] for c in codes]
    assert held("transaction.country in lists.lands", lists=lists) == [c == lands[0] for c in lands]
    assert not any(held("transaction.card_id in lists.nothing", lists=lists))
    halves = Facts(FACTS.columns, FACTS.vectors + 0.5, FACTS.scores, FACTS.anomaly_scores)
    assert not any(held("card.count_10m in lists.codes", halves, lists))


def test_the_highest_priority_decides_then_allowing_then_the_most_severe():
    rules = (
        Rule("block-late", "true", Action.BLOCK, priority=1),
        Rule("block", "transaction.hour < 12", Action.BLOCK, priority=5),
        Rule("allow", "transaction.hour < 6", Action.APPROVE, priority=5),
        Rule("challenge", "transaction.hour >= 18", Action.CHALLENGE, priority=5),
        Rule("nothing", "score > 2", Action.BLOCK, priority=9),
    )
    vectors = np.zeros((4, len(FEATURES)))
    vectors[:, FEATURE_NAMES.index("transaction_hour")] = [3, 8, 14, 20]
    facts = Facts(FACTS.columns.take(np.arange(4)), vectors, *np.zeros((2, 4)))
    rule_engine = RuleEngine(RuleSet(rules))

    hits = rule_engine.hits(facts)

    assert [rules[i].rule_id for i in hits.winner] == ["allow", "block", "block-late", "challenge"]
    model = np.array([Action.BLOCK, Action.APPROVE, Action.APPROVE, Action.REVIEW])
    decided = [Action.APPROVE, Action.BLOCK, Action.BLOCK, Action.REVIEW]
    assert rule_engine.actions(model, hits).tolist() == decided


def test_shadow_rules_only_record():
    rules = (Rule("shadow", "true", Action.BLOCK, mode=Mode.SHADOW), Rule("none", "true", Action.BLOCK, percentage=0))
    rule_engine = RuleEngine(RuleSet(rules))

    hits = rule_engine.hits(FACTS)

    assert hits.held.all()
    assert not hits.acting.any()
    assert (hits.winner == NOBODY).all()
    model = np.arange(N) % 4
    assert rule_engine.actions(model, hits).tolist() == model.tolist()


def test_a_percentage_is_of_cards_and_stays_with_them():
    columns = to_columns(random_events(5, 4_000, cards=2_000))
    facts = Facts(columns, np.zeros((len(columns), len(FEATURES))), *np.zeros((2, len(columns))))

    def acting(rule_id: str, percentage: int) -> set[bytes]:
        rule_engine = RuleEngine(RuleSet((Rule(rule_id, "true", Action.BLOCK, percentage=percentage),)))
        on = rule_engine.hits(facts).acting[0]
        cards = np.array(columns.card_id.tolist(), object)
        assert not set(cards[on]) & set(cards[~on])
        return set(cards[on])

    every = set(columns.card_id.tolist())
    ten, thirty = acting("a", 10), acting("a", 30)
    assert ten < thirty < every
    assert 0.07 < len(ten) / len(every) < 0.13
    assert acting("a", 100) == every
    assert acting("b", 10) != ten


def test_an_empty_rule_set_says_nothing():
    rule_engine = RuleEngine(RuleSet(()))

    hits = rule_engine.hits(FACTS)

    assert hits.held.shape == (0, N)
    assert rule_engine.actions(np.ones(N, np.int64), hits).tolist() == [1] * N
    assert RuleEngine(RuleSet(())).hits(
        Facts(FACTS.columns.take(np.arange(0)), FACTS.vectors[:0], FACTS.scores[:0], FACTS.scores[:0])
    ).winner.shape == (0,)


def test_every_name_has_a_value_of_its_kind():
    for name, variable in VARIABLES.items():
        if variable.kind is Kind.TEXT:
            assert held(f"{name} == 'x'") == [False] * N
        elif variable.kind is Kind.NUMBER:
            assert any(held(f"has({name})")), name


def document(**changes):
    rule = {"id": "night", "when": "transaction.is_night == 1", "action": "REVIEW"} | changes
    return {"rules": [rule], "lists": {"watched": {"of": "text", "entries": ["a", {"value": "b", "until_ms": 5}]}}}


def test_a_document_is_read():
    rule_set = read_rule_set(document(priority=7, mode="shadow", percentage=20, reason="at night"))

    assert rule_set.rules == (
        Rule("night", "transaction.is_night == 1", Action.REVIEW, 7, Mode.SHADOW, 20, "at night"),
    )
    assert rule_set.lists == (RuleList("watched", Kind.TEXT, (Entry("a"), Entry("b", 5))),)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (None, "a rule set is written as"), ([], "a rule set is written as"), ({"rule": []}, "has no rule"), ({"rules": "x"}, "a list of rules"),
        ({"rules": ["x"]}, "a rule is written as"), (document(action="DENY"), "an action is one of"), (document(mode="on"), "live or shadow"),
        (document(id="A b"), "a rule's id"), (document(priority=2_000), "a priority is between"), (document(priority="1"), "whole number"),
        (document(percentage=101), "between 0 and 100"), (document(percentage=True), "whole number"), (document(when=5), "when is missing"),
        (document(reason="x" * 201), "more than 200"), (document(reason="seen 4111 1111 1111 1111"), "card number"), (document(colour=1), "has no colour"),
        ({"rules": document()["rules"] * 2}, "two of night"), ({"lists": {"A": {}}}, "a list's name"), ({"lists": {"a": {"of": "cats"}}}, "is of one of"),
        ({"lists": {"a": {"of": "country", "entries": ["XX"]}}}, "not a country"), ({"lists": {"a": {"of": "number", "entries": ["1.5"]}}}, "whole numbers"),
        ({"lists": {"a": {"entries": ["4111111111111111"]}}}, "card number"), ({"lists": {"a": {"entries": [""]}}}, "empty entry"),
        ({"lists": {"a": {"entries": [{"value": "x", "until_ms": "soon"}]}}}, "until_ms"), ({"lists": {"a": {"entries": "x"}}}, "are a list"),
        ({"lists": {"a": {"entries": ["x"] * 20_001}}}, "more than 20,000"),
        ({"rules": [{"id": f"r-{i}", "when": "true", "action": "BLOCK"} for i in range(201)]}, "more than 200 rules"),
    ],
)  # fmt: skip
def test_a_wrong_document_is_refused(wrong, message):
    with pytest.raises(RuleError, match=message):
        read_rule_set(wrong)


def test_a_text_with_the_hash_of_a_member_is_still_compared(monkeypatch):
    monkeypatch.setattr(engine, "hash_text", lambda text: np.zeros(len(text), np.uint64))

    assert not any(held("transaction.card_id in ['a']"))
    card = FACTS.columns.card_id.tolist()[0]
    assert held(f"transaction.card_id == '{card.decode()}'") == [c == card for c in FACTS.columns.card_id.tolist()]
