"""The page's "Change a feature", walked in a copy: what a change breaks is said with what to do about it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of everything that a change of a feature touches."""
    bare = shutil.ignore_patterns("__pycache__", ".hypothesis")
    for name in ("services", "schemas", "models", "deploy", "docs", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=bare)
    for name in ("README.md", "mkdocs.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def python(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=checkout, capture_output=True, text=True, check=False, timeout=250,
        env={**os.environ, "PYTHONPATH": str(checkout), "PROACT_TEST_STACK": "embedded"},
    )  # fmt: skip


def change(checkout: Path, was: str, becomes: str) -> None:
    path = checkout / "services/core/features.py"
    text = path.read_text()
    assert text.count(was) == 1
    path.write_text(text.replace(was, becomes))


def the_pages_line() -> str:
    """Return the line that the page shows, as it stands in the declarations."""
    section = (ROOT / "docs/features.md").read_text().split("## Change a feature")[1]
    [line] = re.findall(r"^\((Feature\(.*\)),\)$", section, re.MULTILINE)
    return f"    {line},\n"


def test_a_line_that_is_added_needs_a_model_and_no_rule(checkout):
    line = the_pages_line()
    change(checkout, line, line + line.replace("10 * MINUTE_MS", "20 * MINUTE_MS"))

    rules = python(checkout, "-m", "services.cli.main", "rules", "check", "deploy/rules.yaml")
    scorer = python(checkout, "-m", "services.cli.main", "scorer", "--metrics-port", "1")
    tables = python(checkout, "-m", "services.cli.docs_tables", ".")
    tests = python(checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/core/test_deployed_rules.py")

    assert (rules.returncode, tables.returncode, tests.returncode) == (0, 0, 0), rules.stderr + tests.stdout
    assert scorer.returncode == 1
    assert "make train" in scorer.stderr
    assert "name it as live" in scorer.stderr
    assert "| `card_count_20m` |" in (checkout / "docs/features.md").read_text()


def test_a_window_that_is_changed_says_which_rule_changes_with_it(checkout):
    line = the_pages_line()
    change(checkout, line, line.replace("10 * MINUTE_MS", "5 * MINUTE_MS"))

    rules = python(checkout, "-m", "services.cli.main", "rules", "check", "deploy/rules.yaml")
    tests = python(checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/core/test_deployed_rules.py")

    assert rules.returncode == 1
    assert "rule bursts-of-small-amounts: there is nothing called card.count_10m" in rules.stderr
    assert "card.count_5m" in rules.stderr
    assert tests.returncode == 1
    assert "deploy/rules.yaml: rule bursts-of-small-amounts" in tests.stdout
    assert "change the rule with it" in tests.stdout

    file = checkout / "deploy/rules.yaml"
    file.write_text(file.read_text().replace("card.count_10m", "card.count_5m"))
    again = python(checkout, "-m", "services.cli.main", "rules", "check", "deploy/rules.yaml")
    assert again.returncode == 0, again.stderr
