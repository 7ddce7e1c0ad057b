"""From checked trees to one program: instructions that each write one register, equal parts written once for a whole rule set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final

import numpy as np

from services.core.columns import type_f64, type_i64
from services.core.rules.machine import OPCODES
from services.core.rules.syntax import Items, Name, Node, Number, Operation, RuleError, String, TruthValue
from services.core.rules.vocabulary import CODES, VARIABLES, Kind, Variable

INSTRUCTIONS_MAX: Final = 8_000
_COMPARED: Final = {"==": "equal", "!=": "unequal", "<": "less", "<=": "at_most", ">": "more", ">=": "at_least"}
_COMPUTED: Final = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide", "%": "remainder"}
_METHODS: Final = {"startsWith": "starts", "endsWith": "ends"}
_FUNCTIONS: Final = {"has": 1, "abs": 1, "min": 2, "max": 2}
_LISTS: Final = "lists."


@dataclass(frozen=True, slots=True)
class TextTest:
    """A question about a text or about membership of a list, answered by columns before the program runs."""

    variable: str
    test: str
    """equals, in, starts, ends, or list."""
    values: tuple[str, ...]
    """What the text is compared with; of ``list``, the list's name."""


@dataclass(frozen=True, slots=True)
class RuleProgram:
    """A rule set's program."""

    code: type_i64
    """(instructions, 4): operation and up to three operands; instruction i writes register i."""
    constants: type_f64
    inputs: tuple[Variable, ...]
    tests: tuple[TextTest, ...]
    results: type_i64
    """(rules,) the register that holds each rule's answer."""


