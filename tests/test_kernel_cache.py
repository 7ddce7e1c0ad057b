"""Compiled kernels are kept under a hash of their sources: of all of them, and of what they use."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services import _kernel_cache

PACKAGE = Path(_kernel_cache.__file__).parent
COMPILING = {
    "njit",
    "jit",
    "vectorize",
    "guvectorize",
    "cfunc",
    "stencil",
    "overload",
    "intrinsic",
    "register_jitable",
}
"""What of numba makes a kernel of a function."""


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _called(node: ast.expr) -> str:
    return ast.unparse(node.func if isinstance(node, ast.Call) else node)


def _compiling(tree: ast.Module) -> set[str]:
    """Return by what names a file calls what compiles."""
    found = {f"numba.{name}" for name in COMPILING}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "numba":
            found |= {alias.asname or alias.name for alias in node.names if alias.name in COMPILING}
    return found


def kernels_of(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the functions of a file that are compiled: decorated, or handed to what compiles."""
    compiling = _compiling(tree)
    for node in ast.walk(tree):
        decorated = isinstance(node, ast.FunctionDef) and compiling & set(map(_called, node.decorator_list))
        if decorated or (isinstance(node, ast.Call) and _called(node) in compiling):
            yield node


def imported(tree: ast.Module) -> dict[str, Path]:
    """Return the file of this package that a name comes from, by the name."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "services":
            for alias in node.names:
                folder = PACKAGE.joinpath(*(node.module or "").split(".")[1:])
                inner = folder / f"{alias.name}.py"
                home = inner if inner.is_file() else folder.with_suffix(".py")
                found[alias.asname or alias.name] = home if home.is_file() else folder / "__init__.py"
    return found


def used_by(path: Path, names: set[str], seen: set[tuple[Path, str]]) -> Iterator[Path]:
    """Yield the files that names of a file come from: where they are imported from, and whatever they are made of there."""
    tree = parsed(path)
    homes, own = imported(tree), {}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        for name in (ast.unparse(t) if isinstance(t, ast.expr) else getattr(t, "name", "") for t in targets):
            for one in name.strip("()").split(", "):
                own[one] = node
    for name in sorted(names):
        if (path, name) in seen:
            continue
        seen.add((path, name))
        if name in homes:
            yield homes[name]
            yield from used_by(homes[name], {name}, seen)
        elif name in own:
            yield from used_by(path, _names(own[name]), seen)


def _names(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


SOURCES = sorted(PACKAGE.rglob("*.py"))
KERNELS = {path: found for path in SOURCES if (found := list(kernels_of(parsed(path))))}


def test_every_kernel_and_what_it_uses_is_in_a_file_that_is_hashed():
    hashed = set(_kernel_cache.kernel_sources())
    needed: dict[Path, set[str]] = {}
    for path, kernels in KERNELS.items():
        names = set().union(*map(_names, kernels))
        for home in (path, *used_by(path, names, set())):
            needed.setdefault(home, set()).add(path.name)

    assert len(KERNELS) > 25
    assert {"walk.py", "machine.py", "reading.py", "resolution.py"} <= {path.name for path in KERNELS}
    assert {"columns.py", "program.py", "layouts.py"} <= {path.name for path in needed}
    assert {str(path.relative_to(PACKAGE)): by for path, by in needed.items() if path not in hashed} == {}


def test_nothing_imports_numba_that_is_not_hashed():
    looked_at = {"read_only_kernels.py"}  # where they are kept
    using = {
        path
        for path in SOURCES
        for node in ast.walk(parsed(path))
        if (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "numba")
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "numba" for alias in node.names))
    }

    assert {p.name for p in using - set(_kernel_cache.kernel_sources())} == looked_at


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sources, which may be changed."""
    shutil.copytree(PACKAGE, tmp_path / "services", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(_kernel_cache, "_PACKAGE", tmp_path / "services")
    return tmp_path / "services"


@pytest.mark.parametrize("path", [p.relative_to(PACKAGE) for p in KERNELS], ids=str)
def test_an_edit_of_a_file_with_kernels_changes_the_key(path: Path, package: Path):
    before = _kernel_cache.sources_hash()
    text = (package / path).read_text()
    (package / path).write_text(text + "X = 1\n")
    edited = _kernel_cache.sources_hash()
    (package / path).write_text(text)

    assert edited != before
    assert _kernel_cache.sources_hash() == before


def test_a_file_that_comes_or_takes_another_name_changes_the_key_and_one_without_kernels_does_not(package: Path):
    before = _kernel_cache.sources_hash()
    (package / "cli" / "new.py").write_text("X = 1\n")
    assert _kernel_cache.sources_hash() == before

    (package / "core" / "rules" / "new.py").write_text("X = 1\n")
    came = _kernel_cache.sources_hash()
    (package / "core" / "rules" / "new.py").rename(package / "core" / "rules" / "newer.py")

    assert len({before, came, _kernel_cache.sources_hash()}) == 3


def test_a_process_takes_its_kernels_from_the_folder_of_its_own_sources(package: Path):
    """Of a copy of which a file that a kernel is in was edited: another folder than before."""
    ask = [sys.executable, "-c", "import os, services; print(os.environ['NUMBA_CACHE_DIR'])"]
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"} | {
        "PYTHONPATH": str(package.parent)
    }

    def folder() -> str:
        return subprocess.run(
            ask, cwd=package.parent, env=environment, capture_output=True, text=True, check=True
        ).stdout

    before = folder()
    walk = package / "inference" / "walk.py"
    walk.write_text(walk.read_text().replace("ROWS_TOGETHER: Final = 64", "ROWS_TOGETHER: Final = 32"))

    assert str(package) in before
    assert folder() != before
