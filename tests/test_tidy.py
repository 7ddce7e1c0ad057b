"""The rules of the house that a machine can check: layout, imports, clocks, sizes."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from services.registry import BY_NAME

ROOT = Path(__file__).parents[1]
SERVICES = sorted((ROOT / "services").rglob("*.py"))
TOOLS = sorted(
    path
    for folder in ("chaos", "benchmarks")
    for path in (ROOT / "tests" / folder).glob("*.py")
    if not path.name.startswith("test_") and path.name != "plain_worker.py"
)
"""What breaks and measures the services: no part of the package, under the same rules; the plain worker is what somebody else would write."""
SOURCES = [*SERVICES, *TOOLS]
ALL = [*SERVICES, *sorted((ROOT / "tests").rglob("*.py"))]

FUNCTION_LINES_MAX, FILE_LINES_MAX, PARAMETERS_MAX = 40, 300, 5

LAYERS = {
    "core": set(),
    "codec": {"core", "paths"},
    "streams": {"core", "secrets"},
    "grid": {"core", "secrets"},
    "inference": {"core", "paths"},
    "runtime": {"core", "streams", "grid", "secrets", "signals", "subprocesses", "registry"},
    "worker": {"core", "streams", "grid", "codec", "runtime", "signals", "subprocesses", "registry"},
    "decision": {"core", "codec", "streams", "inference", "runtime", "worker"},
    "scorer": {"core", "codec", "streams", "grid", "inference", "registry", "runtime", "worker", "decision"},
    "reassessor": {"core", "codec", "streams", "inference", "registry", "runtime", "worker", "decision", "scorer"},
    "monitor": {"streams", "grid", "registry", "runtime", "worker", "signals"},
    "evaluator": {"core", "decision", "inference", "lake", "offline", "registry", "runtime", "signals"},
    "observer": {"core", "codec", "streams"},
    "rulebook": {"core", "codec", "streams", "runtime", "decision"},
    "stack": {"grid", "streams", "paths", "topology", "subprocesses"},
    "lake": {"core", "codec", "streams", "runtime"},
    "archiver": {"core", "codec", "streams", "grid", "lake", "runtime", "worker", "registry"},
    "auditor": {"core", "codec", "streams", "runtime", "worker", "registry", "checker"},
    "offline": {
        "core",
        "codec",
        "streams",
        "inference",
        "lake",
        "decision",
        "runtime",
    },  # a backtest decides as it is decided live
    "checker": {"core", "paths"},  # of core only the ISO tables: it must share no code with what it checks
}
"""What each folder of services/ may import of the others; `commands` and the modules on top may import all."""
LAYERS |= {name: {"core", "codec", "streams", "runtime", "worker"} for name in BY_NAME if name not in LAYERS}

ONLY_IN = {
    # Chaos breaks the stores with whatever it takes; the checker must not trust the adapters.
    "confluent_kafka": {"streams", "checker", "chaos"},
    "aiokafka": {"benchmarks"},
    "redis": {"grid", "checker", "chaos"},
    "xgboost": {"inference", "offline", "checker"},
    "fastavro": {"codec", "decision", "checker", "chaos"},
    "sklearn": {"offline"},
    "matplotlib": {"offline", "benchmarks"},
    "pyarrow": {"offline", "lake", "archiver", "cli", "benchmarks"},
    "deltalake": {"lake"},
    "duckdb": {"lake"},
}

# The lists of exceptions: they may only shrink.
LONG_FUNCTIONS: dict[str, int] = {}
LONG_FILES: dict[str, int] = {}
MANY_PARAMETERS = {
    # Kernels take bare arrays: numba compiles no self.
    "codec/reading.py:_read_rows", "core/card/features.py:_fold_rows", "core/card/features.py:_moment_value", "core/validation.py:_equal_rows",
    "core/card/windows.py:insert_entry", "core/card/windows.py:last_seen", "core/card/windows.py:window_statistics",
    # click hands every option of a command to its function.
    "cli/traffic.py:simulate",
    "cli/watch.py:tail", "cli/traffic.py:history_and_live",
    # Pure functions of as many independent columns.
    "offline/simulator/handbook.py:_add_frauds",
}  # fmt: skip


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT / "services" if path.is_relative_to(ROOT / "services") else ROOT))


def folder_of(path: Path) -> str:
    """Return the folder of services/ that a file lies in, or that of the tests."""
    return path.relative_to(ROOT / "services" if path.is_relative_to(ROOT / "services") else ROOT / "tests").parts[0]


def imports_of(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.append(node.module)
    return found


def functions_of(path: Path) -> list[ast.FunctionDef]:
    return [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)]


def code_lines(node: ast.FunctionDef) -> int:
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return 0 if not body else (body[-1].end_lineno or 0) - body[0].lineno + 1


def code_lines_of_file(path: Path) -> int:
    text = path.read_text()
    documented = 0
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documented += (node.end_lineno or 0) - node.lineno + 1
    return len(text.splitlines()) - documented


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_one_way(path: Path):
    folder = folder_of(path)
    for module in imports_of(path):
        if module.startswith("services.") and folder in LAYERS:
            other = module.split(".")[1]
            assert other == folder or other in LAYERS[folder], f"{folder} must not import {module}"
        package = module.split(".")[0]
        if package in ONLY_IN:
            assert folder in ONLY_IN[package], f"{package} is for {ONLY_IN[package]}"


@pytest.mark.parametrize("path", sorted((ROOT / "services/core").rglob("*.py")), ids=name_of)
def test_the_core_imports_nothing_but_the_standard_library_numpy_and_numba(path: Path):
    for module in imports_of(path):
        package = module.split(".")[0]
        assert package in {"services", "numpy", "numba"} or package in sys.stdlib_module_names


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_the_logic_never_reads_a_clock(path: Path):
    folder = folder_of(path)
    if folder in {"cli", "stack", "benchmarks", "chaos"} or path.name in {
        "clock.py",
        "supervisor.py",
        "children.py",
        "signals.py",
    }:
        return  # they run processes and talk to people, in real time
    banned = {"time", "monotonic", "time_ns", "perf_counter", "now", "utcnow", "today", "sleep"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in banned and isinstance(node.value, ast.Name):
            assert node.value.id not in {"time", "datetime", "date"}, f"{path.name}:{node.lineno}: time is an argument"


def test_the_checker_shares_no_code_with_what_it_checks():
    allowed = {"services.core.money", "services.paths"}
    for path in sorted((ROOT / "services/checker").rglob("*.py")):
        ours = {m for m in imports_of(path) if m.startswith("services.") and not m.startswith("services.checker")}
        assert ours <= allowed, path.name


def test_processes_are_started_in_one_place_and_signals_handled_in_one():
    """What is started elsewhere would outlive a command that is killed; an exception out of a handler may be swallowed."""
    assert SOURCES
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if path.name != "subprocesses.py":
                assert called not in {
                    "Popen",
                    "subprocess.Popen",
                    "subprocess.run",
                    "subprocess.check_output",
                    "os.fork",
                }, path
                assert not called.startswith(("os.spawn", "os.exec", "os.posix_spawn")), path
            if path.name != "signals.py":
                assert called not in {"signal.signal", "signal.sigaction"}, path
            if called in {"spawn.Process", "Process", "ProcessPoolExecutor", "multiprocessing.Process"}:
                assert "end_with_parent" in path.read_text(), f"{path.name} starts a process that may outlive it"


def test_nothing_is_called_utils_common_or_helpers():
    assert not [p for p in ALL if p.stem in {"utils", "util", "common", "helpers", "helper", "misc"}]


def test_functions_stay_small():
    long = {f"{name_of(p)}:{f.name}": code_lines(f) for p in SOURCES for f in functions_of(p)}
    too_long = {name: n for name, n in long.items() if n > LONG_FUNCTIONS.get(name, FUNCTION_LINES_MAX)}
    assert not too_long
    assert all(long.get(name, 0) > FUNCTION_LINES_MAX for name in LONG_FUNCTIONS), "an exception is no longer needed"


def test_files_stay_small():
    long = {name_of(p): code_lines_of_file(p) for p in SOURCES}
    assert {name: n for name, n in long.items() if n > LONG_FILES.get(name, FILE_LINES_MAX)} == {}
    assert all(long.get(name, 0) > FILE_LINES_MAX for name in LONG_FILES), "an exception is no longer needed"


def test_functions_take_few_parameters():
    many = set()
    for path in SOURCES:
        for function in functions_of(path):
            own = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
            arguments = [a.arg for a in own if a.arg not in {"self", "cls"}]
            if len(arguments) > PARAMETERS_MAX:
                many.add(f"{name_of(path)}:{function.name}")
    assert many <= MANY_PARAMETERS, many - MANY_PARAMETERS
    assert many >= MANY_PARAMETERS, f"no longer needed: {MANY_PARAMETERS - many}"


def theirs(node: ast.Attribute) -> bool:
    """Whether other people's libraries call something public so."""
    code = isinstance(node.value, ast.Name) and node.value.id == "KafkaError" and node.attr.isupper()
    return code or node.attr == "_replace" or ast.unparse(node) == "os._exit"


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own_privates(scope: ast.ClassDef) -> set[str]:
    """Return the private names that a class gives itself."""
    names = set()
    for node in ast.walk(scope):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            names.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return {name for name in names if private(name)}