@dataclass(slots=True)
class Compiler:
    """Collects the conditions of a rule set; ``lists`` are the kinds of its lists."""

    lists: Mapping[str, Kind]
    _code: list[tuple[int, int, int, int]] = field(default_factory=list)
    _written: dict[tuple[int, int, int, int], int] = field(default_factory=dict)
    _constants: list[float] = field(default_factory=list)
    _inputs: dict[str, int] = field(default_factory=dict)
    _tests: dict[TextTest, int] = field(default_factory=dict)
    _results: list[int] = field(default_factory=list)

    def add(self, tree: Node) -> None:
        """Add a rule's condition. Raises RuleError."""
        kind, register = self._compile(tree)
        if kind is not Kind.BOOLEAN:
            raise RuleError(f"a condition is yes or no, this is {kind.value}", tree.at, "compare it, as in ... > 0")
        self._results.append(register)

    def program(self) -> RuleProgram:
        """Return the program of what was added."""
        return RuleProgram(
            np.array(self._code, np.int64).reshape(-1, 4), np.array(self._constants),
            tuple(VARIABLES[name] for name in self._inputs), tuple(self._tests), np.array(self._results, np.int64),
        )  # fmt: skip

    # -- instructions ---------------------------------------------------------------------------------------------

    def _write(self, operation: str, a: int = 0, b: int = 0, c: int = 0) -> int:
        instruction = (OPCODES[operation], a, b, c)
        if instruction not in self._written:
            if len(self._code) >= INSTRUCTIONS_MAX:
                raise RuleError(f"the rule set needs more than {INSTRUCTIONS_MAX:,} instructions")
            self._written[instruction] = len(self._code)
            self._code.append(instruction)
        return self._written[instruction]

    def _constant(self, value: float) -> int:
        if value not in self._constants:
            self._constants.append(value)
        return self._write("constant", self._constants.index(value))

    def _test(self, test: TextTest) -> int:
        return self._write("test", self._tests.setdefault(test, len(self._tests)))

    # -- trees ----------------------------------------------------------------------------------------------------

    def _compile(self, node: Node) -> tuple[Kind, int]:
        if isinstance(node, Number):
            return Kind.NUMBER, self._constant(node.value)
        if isinstance(node, TruthValue):
            return Kind.BOOLEAN, self._constant(float(node.value))
        if isinstance(node, Name):
            variable = _variable(node)
            if variable.kind is Kind.TEXT:
                raise RuleError(f"{node.value} is a text", node.at, "compare it with == or != to a text, or use in")
            return variable.kind, self._write("load", self._inputs.setdefault(node.value, len(self._inputs)))
        if isinstance(node, Operation):
            return self._operation(node)
        raise RuleError("a text or a list stands alone", node.at, "compare something with it")

    def _operation(self, node: Operation) -> tuple[Kind, int]:
        name = node.name
        if name in ("&&", "||"):
            a, b = (self._of(one, Kind.BOOLEAN, name) for one in node.operands)
            return Kind.BOOLEAN, self._write("both" if name == "&&" else "either", a, b)
        if name == "!":
            return Kind.BOOLEAN, self._write("opposite", self._of(node.operands[0], Kind.BOOLEAN, name))
        if name == "negate":
            return Kind.NUMBER, self._write("negate", self._of(node.operands[0], Kind.NUMBER, "-"))
        if name in _COMPUTED:
            a, b = (self._of(one, Kind.NUMBER, name) for one in node.operands)
            return Kind.NUMBER, self._write(_COMPUTED[name], a, b)
        if name in _COMPARED:
            return Kind.BOOLEAN, self._comparison(node)
        if name == "in":
            return Kind.BOOLEAN, self._membership(node)
        if name == "?:":
            return self._choice(node)
        return self._call(node)

    def _of(self, node: Node, kind: Kind, operator: str) -> int:
        found, register = self._compile(node)
        if found is not kind:
            hint = "write == 1" if found is Kind.NUMBER and kind is Kind.BOOLEAN else ""
            raise RuleError(f"{operator} takes {kind.value}, this is {found.value}", node.at, hint)
        return register

    def _comparison(self, node: Operation) -> int:
        left, right = node.operands
        if isinstance(left, String):
            left, right = right, left
        if isinstance(right, String):
            return self._with_text(node, left, right)
        kind, a = self._compile(left)
        other, b = self._compile(right)
        if kind is not other or (kind is not Kind.NUMBER and node.name not in ("==", "!=")):
            raise RuleError(f"{node.name} cannot compare {kind.value} with {other.value}", node.at)
        return self._write(_COMPARED[node.name], a, b)

    def _with_text(self, node: Operation, left: Node, right: String) -> int:
        if not isinstance(left, Name) or node.name not in ("==", "!="):
            raise RuleError("a text is compared with == or != to something that is named", node.at)
        variable = _variable(left)
        if variable.kind is Kind.TEXT:
            register = self._test(TextTest(left.value, "equals", (right.value,)))
        else:
            _, a = self._compile(left)
            register = self._write("equal", a, self._constant(_code(variable, right)))
        return register if node.name == "==" else self._write("opposite", register)

    def _membership(self, node: Operation) -> int:
        left, right = node.operands
        if isinstance(right, Name):
            return self._in_list(left, right)
        if not isinstance(right, Items) or not right.values:
            raise RuleError("after in comes [a, b, ...] or lists.NAME", node.at)
        if isinstance(left, Name) and _variable(left).kind is Kind.TEXT:
            texts = tuple(one.value for one in right.values if isinstance(one, String))
            if len(texts) < len(right.values):
                raise RuleError(f"{left.value} is a text, and so is all that it is compared with", right.at)
            return self._test(TextTest(left.value, "in", texts))
        kind, a = self._compile(left)
        register: int | None = None
        for one in right.values:
            if isinstance(one, String) and isinstance(left, Name):
                value = _code(_variable(left), one)
            elif isinstance(one, Number) and kind is Kind.NUMBER:
                value = one.value
            else:
                raise RuleError(f"the list holds something else than {kind.value}", one.at)
            same = self._write("equal", a, self._constant(value))
            register = same if register is None else self._write("either", register, same)
        assert register is not None
        return register

    def _in_list(self, left: Node, right: Name) -> int:
        name = right.value.removeprefix(_LISTS)
        if not right.value.startswith(_LISTS) or name not in self.lists:
            known = [_LISTS + one for one in self.lists]
            raise RuleError(f"there is no list {right.value}", right.at, _near(right.value, known))
        if not isinstance(left, Name):
            raise RuleError("what is looked up in a list has a name", left.at)
        variable = _variable(left)
        if variable.kind is not self.lists[name]:
            raise RuleError(
                f"{right.value} holds {self.lists[name].value}, {left.value} is {variable.kind.value}", left.at
            )
        return self._test(TextTest(left.value, "list", (name,)))

    def _choice(self, node: Operation) -> tuple[Kind, int]:
        condition = self._of(node.operands[0], Kind.BOOLEAN, "?")
        kind, yes = self._compile(node.operands[1])
        other, no = self._compile(node.operands[2])
        if kind is not other:
            raise RuleError(f"both sides of : are of one kind, these are {kind.value} and {other.value}", node.at)
        return kind, self._write("choose", condition, yes, no)

    def _call(self, node: Operation) -> tuple[Kind, int]:
        if node.name in _METHODS:
            return Kind.BOOLEAN, self._method(node)
        if node.name not in _FUNCTIONS:
            hint = (
                "regular expressions are left out: use startsWith, endsWith or a list" if node.name == "matches" else ""
            )
            known = [*_FUNCTIONS, *_METHODS]
            raise RuleError(f"there is no function {node.name}", node.at, hint or _near(node.name, known))
        if len(node.operands) != _FUNCTIONS[node.name]:
            raise RuleError(f"{node.name} takes {_FUNCTIONS[node.name]}, not {len(node.operands)}", node.at)
        if node.name == "has":
            if not isinstance(node.operands[0], Name):
                raise RuleError("has takes a name", node.at)
            return Kind.BOOLEAN, self._write("has", self._compile(node.operands[0])[1])
        registers = [self._of(one, Kind.NUMBER, node.name) for one in node.operands]
        return Kind.NUMBER, self._write(node.name, *registers)

    def _method(self, node: Operation) -> int:
        if len(node.operands) != 2:
            raise RuleError(f'{node.name} is asked of a text: transaction.merchant_id.{node.name}("...")', node.at)
        target, text = node.operands
        if not isinstance(target, Name) or _variable(target).kind is not Kind.TEXT:
            raise RuleError(f"{node.name} is asked of a text", target.at)
        if not isinstance(text, String) or not text.value:
            raise RuleError(f"{node.name} takes a text in quotes", text.at)
        return self._test(TextTest(target.value, _METHODS[node.name], (text.value,)))


def _near(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, 1, 0.5)
    return f"did you mean {near[0]}?" if near else ""


def _variable(node: Name) -> Variable:
    if node.value not in VARIABLES:
        hint = _near(node.value, list(VARIABLES)) or "`proact rules names` lists what can be named"
        raise RuleError(f"there is nothing called {node.value}", node.at, hint)
    return VARIABLES[node.value]


def _code(variable: Variable, text: String) -> float:
    """Return the number of a country, currency or entry mode that is written as a text."""
    if variable.kind not in CODES:
        raise RuleError(f"{variable.name} is {variable.kind.value}, not a text", text.at)
    code = CODES[variable.kind](text.value)
    if code is None:
        raise RuleError(f"{text.value!r} is not {variable.kind.value}", text.at)
    return float(code)
