"""No test is content with nothing: where all of its assertions stand in loops, at least one loop cannot be empty."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ABOUT_SOURCES = {
    # A file may import nothing, and name no clock.
    "test_imports_point_one_way", "test_the_core_imports_nothing_but_the_standard_library_numpy_and_numba",
    "test_the_logic_never_reads_a_clock", "test_the_checker_shares_no_code_with_what_it_checks",
}  # fmt: skip


def looped_over(node: ast.AST) -> ast.expr | None:
    """Return what a loop, or an assertion about all of something, is about."""
    if isinstance(node, ast.For):
        return node.iter
    if isinstance(node, ast.While):
        return node.test
    for call in ast.walk(node.test) if isinstance(node, ast.Assert) else ():
        if (
            isinstance(call, ast.Call)
            and ast.unparse(call.func) == "all"
            and isinstance(call.args[0], ast.GeneratorExp)
        ):
            return call.args[0].generators[0].iter
    return None


def is_something(what: ast.expr) -> bool:
    """Whether something can be read to have members: a display, a range, a constant of the module, or these one by one."""
    if isinstance(what, ast.Tuple | ast.List | ast.Set):
        return bool(what.elts)
    if isinstance(what, ast.Name | ast.Attribute):
        return (what.id if isinstance(what, ast.Name) else what.attr).isupper()
    if isinstance(what, ast.Call):
        name = ast.unparse(what.func)
        if name in ("enumerate", "zip", "sorted", "reversed"):
            return all(is_something(argument) for argument in what.args)
        of_dict = isinstance(what.func, ast.Attribute) and what.func.attr in ("items", "values", "keys")
        return name == "range" or (of_dict and is_something(what.func.value))  # type: ignore[attr-defined]
    return isinstance(what, ast.Dict)


def assertions(node: ast.AST, *, made: bool = True) -> Iterator[bool]:
    """Yield, for every assertion, whether it is made whatever is looped over."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            continue
        over = looped_over(child)
        inside = made and (over is None or is_something(over))
        name = ast.unparse(child.func) if isinstance(child, ast.Call) else ""
        if isinstance(child, ast.Assert) or name.startswith("assert_") or ".assert_" in name or name.endswith("raises"):
            yield inside
        yield from assertions(child, made=inside)


def vacuous(source: str) -> list[str]:
    """Return the names of the tests of which no assertion is made if what they loop over is empty."""
    tests = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
    made = {test.name: list(assertions(test)) for test in tests}
    return [name for name, each in made.items() if each and not any(each)]


def test_no_test_asserts_only_about_what_may_be_empty():
    paths = sorted(TESTS.rglob("test_*.py"))
    found = [
        f"{path.name}: {name}" for path in paths for name in vacuous(path.read_text()) if name not in ABOUT_SOURCES
    ]

    assert len(paths) > 50
    assert found == [], "assert how many there are, too"


@pytest.mark.parametrize(
    ("body", "empty"),
    [
        ("for one in found(): assert one", True), ("assert all(one for one in found)", True),
        ("while found: assert found.pop()", True), ("for one in []: assert one", True),
        ("for one in zip(found, (1, 2)): assert_same(one)", True),
        ("for one in found: assert one\n    assert found", False), ("for one in (1, 2): assert one", False),
        ("for one in range(9): assert one", False), ("for one in NAMES.items(): assert one", False),
    ],
)  # fmt: skip
def test_what_may_be_empty_is_found(body: str, empty: bool):
    assert vacuous(f"def test_it():\n    {body}\n") == (["test_it"] if empty else [])
