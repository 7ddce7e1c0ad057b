"""From the text of an expression to a tree: a subset of the Common Expression Language (CEL), with limits on everything.

Left out of CEL on purpose: regular expressions, macros that loop, string building, field walks into what was not declared. What is here
takes a time that is linear in the length of the text, and a row's evaluation a time that is linear in the tree.

Source of grammar and precedence: the CEL specification, ``doc/langdef.md``, section "Syntax".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

SOURCE_CHARS_MAX: Final = 2_000
DEPTH_MAX: Final = 24
NODES_MAX: Final = 200
LITERAL_CHARS_MAX: Final = 100
NUMBER_CHARS_MAX: Final = 16
NUMBER_MAX: Final = 1e15
LIST_ITEMS_MAX: Final = 100


class RuleError(Exception):
    """An expression or rule set is refused. The message says why, ``at`` where in the text, ``hint`` what may help."""

    def __init__(self, message: str, at: int = 0, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.at, self.hint = message, at, hint


@dataclass(frozen=True, slots=True)
class Number:
    """A number."""

    value: float
    at: int


@dataclass(frozen=True, slots=True)
class String:
    """A text in quotes."""

    value: str
    at: int


@dataclass(frozen=True, slots=True)
class TruthValue:
    """``true`` or ``false``."""

    value: bool
    at: int


@dataclass(frozen=True, slots=True)
class Name:
    """Something that is named, with dots: ``transaction.amount``."""

    value: str
    at: int


@dataclass(frozen=True, slots=True)
class Items:
    """A list of literals in brackets."""

    values: tuple[Node, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator, a function or a method with its operands; the target of a method is the first."""

    name: str
    operands: tuple[Node, ...]
    at: int