def foreign_privates(path: Path, *, inherited: bool) -> list[str]:
    """Return where a file reaches for private attributes that are another's.

    Args:
        path: the file.
        inherited: whether those count as another's that a class has from one in another file.
    """
    found, tree = [], ast.parse(path.read_text())
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}

    def known(scope: ast.ClassDef) -> set[str]:
        bases = [classes[base.id] for base in scope.bases if isinstance(base, ast.Name) and base.id in classes]
        return own_privates(scope).union(*map(known, bases))

    def look(node: ast.AST, names: set[str]) -> None:
        if isinstance(node, ast.ClassDef):
            names = known(node)
        if isinstance(node, ast.Attribute) and private(node.attr) and not theirs(node):
            of_self = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"} and not inherited
            if not of_self and node.attr not in names:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}")
        for child in ast.iter_child_nodes(node):
            look(child, names)

    look(tree, set())
    return found


def test_nobody_reaches_for_what_is_private_to_another():
    """What somebody else needs is a port, or a public property; a test that pokes at privates holds what it tests in place."""
    assert [found for path in SOURCES for found in foreign_privates(path, inherited=False)] == []
    assert [found for path in ALL if path not in SOURCES for found in foreign_privates(path, inherited=True)] == []


def test_who_reaches_for_privates_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "some.py"
    path.write_text(
        "class A(B):\n"
        "    def __init__(self, other):\n"
        "        self._own = other._own\n"
        "        self._theirs()\n"
        "    def _step(self):\n"
        "        super()._turn()\n"
        "def poke(a):\n"
        "    return a._own, a.__class__, os._exit\n"
    )

    assert [found.split(": ")[1] for found in foreign_privates(path, inherited=False)] == ["super()._turn", "a._own"]
    assert "self._theirs" in [found.split(": ")[1] for found in foreign_privates(path, inherited=True)]


