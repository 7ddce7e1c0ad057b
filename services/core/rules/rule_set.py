"""A rule set: what analysts write down, checked as a whole before anybody runs it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from services.core.masking import text_holds_card_number
from services.core.policy import Action
from services.core.rules.program import Compiler, RuleProgram
from services.core.rules.syntax import RuleError, parse
from services.core.rules.vocabulary import CODES, Kind

RULES_MAX: Final = 200
LISTS_MAX: Final = 50
ENTRIES_MAX: Final = 20_000
"""Of all lists together."""
ENTRY_CHARS_MAX: Final = 100
REASON_CHARS_MAX: Final = 200
PRIORITY_MAX: Final = 1_000
PERCENT: Final = 100
_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_LIST_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_LIST_KINDS: Final = {"text": Kind.TEXT, "number": Kind.NUMBER, "country": Kind.COUNTRY, "currency": Kind.CURRENCY}


class Mode(IntEnum):
    """What a rule may do; in the order of the Avro enum."""

    LIVE = 0
    SHADOW = 1
    """It only records that it would have acted."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition, and what is to be done where it holds."""

    rule_id: str
    when: str
    action: Action
    priority: int = 0
    """The highest that holds decides; among equals an allowing one comes first, then the most severe."""
    mode: Mode = Mode.LIVE
    percentage: int = PERCENT
    """Of the cards on which it acts, always the same ones; on the others it only records."""
    reason: str = ""
    """What people read of it."""
    no_control: bool = False
    """Where it holds nothing is let through for the control group."""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.rule_id):
            raise RuleError(f"a rule's id is small letters, digits and -, at most 64: {self.rule_id!r}")
        if not -PRIORITY_MAX <= self.priority <= PRIORITY_MAX:
            raise RuleError(f"a priority is between -{PRIORITY_MAX} and {PRIORITY_MAX}: {self.priority}")
        if not 0 <= self.percentage <= PERCENT:
            raise RuleError(f"a percentage is between 0 and 100: {self.percentage}")
        _check_words(self.reason, REASON_CHARS_MAX)


@dataclass(frozen=True, slots=True)
class Entry:
    """A member of a list, until a moment of event time or for ever."""

    value: str
    until_ms: int | None = None

    def __post_init__(self) -> None:
        if not self.value:
            raise RuleError("a list has an empty entry")
        _check_words(self.value, ENTRY_CHARS_MAX)


@dataclass(frozen=True, slots=True)
class RuleList:
    """A list that rules look into."""

    name: str
    kind: Kind
    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        if not _LIST_NAME.fullmatch(self.name):
            raise RuleError(f"a list's name is small letters, digits and _, at most 64: {self.name!r}")
        for entry in self.entries:
            number_of(entry.value, self.kind)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Rules and lists that go live together."""

    rules: tuple[Rule, ...]
    lists: tuple[RuleList, ...] = ()
    program: RuleProgram = field(init=False, repr=False, compare=False)
    """Of all conditions, in the order of the rules."""

    def __post_init__(self) -> None:
        if len(self.rules) > RULES_MAX or len(self.lists) > LISTS_MAX:
            raise RuleError(f"more than {RULES_MAX} rules or {LISTS_MAX} lists")
        if sum(len(one.entries) for one in self.lists) > ENTRIES_MAX:
            raise RuleError(f"the lists have more than {ENTRIES_MAX:,} entries")
        for names in ([rule.rule_id for rule in self.rules], [one.name for one in self.lists]):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise RuleError(f"there are two of {', '.join(twice)}")
        object.__setattr__(self, "program", self._compiled())

    def _compiled(self) -> RuleProgram:
        """Return the program of all conditions. Raises RuleError, with the rule's id in the message."""
        compiler = Compiler({one.name: one.kind for one in self.lists})
        for rule in self.rules:
            try:
                compiler.add(parse(rule.when))
            except RuleError as error:
                raise RuleInRuleSetError(rule, error) from None
        return compiler.program()


class RuleInRuleSetError(RuleError):
    """A rule of a rule set is refused; says where in its text."""

    def __init__(self, rule: Rule, error: RuleError) -> None:
        super().__init__(f"rule {rule.rule_id}: {error.message}", error.at, error.hint)
        self.rule = rule