Node = Number | String | TruthValue | Name | Items | Operation

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+)
    |(?P<number>(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,3})?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<string>"[^"\\\n]*"|'[^'\\\n]*')
    |(?P<sign>&&|\|\||[=!<>]=|[-+*/%!<>?:.,()\[\]])""",
    re.VERBOSE,
)
_BINARY: Final = {
    "||": 1, "&&": 2,
    "==": 3, "!=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3, "in": 3,
    "+": 4, "-": 4, "*": 5, "/": 5, "%": 5,
}  # fmt: skip
"""How tightly each operator binds; all are read from the left."""
_INSTEAD: Final = {
    "and": "&&", "or": "||", "not": "!", "&": "&&", "|": "||", "=": "==", "<>": "!=", "AND": "&&", "OR": "||", "NOT": "!",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def _tokens(source: str) -> list[_Token]:
    if len(source) > SOURCE_CHARS_MAX:
        raise RuleError(
            f"the expression has {len(source):,} characters, more than {SOURCE_CHARS_MAX:,}", SOURCE_CHARS_MAX
        )
    found, at = [], 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            instead = _INSTEAD.get(source[at])
            hint = f"write {instead}" if instead else ""
            if source[at] in "\"'":
                hint = "a text ends with the quote that it began with, and has no backslash in it"
            raise RuleError(f"{source[at]!r} does not belong here", at, hint)
        kind, text = str(match.lastgroup), match.group()
        if kind == "number" and len(text) > NUMBER_CHARS_MAX:
            raise RuleError(f"a number has {len(text)} characters, more than {NUMBER_CHARS_MAX}", at)
        if kind == "string" and len(text) - 2 > LITERAL_CHARS_MAX:
            raise RuleError(f"a text has {len(text) - 2} characters, more than {LITERAL_CHARS_MAX}", at)
        if kind != "space":
            found.append(_Token(kind, text, at))
        at = match.end()
    return [*found, _Token("end", "", len(source))]


class _Parser:
    def __init__(self, source: str) -> None:
        self._tokens, self._at = _tokens(source), 0
        self._depth = self._nodes = 0

    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._tokens[self._at]
        self._at += token.kind != "end"
        return token

    def _is(self, text: str) -> bool:
        token = self._peek()
        return token.kind in ("sign", "name") and token.text == text

    def _expect(self, text: str) -> None:
        token = self._take()
        if token.kind == "string" or token.text != text:
            raise RuleError(f"{text!r} is missing before {token.text or 'the end'!r}", token.at)

    def _count(self, at: int) -> None:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise RuleError(f"the expression has more than {NODES_MAX} parts", at)

    def whole(self) -> Node:
        found = self.conditional()
        rest = self._peek()
        if rest.kind != "end":
            instead = _INSTEAD.get(rest.text)
            raise RuleError(
                f"{rest.text!r} does not belong here",
                rest.at,
                f"write {instead}" if instead else "is an operator missing?",
            )
        return found

    def conditional(self) -> Node:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise RuleError(f"the expression is nested more than {DEPTH_MAX} deep", self._peek().at)
        found = self.binary(1)
        if self._is("?"):
            at = self._take().at
            yes = self.conditional()
            self._expect(":")
            found = self._made("?:", (found, yes, self.conditional()), at)
        self._depth -= 1
        return found

    def _made(self, name: str, operands: tuple[Node, ...], at: int) -> Node:
        self._count(at)
        return Operation(name, operands, at)

    def binary(self, least: int) -> Node:
        left = self.unary()
        while True:
            token = self._peek()
            binds = _BINARY.get(token.text, 0) if token.kind in ("sign", "name") else 0
            if binds < least or not binds:
                return left
            self._take()
            left = self._made(token.text, (left, self.binary(binds + 1)), token.at)

    def unary(self) -> Node:
        signs = []
        while self._is("!") or self._is("-"):
            signs.append(self._take())
            if len(signs) > DEPTH_MAX:
                raise RuleError(f"the expression is nested more than {DEPTH_MAX} deep", signs[-1].at)
        found = self.primary()
        for token in reversed(signs):
            found = self._made("!" if token.text == "!" else "negate", (found,), token.at)
        return found

    def primary(self) -> Node:
        token = self._take()
        self._count(token.at)
        if token.kind == "number":
            if float(token.text) > NUMBER_MAX:
                raise RuleError(f"a number is larger than {NUMBER_MAX:g}", token.at)
            return Number(float(token.text), token.at)
        if token.kind == "string":
            return String(token.text[1:-1], token.at)
        if token.kind == "name":
            return self._named(token)
        if token.text == "(":
            found = self.conditional()
            self._expect(")")
            return found
        if token.text == "[":
            return Items(self._arguments("]", LIST_ITEMS_MAX), token.at)
        if token.kind == "end":
            raise RuleError("the expression ends too early", token.at)
        raise RuleError(
            f"{token.text!r} does not belong here",
            token.at,
            f"write {_INSTEAD[token.text]}" if token.text in _INSTEAD else "",
        )

    def _named(self, token: _Token) -> Node:
        if token.text in ("true", "false"):
            return TruthValue(token.text == "true", token.at)
        parts = [token.text]
        while True:
            if self._is("("):
                self._take()
                operands = self._arguments(")", 4)
                if len(parts) == 1:
                    return Operation(parts[0], operands, token.at)
                return Operation(parts[-1], (Name(".".join(parts[:-1]), token.at), *operands), token.at)
            if not self._is("."):
                return Name(".".join(parts), token.at)
            self._take()
            part = self._take()
            if part.kind != "name" or len(parts) > 3:
                raise RuleError("after a dot comes a name, and few of them", part.at)
            parts.append(part.text)

    def _arguments(self, end: str, most: int) -> tuple[Node, ...]:
        found: list[Node] = []
        while not self._is(end):
            if found:
                self._expect(",")
            found.append(self.conditional())
            if len(found) > most:
                raise RuleError(f"more than {most} items", self._peek().at, "use a list of the rule set: lists.NAME")
        self._take()
        return tuple(found)


def parse(source: str) -> Node:
    """Return the tree of an expression. Raises RuleError."""
    return _Parser(source).whole()
