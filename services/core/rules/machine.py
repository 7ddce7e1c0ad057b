"""Runs the program of a rule set over columns: instruction by instruction, some rows at a time, in one kernel.

A truth is 1, its opposite 0, and NaN is "not known": a comparison with a value that is missing is not known, and what is not known decides
nothing: it does not make ``||`` true nor ``&&`` false, as errors in CEL do not (Kleene's three-valued logic).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from services.core.columns import type_bool, type_f64

_NAMES: Final = (
    "constant", "load", "test", "opposite", "negate", "both", "either",
    "equal", "unequal", "less", "at_most", "more", "at_least",
    "add", "subtract", "multiply", "divide", "remainder", "choose", "has", "abs", "min", "max",
)  # fmt: skip
OPCODES: Final = {name: at for at, name in enumerate(_NAMES)}
(
    _CONSTANT, _LOAD, _TEST, _OPPOSITE, _NEGATE, _BOTH, _EITHER,
    _EQUAL, _UNEQUAL, _LESS, _AT_MOST, _MORE, _AT_LEAST,
    _ADD, _SUBTRACT, _MULTIPLY, _DIVIDE, _REMAINDER, _CHOOSE, _HAS, _ABS, _MIN, _MAX,
) = range(len(_NAMES))  # fmt: skip
BLOCK: Final = 128
"""Rows at a time: their registers stay in the processor's cache."""


@njit(cache=True, nogil=True)
def _binary(operation: int, a: float, b: float) -> float:
    if operation == _BOTH:
        if a == 0.0 or b == 0.0:
            return 0.0
        return a * b
    if operation == _EITHER:
        if a == 1.0 or b == 1.0:
            return 1.0
        return a + b
    if np.isnan(a) or np.isnan(b):
        return np.nan
    if operation == _EQUAL:
        return 1.0 if a == b else 0.0
    if operation == _UNEQUAL:
        return 1.0 if a != b else 0.0
    if operation == _LESS:
        return 1.0 if a < b else 0.0
    if operation == _AT_MOST:
        return 1.0 if a <= b else 0.0
    if operation == _MORE:
        return 1.0 if a > b else 0.0
    if operation == _AT_LEAST:
        return 1.0 if a >= b else 0.0
    return _computed(operation, a, b)


@njit(cache=True, nogil=True)
def _computed(operation: int, a: float, b: float) -> float:
    if operation == _ADD:
        return a + b
    if operation == _SUBTRACT:
        return a - b
    if operation == _MULTIPLY:
        return a * b
    if operation == _MIN:
        return min(a, b)
    if operation == _MAX:
        return max(a, b)
    if b == 0.0:
        return np.nan
    return a / b if operation == _DIVIDE else np.fmod(a, b)


@njit(cache=True, nogil=True)
def _unary(operation: int, a: float) -> float:
    if operation == _HAS:
        return 0.0 if np.isnan(a) else 1.0
    if operation == _OPPOSITE:
        return 1.0 - a
    return abs(a) if operation == _ABS else -a


@njit(cache=True, nogil=True)
def run(program: Any, inputs: type_f64, tests: type_bool, hits: type_bool) -> None:
    """Run a program; ``hits`` (rules, n) says afterwards of which rows each rule's condition is surely true.

    Args:
        program: the code, constants and results of a :class:`services.core.rules.program.Program`.
        inputs: (inputs, n) what ``load`` gives.
        tests: (tests, n) what ``test`` gives.
        hits: filled in place.
    """
    code, constants, results = program
    n = hits.shape[1]
    registers = np.empty((len(code), BLOCK))
    for begin in range(0, n, BLOCK):
        rows = min(BLOCK, n - begin)
        for i in range(len(code)):
            operation, a, b, c = code[i]
            out = registers[i]
            if operation == _CONSTANT:
                out[:rows] = constants[a]
            elif operation == _LOAD:
                out[:rows] = inputs[a, begin : begin + rows]
            elif operation == _TEST:
                for row in range(rows):
                    out[row] = 1.0 if tests[a, begin + row] else 0.0
            elif operation == _CHOOSE:
                for row in range(rows):
                    condition = registers[a, row]
                    out[row] = np.nan
                    if not np.isnan(condition):
                        out[row] = registers[b, row] if condition == 1.0 else registers[c, row]
            elif operation in (_OPPOSITE, _NEGATE, _HAS, _ABS):
                for row in range(rows):
                    out[row] = _unary(operation, registers[a, row])
            else:
                for row in range(rows):
                    out[row] = _binary(operation, registers[a, row], registers[b, row])
        for rule in range(len(results)):
            for row in range(rows):
                hits[rule, begin + row] = registers[results[rule], row] == 1.0
