"""The rules' language, its limits, and what rule sets decide; against a slow obvious twin that goes row by row."""

from __future__ import annotations

import contextlib
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.columns import ENTRY_MODES, unpack_code
from services.core.features import FEATURE_NAMES, FEATURES
from services.core.policy import Action
from services.core.rules import engine
from services.core.rules.engine import NOBODY, RuleEngine
from services.core.rules.rule_set import Entry, Mode, Rule, RuleInRuleSetError, RuleList, RuleSet, read_rule_set
from services.core.rules.syntax import (
    DEPTH_MAX,
    NODES_MAX,
    Items,
    Name,
    Number,
    Operation,
    RuleError,
    String,
    Truth,
    parse,
)
from services.core.rules.vocabulary import VARIABLES, Facts, Kind
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


# -- the slow obvious twin ----------------------------------------------------------------------------------------


def value_of(name: str, facts: Facts, row: int):
    variable = VARIABLES[name]
    if variable.texts is not None:
        return variable.texts(facts).tolist()[row].decode()
    number = float(variable.numbers(facts)[row])
    if math.isnan(number):
        return None
    if variable.kind in (Kind.COUNTRY, Kind.CURRENCY):
        return unpack_code(int(number))
    return ENTRY_MODES[int(number)] if variable.kind is Kind.ENTRY_MODE else number


def naive(node, facts: Facts, row: int):
    """Return a number, a truth, a text, or None for what is not known."""
    if isinstance(node, Number | String | Truth):
        return node.value
    if isinstance(node, Name):
        return value_of(node.value, facts, row)
    if isinstance(node, Items):
        return [naive(one, facts, row) for one in node.values]
    assert isinstance(node, Operation)
    values = [naive(one, facts, row) for one in node.operands]
    if node.name == "&&":
        return False if False in values else None if None in values else True
    if node.name == "||":
        return True if True in values else None if None in values else False
    if node.name == "has":
        return values[0] is not None
    if node.name == "?:":
        return None if values[0] is None else values[1] if values[0] else values[2]
    if node.name == "in":
        return None if values[0] is None else values[0] in values[1]
    if None in values:
        return None
    return applied(node.name, values)


def applied(name: str, values: list):
    a, b = values[0], values[-1]
    found = {
        "!": lambda: not a, "negate": lambda: -a, "==": lambda: a == b, "!=": lambda: a != b, "<": lambda: a < b,
        "<=": lambda: a <= b, ">": lambda: a > b, ">=": lambda: a >= b, "+": lambda: a + b, "-": lambda: a - b,
        "*": lambda: a * b, "/": lambda: a / b if b else None, "%": lambda: math.fmod(a, b) if b else None,
        "abs": lambda: abs(a), "min": lambda: min(a, b), "max": lambda: max(a, b),
        "startsWith": lambda: a.startswith(b), "endsWith": lambda: a.endswith(b),
    }  # fmt: skip
    return found[name]()


NUMBERS = st.sampled_from(
    [
        "0",
        "1",
        "2.5",
        "1e2",
        "transaction.amount",
        "score",
        "card.count_10m",
        "terminal.known_risk_7d",
        "transaction.hour",
    ]
)
CONDITIONS = st.sampled_from(
    [
        "true", "false", "transaction.entry_mode == 'ECOMMERCE'", "has(terminal.known_risk_7d)",
        "transaction.merchant_category_code in [5411, 6011]", "transaction.terminal_id.endsWith('1')",
        "transaction.country in ['BE', 'US']", "transaction.currency != 'EUR'", "transaction.card_id in ['card-1', 'card-000002']",
    ]
)  # fmt: skip


def numbers(depth: int):
    if depth == 0:
        return NUMBERS
    below = numbers(depth - 1)
    return st.one_of(
        NUMBERS,
        st.tuples(below, st.sampled_from("+-*/%"), below).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        below.map(lambda n: f"-{n}"),
        st.tuples(st.sampled_from(["min", "max"]), below, below).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
        below.map(lambda n: f"abs({n})"),
        st.tuples(conditions(depth - 1), below, below).map(lambda t: f"({t[0]} ? {t[1]} : {t[2]})"),
    )


def conditions(depth: int):
    if depth == 0:
        return CONDITIONS
    below = conditions(depth - 1)
    compared = st.tuples(numbers(depth - 1), st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), numbers(depth - 1))
    return st.one_of(
        CONDITIONS,
        compared.map(lambda t: f"{t[0]} {t[1]} {t[2]}"),
        below.map(lambda c: f"!({c})"),
        st.tuples(below, st.sampled_from(["&&", "||"]), below).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})"),
    )


@settings(max_examples=120, deadline=None)
@given(conditions(3), st.integers(0, 3))
def test_a_condition_holds_where_the_twin_says_so(condition, seed):
    facts = facts_of(seed, 40)
    tree = parse(condition)

    assert held(condition, facts) == [naive(tree, facts, row) is True for row in range(len(facts))], condition


@pytest.mark.parametrize(
    ("source", "same"),
    [
        ("1 + 2 * 3 == 7", "(1 + (2 * 3)) == 7"),
        ("true || false && false", "true || (false && false)"),
        ("!true || true", "(!true) || true"),
        ("1 - 2 - 3 == -4", "((1 - 2) - 3) == (-4)"),
        ("1 < 2 == true", "(1 < 2) == true"),
        ("false ? true : false ? true : true", "false ? true : (false ? true : true)"),
        ("- -1 == 1", "(-(-1)) == 1"),
    ],
)
def test_operators_bind_as_in_cel(source, same):
    def bare(node):
        if isinstance(node, Operation):
            return (node.name, *map(bare, node.operands))
        return node.value

    assert bare(parse(source)) == bare(parse(same))