WRITES_OTHERS = {
    "runtime/supervisor.py",  # what it knows of each child is a record of its own
}


def test_no_part_of_the_worker_writes_another_ones_fields():
    """Each fact has one owner, with methods for what changes it: others read."""
    found = {}
    for path in sorted((ROOT / "services/runtime").glob("*.py")):
        owns = {n.name: own_privates(n) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ClassDef)}
        own = set().union(*owns.values())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
                of_self = isinstance(node.value, ast.Name) and node.value.id == "self"
                if not of_self and node.attr not in own:
                    found[name_of(path)] = f"{node.lineno}: {ast.unparse(node)}"

    assert {name: where for name, where in found.items() if name not in WRITES_OTHERS} == {}
    assert found.keys() >= WRITES_OTHERS, "an exception is no longer needed"


def test_tests_use_fakes_and_no_mocks():
    assert not [p for p in ALL if "unittest.mock" in imports_of(p) or "mock" in imports_of(p)]


def test_the_lock_file_names_no_index_and_pins_everything():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert "--hash=sha256:" in text


def test_no_file_is_large_but_a_released_model():
    listed = subprocess.run(
        [shutil.which("git") or "git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    large = [f for f in listed if (ROOT / f).is_file() and (ROOT / f).stat().st_size > 1_000_000]
    assert [f for f in large if not f.startswith("models/")] == []


BANNED = re.compile(
    r"\b(shores?|landed|landing|voices?|rungs?|ladders?|strange(ness)?|told|mouth|hasty|outsiders?|killers?|suspects?|refusals?|fencings|judges|"
    r"upkeeps?|flights?)\b",
    re.IGNORECASE,
)
"""What things were called before they had the field's words; "in flight" is one of those."""
PAGES = [
    *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "glossary.md"),
    *(ROOT / name for name in ("README.md", "Makefile", "docker-compose.yml")),
    *sorted(ROOT.glob("schemas/*/topic.yaml")),
    *(
        path
        for path in sorted((ROOT / "deploy").rglob("*"))
        if path.suffix in {".yml", ".yaml", ".py", ".json", ".env"}
    ),
]


def words_that_are_banned(text: str) -> list[str]:
    plain = re.sub(r"max\.in\.flight|in[\s_-]flight", "", text, flags=re.IGNORECASE)
    return [found[0] for found in BANNED.finditer(plain.replace("_", " "))]


def test_things_are_called_by_the_fields_words():
    said = {
        str(path.relative_to(ROOT)): words_that_are_banned(path.read_text())
        for path in [*ALL, *PAGES]
        if path != Path(__file__)
    }

    assert len(said) > 300
    assert {path: words for path, words in said.items() if words} == {}
    assert words_that_are_banned("in flight; a Voice on a_rung_b of the ladder") == ["Voice", "rung", "ladder"]


def test_no_two_classes_have_one_name():
    names = Counter(
        node.name
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )

    assert len(names) > 250
    assert {name: count for name, count in names.items() if count > 1} == {}


OF_SEVERAL_ROOMS = {"benchmarks", "chaos", "compose", "contracts", "deploy", "fixtures", "integration", "simulation"}
"""Folders of tests that are about several rooms at once, or about what is beside services/."""


def test_tests_lie_where_what_they_test_lies():
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("*/test_*.py")}
    rooms = {path.name for path in (ROOT / "services").iterdir() if path.is_dir()}

    assert len(folders & rooms) > 10
    assert folders - rooms <= OF_SEVERAL_ROOMS
