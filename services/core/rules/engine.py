"""A rule set at work: which rules hold for which transactions of a batch, and what becomes of the model's word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from services.core.columns import Text, type_bool, type_f64, type_i64, type_u64
from services.core.kernels import hash_text
from services.core.policy import Action
from services.core.rules.machine import run
from services.core.rules.program import TextTest
from services.core.rules.rule_set import PERCENT, Mode, RuleList, RuleSet, number_of, order_of
from services.core.rules.vocabulary import VARIABLES, Facts, Kind

NOBODY: Final = -1
EFFECTS: Final = ("DECIDED", "ACTED", "RECORDED")
"""What became of a rule that held: its word counted, another came before it, or it only records."""
_FOREVER_MS: Final = 2**62
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Hits:
    """What rules say of n transactions."""

    held: type_bool
    """(rules, n): the condition holds."""
    acting: type_bool
    """(rules, n): it holds, and the rule may act."""
    winner: type_i64
    """(n,) the rule that decides, or NOBODY."""

    def effects(self) -> dict[str, int]:
        """Return on how many transactions rules had each of EFFECTS."""
        decided, acted, held = int((self.winner != NOBODY).sum()), int(self.acting.sum()), int(self.held.sum())
        return {"DECIDED": decided, "ACTED": acted - decided, "RECORDED": held - acted}

    def of_row(self, row: int) -> list[tuple[int, str]]:
        """Return the rules that held for one transaction, each with its effect."""
        return [
            (i, EFFECTS[0] if i == self.winner[row] else EFFECTS[1] if self.acting[i, row] else EFFECTS[2])
            for i in np.flatnonzero(self.held[:, row]).tolist()
        ]

    def patterns(self) -> tuple[type_i64, type_i64]:
        """Return the rows with a rule that held, one of each kind, and for every row the kind it is of; -1 where none held."""
        rows = np.flatnonzero(self.held.any(axis=0))
        said = np.concatenate([self.held[:, rows], self.acting[:, rows]]).T
        packed = np.concatenate(
            [np.packbits(said, axis=1), self.winner[rows, None].astype("<i8").view(np.uint8)], axis=1
        )
        _, first, inverse = np.unique(packed, axis=0, return_index=True, return_inverse=True)
        kind = np.full(self.held.shape[1], -1, np.int64)
        kind[rows] = inverse.reshape(-1)
        return rows[first], kind


@dataclass(frozen=True, slots=True)
class _Members:
    """A list or some literals, sorted by what they are compared as."""

    keys: type_u64 | type_i64
    values: tuple[bytes, ...]
    until_ms: type_i64


class RuleEngine:
    """Runs one rule set; holds what is computed once for it."""

    def __init__(self, rule_set: RuleSet) -> None:
        self.rule_set = rule_set
        self._program = rule_set.program
        self._lists = {one.name: _members(one) for one in rule_set.lists}
        self._literals = {test: _literals(test) for test in self._program.tests if test.test in ("equals", "in")}
        self._order = np.array(order_of(rule_set.rules), np.int64)
        self._actions = np.array([rule.action for rule in rule_set.rules], np.int64)
        self._may_act = np.array([rule.mode is Mode.LIVE for rule in rule_set.rules], bool)
        self._percentages = np.array([rule.percentage for rule in rule_set.rules], np.int64)
        self._no_control = np.array([rule.no_control for rule in rule_set.rules], bool)
        self._salts = hash_text(Text.of([rule.rule_id.encode() for rule in rule_set.rules]))

    def asks(self, variable: str) -> bool:
        """Whether a condition names a variable that is a number."""
        return any(one is VARIABLES[variable] for one in self._program.inputs)

    def hits(self, facts: Facts) -> Hits:
        """Return what the rules say of a batch."""
        n, program = len(facts), self._program
        held = np.zeros((len(self.rule_set.rules), n), bool)
        inputs, tests = np.empty((len(program.inputs), n)), np.empty((len(program.tests), n), bool)
        for at, variable in enumerate(program.inputs):
            assert variable.numbers is not None
            inputs[at] = variable.numbers(facts)
        for at, test in enumerate(program.tests):
            tests[at] = self._tested(test, facts)
        run((program.code, program.constants, program.results), inputs, tests, held)
        acting = held & self._may_act[:, None]
        partial = np.flatnonzero((self._percentages < PERCENT) & acting.any(axis=1))
        if len(partial):
            acting[partial] &= self._rolled_out(facts.columns.card_id, partial)
        return Hits(held, acting, self._winner(acting))

    def actions(self, before: type_i64, hits: Hits) -> type_i64:
        """Return what is done: an allowing rule approves, another one makes the action at least as severe as its own."""
        decided = hits.winner != NOBODY
        if not decided.any():
            return before
        said = self._actions[hits.winner]
        return np.where(decided, np.where(said == Action.APPROVE, said, np.maximum(said, before)), before)

    def forbid_control(self, hits: Hits) -> type_bool:
        """Return (n,) where a rule held that lets nothing through for the control group, whether it acted or not."""
        if not self._no_control.any():
            return np.zeros(hits.held.shape[1], bool)
        forbidden: type_bool = hits.held[self._no_control].any(axis=0)
        return forbidden

    def _winner(self, acting: type_bool) -> type_i64:
        if not acting.any():
            return np.full(acting.shape[1], NOBODY, np.int64)
        ordered = acting[self._order]
        return np.where(ordered.any(axis=0), self._order[np.argmax(ordered, axis=0)], NOBODY)

    def _rolled_out(self, cards: Text, rules: type_i64) -> type_bool:
        """Return on which cards each rule acts: by card and rule, so always on the same cards, on others for another rule."""
        mixed = (hash_text(cards)[None, :] ^ self._salts[rules][:, None]) * _MIX
        return ((mixed >> np.uint64(33)) % np.uint64(PERCENT)).astype(np.int64) < self._percentages[rules][:, None]

    def _tested(self, test: TextTest, facts: Facts) -> type_bool:
        variable = VARIABLES[test.variable]
        if test.test == "list":
            members = self._lists[test.values[0]]
            if variable.kind is not Kind.TEXT:
                assert variable.numbers is not None
                return _found(_whole(variable.numbers(facts)), None, members, facts)
        assert variable.texts is not None
        text = variable.texts(facts)
        if test.test in ("starts", "ends"):
            return _affix(text, test.values[0].encode(), at_end=test.test == "ends")
        members = self._lists[test.values[0]] if test.test == "list" else self._literals[test]
        return _found(hash_text(text), text, members, facts)


def _whole(values: type_f64) -> type_i64:
    """Return whole numbers, and where a value is none or missing a number that no list holds."""
    return np.where(values == np.rint(values), values, -_FOREVER_MS).astype(np.int64)


def _members(one: RuleList) -> _Members:
    values = [entry.value.encode() for entry in one.entries]
    keys = hash_text(Text.of(values))
    numbers = np.array([number_of(entry.value, one.kind) for entry in one.entries], np.int64)
    until_ms = np.array([_FOREVER_MS if e.until_ms is None else e.until_ms for e in one.entries], np.int64)
    return _sorted(keys if one.kind is Kind.TEXT else numbers, values, until_ms)


def _literals(test: TextTest) -> _Members:
    values = [value.encode() for value in test.values]
    return _sorted(hash_text(Text.of(values)), values, np.full(len(values), _FOREVER_MS, np.int64))


def _sorted(keys: type_u64 | type_i64, values: list[bytes], until_ms: type_i64) -> _Members:
    """Sort, and of two equal members keep the one that stays longer."""
    order = np.lexsort((-until_ms, keys))
    kept = order[np.concatenate([[True], np.diff(keys[order].astype(np.uint64)) != 0])] if len(order) else order
    return _Members(keys[kept], tuple(values[i] for i in kept.tolist()), until_ms[kept])


def _found(keys: type_u64 | type_i64, text: Text | None, members: _Members, facts: Facts) -> type_bool:
    """Return which rows are members at their event time; a text that has a member's hash is compared with it byte by byte."""
    if not len(members.keys):
        return np.zeros(len(keys), bool)
    at = np.minimum(np.searchsorted(members.keys, keys), len(members.keys) - 1)
    found = (members.keys[at] == keys) & (facts.columns.event_time_ms < members.until_ms[at])
    if text is not None and found.any():
        rows = np.flatnonzero(found)
        same = [a == members.values[b] for a, b in zip(text.take(rows).tolist(), at[rows].tolist(), strict=True)]
        found[rows] = same
    return found


def _affix(text: Text, affix: bytes, *, at_end: bool) -> type_bool:
    """Return which rows begin or end with some bytes."""
    found = text.length >= len(affix)
    first = text.start + (text.length - len(affix) if at_end else 0)
    for i, byte in enumerate(affix):
        rows = np.flatnonzero(found)
        found[rows] = text.buffer[first[rows] + i] == byte
    return found
