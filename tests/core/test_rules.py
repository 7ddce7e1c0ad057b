"""The rules' language and its limits, against a slow obvious twin that goes row by row."""

from __future__ import annotations

import contextlib
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.columns import ENTRY_MODES, unpack_code
from services.core.rules.rule_set import Entry, RuleInRuleSetError, RuleList
from services.core.rules.syntax import (
    DEPTH_MAX,
    NODES_MAX,
    Items,
    Name,
    Number,
    Operation,
    RuleError,
    String,
    TruthValue,
    parse,
)
from services.core.rules.vocabulary import VARIABLES, Facts, Kind
from tests.core.rules import N, engine_of, facts_of, held

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
    if isinstance(node, Number | String | TruthValue):
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