def number_of(value: str, kind: Kind) -> int:
    """Return what an entry of a list is compared as; 0 for a text, which is compared as such. Raises RuleError."""
    if kind is Kind.TEXT:
        return 0
    if kind is Kind.NUMBER:
        if not re.fullmatch(r"-?\d{1,15}", value):
            raise RuleError(f"a list of numbers holds whole numbers: {value!r}")
        return int(value)
    code = CODES[kind](value)
    if code is None:
        raise RuleError(f"{value!r} is not {kind.value}")
    return code


def _check_words(text: str, most: int) -> None:
    if len(text) > most:
        raise RuleError(f"a text has {len(text)} characters, more than {most}")
    if text_holds_card_number(text):
        raise RuleError("a text looks like a card number: write the card's token")


def read_rule_set(document: Any) -> RuleSet:
    """Return the rule set of a document, as YAML or JSON give it. Raises RuleError."""
    whole = _mapping(document, "a rule set", {"rules", "lists"})
    rules = whole.get("rules", [])
    if not isinstance(rules, Sequence) or isinstance(rules, str):
        raise RuleError("rules is a list of rules")
    lists = _mapping(whole.get("lists") or {}, "lists", None)
    return RuleSet(tuple(map(_read_rule, rules)), tuple(_read_list(str(name), one) for name, one in lists.items()))


def _mapping(value: Any, what: str, known: set[str] | None) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RuleError(f"{what} is written as name: value")
    unknown = sorted(str(name) for name in value if known is not None and name not in known)
    if unknown:
        raise RuleError(f"{what} has no {', '.join(unknown)}", hint=f"it has {', '.join(sorted(known or ()))}")
    return value


_GIVEN: Final = ("id", "when", "action", "priority", "mode", "percentage", "reason")


def _read_rule(document: Any) -> Rule:
    given = _mapping(document, "a rule", {*_GIVEN, "no_control"})
    missing = [name for name in ("id", "when", "action") if not isinstance(given.get(name), str)]
    if missing:
        raise RuleError(f"rule {given.get('id', '?')}: {missing[0]} is missing, or no text")
    rule_id, action, mode = given["id"], given["action"], str(given.get("mode", "live")).upper()
    if action not in Action.__members__:
        raise RuleError(f"rule {rule_id}: an action is one of {', '.join(Action.__members__)}: {action!r}")
    if mode not in Mode.__members__:
        raise RuleError(f"rule {rule_id}: a mode is live or shadow: {mode.lower()!r}")
    numbers = {name: given.get(name, default) for name, default in (("priority", 0), ("percentage", PERCENT))}
    for name, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise RuleError(f"rule {rule_id}: {name} is a whole number")
    no_control = given.get("no_control", False)
    if not isinstance(no_control, bool):
        raise RuleError(f"rule {rule_id}: no_control is true or false")
    reason = str(given.get("reason", ""))
    return Rule(
        rule_id, given["when"], Action[action], mode=Mode[mode], reason=reason, no_control=no_control, **numbers
    )


def _read_list(name: str, document: Any) -> RuleList:
    given = _mapping(document, f"list {name}", {"of", "entries"})
    kind = kind_of(str(given.get("of", "text")))
    entries = given.get("entries") or []
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise RuleError(f"the entries of list {name} are a list")
    return RuleList(name, kind, tuple(_read_entry(name, one) for one in entries))


def _read_entry(name: str, document: Any) -> Entry:
    if not isinstance(document, Mapping):
        return Entry(str(document))
    given = _mapping(document, f"an entry of list {name}", {"value", "until_ms"})
    until_ms = given.get("until_ms")
    if until_ms is not None and (not isinstance(until_ms, int) or isinstance(until_ms, bool)):
        raise RuleError(f"list {name}: until_ms is a whole number, the milliseconds since 1970")
    return Entry(str(given.get("value", "")), until_ms)


def kind_of(name: str) -> Kind:
    """Return the kind of a list that a document calls so. Raises RuleError."""
    if name not in _LIST_KINDS:
        raise RuleError(f"a list is of one of {', '.join(_LIST_KINDS)}: {name!r}")
    return _LIST_KINDS[name]


def kind_name(kind: Kind) -> str:
    """Return what a document calls the kind of a list."""
    return next(name for name, one in _LIST_KINDS.items() if one is kind)


def order_of(rules: Sequence[Rule]) -> list[int]:
    """Return the rules in the order in which they are asked: priority, then allowing ones, then the most severe."""
    return sorted(
        range(len(rules)),
        key=lambda i: (-rules[i].priority, rules[i].action is not Action.APPROVE, -rules[i].action, rules[i].rule_id),
    )