UNKNOWN = "(transaction.amount / 0 > 1)"


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (UNKNOWN, False), (f"!{UNKNOWN}", False), (f"{UNKNOWN} || true", True), (f"true || {UNKNOWN}", True),
        (f"{UNKNOWN} || false", False), (f"!(false || {UNKNOWN})", False), (f"!({UNKNOWN} && false)", True),
        (f"!(false && {UNKNOWN})", True), (f"!({UNKNOWN} && true)", False), (f"!(true && {UNKNOWN})", False),
        (f"{UNKNOWN} ? true : true", False), (f"true ? true : {UNKNOWN}", True), ("!(1 % 0 == 0)", False),
    ],
)  # fmt: skip
def test_what_is_not_known_decides_nothing(condition, holds):
    assert set(held(condition)) == {holds}


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "message", "hint"),
    [
        ("transaction.amonut > 5", "nothing called transaction.amonut", "did you mean transaction.amount?"),
        ("transaction.amount", "a condition is yes or no, this is a number", "compare it"),
        ("transaction.amount = 5", "does not belong here", "write =="),
        ("score > 1 and true", "'and' does not belong here", "write &&"),
        ("not true", "does not belong here", ""),
        ("score >", "ends too early", ""),
        ("(score > 1", "')' is missing", ""),
        ("score > 'x'", "compared with == or !=", ""),
        ("transaction.country == 'XX'", "'XX' is not a country", ""),
        ("transaction.currency == 'EURO'", "is not a currency", ""),
        ("transaction.entry_mode == 'chip'", "is not an entry mode", ""),
        ("transaction.country == transaction.currency", "cannot compare a country with a currency", ""),
        ("transaction.merchant_id > 'a'", "compared with == or !=", ""),
        ("transaction.merchant_id == transaction.card_id", "is a text", "compare it with"),
        ("transaction.merchant_id in [1, 'a']", "so is all that it is compared with", ""),
        ("score in []", "after in comes", ""),
        ("score in lists.none", "there is no list lists.none", ""),
        ("transaction.terminal_id in lists.lands", "lists.lands holds a country", ""),
        ("transaction.merchant_id.matches('(a+)+$')", "there is no function matches", "regular expressions are left out"),
        ("size(transaction.merchant_id) > 3", "there is no function size", ""),
        ("has(1)", "has takes a name", ""),
        ("min(1) > 0", "min takes 2", ""),
        ("true && 1", "&& takes yes or no, this is a number", "write == 1"),
        ("true + true == 2", "+ takes a number", ""),
        ("score > 1 ? 1 : true", "both sides of :", ""),
        ("transaction.__class__ == 1", "nothing called", ""),
        ("transaction.amount.real.imag.conjugate.__self__ > 1", "after a dot", ""),
        ("__import__('os')", "there is no function", ""),
        ("'a\\'b' == 'c'", "does not belong here", "no backslash"),
        ("transaction.merchant_id.startsWith('')", "takes a text", ""),
        ("1.2.3 > 1", "does not belong here", ""),
        ("score > 1;", "does not belong here", ""),
        ("", "ends too early", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_place_and_a_hint(condition, message, hint):
    lands = RuleList("lands", Kind.COUNTRY, (Entry("BE"),))

    with pytest.raises(RuleInRuleSetError) as caught:
        engine_of(condition, lists=(lands,))

    assert message in str(caught.value)
    assert hint in caught.value.hint
    assert 0 <= caught.value.at <= len(condition)
    assert str(caught.value).startswith("rule rule-0: ")


@pytest.mark.parametrize(
    "hostile",
    [
        "(" * 5_000 + "true" + ")" * 5_000, "(" * 900 + "true" + ")" * 900, "!" * 1_500 + "true", "-" * 1_500 + "1 > 0",
        "true" + " && true" * 240, "1" * 400 + " > 1", "1e999 > 1", "score > " + "9" * 17, "transaction.merchant_id == '" + "x" * 500 + "'",
        "score in [" + ", ".join("1" * 150) + "]", "true ? " * 200 + "true" + " : true" * 200, "x" * 100_000, "a." * 900 + "b",
        "\x00", "\ud800", "score > 1 \n\n\n &&", "min(" * 300 + "1" + ")" * 300, "[[[[[1]]]]] == 1", "score in [[1]]", "lists.a.b in lists.c",
    ],
)  # fmt: skip
def test_hostile_expressions_are_refused_at_once(hostile):
    begin_s = time.perf_counter()
    with pytest.raises(RuleError):
        engine_of(hostile)
    assert time.perf_counter() - begin_s < 1.0


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(RuleError):
        engine_of(text)


def test_limits_are_where_they_say():
    deep = "(" * (DEPTH_MAX - 1) + "true" + ")" * (DEPTH_MAX - 1)
    assert held(deep) == [True] * N
    with pytest.raises(RuleError, match=f"nested more than {DEPTH_MAX} deep"):
        parse(f"({deep})")
    many = "true" + " || true" * ((NODES_MAX - 1) // 2)
    parse(many)
    with pytest.raises(RuleError, match=f"more than {NODES_MAX} parts"):
        parse(many + " || true")


# -- what is decided ----------------------------------------------------------------------------------------------


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
