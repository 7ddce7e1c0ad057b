"""Two revisions measured in turn on the same machine, and the ratios of what they do."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from services.core.vacuous import VacuousError, require_figures
from services.subprocesses import run_tied

_GIT = shutil.which("git") or "git"


class CompareError(Exception):
    """A revision cannot be had, or cannot be measured."""


def run_compare(
    base: str, options: Sequence[str], rounds: int, progress: Callable[[str], None]
) -> dict[str, dict[str, float | None]]:
    """Measure ``base`` and the working tree in turn; return by figure what both say, medians, and the ratio of the second to the first.

    Args:
        base: a revision that git knows.
        options: handed to ``bench``.
        rounds: how often each is measured.
        progress: called with what goes on.

    Raises:
        CompareError: see there.
    """
    here = _root()
    with _checked_out(here, base) as there:
        found: dict[str, list[dict[str, float]]] = {"base": [], "this": []}
        for at in range(rounds):
            for name, folder in (("base", there), ("this", here)):
                progress(f"round {at + 1} of {rounds}: {base if name == 'base' else 'the working tree'}")
                found[name].append(flat(_bench(folder, options)))
    return ratios_of(found["base"], found["this"])


def ratios_of(base: Sequence[dict[str, float]], this: Sequence[dict[str, float]]) -> dict[str, dict[str, float | None]]:
    """Return by figure the medians of both sides, and the ratio of the second to the first: None where the first is 0.

    Args:
        base: the figures of every round of one revision.
        this: those of the other one.

    Raises:
        CompareError: a side has no figures, one of them is not a number, or there is none that all rounds have.
    """
    rounds = [*base, *this]
    try:
        for one in rounds:
            require_figures("bench", one)
    except VacuousError as error:
        raise CompareError(str(error)) from None
    shared = [key for key in base[0] if all(key in one for one in rounds)] if base and this else []
    if not shared:
        raise CompareError("there is no figure that every round measured: nothing can be compared")
    medians = {key: [float(np.median([one[key] for one in side])) for side in (base, this)] for key in shared}
    return {
        key: {"base": before, "this": now, "ratio": round(now / before, 3) if before else None}
        for key, (before, now) in medians.items()
    }


def flat(found: Any, prefix: str = "") -> dict[str, float]:
    """Return the numbers of nested dictionaries by their path; lists, and the plan, are left out."""
    if isinstance(found, dict):
        return {
            path: value
            for key, inner in found.items()
            if key not in {"plan", "machine"}
            for path, value in flat(inner, f"{prefix}.{key}" if prefix else str(key)).items()
        }
    return {prefix: float(found)} if isinstance(found, int | float) else {}


def _root() -> Path:
    done = run_tied([_GIT, "rev-parse", "--show-toplevel"], text=True)
    if done.returncode:
        raise CompareError("this is not a checkout of git: there is no other revision to compare with")
    return Path(done.stdout.strip())


@contextmanager
def _checked_out(root: Path, revision: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "base"
        command = [_GIT, "-C", str(root), "worktree", "add", "--detach", str(there), revision]
        done = run_tied(command, text=True)
        if done.returncode:
            raise CompareError(f"git has no revision {revision!r} to check out: {done.stderr.strip().splitlines()[-1]}")
        try:
            yield there
        finally:
            command = [_GIT, "-C", str(root), "worktree", "remove", "--force", str(there)]
            run_tied(command)


def _bench(folder: Path, options: Sequence[str]) -> Any:
    # What is imported is what lies in the folder that it is started in; the libraries are the same for both.
    module = (
        "tests.benchmarks" if (folder / "tests/benchmarks/__main__.py").exists() else "services.cli"
    )  # as it was before
    command = [sys.executable, "-m", module, "bench", *options]
    # Another revision may not tie what it starts to itself, so it is asked to end, not killed.
    done = run_tied(command, last=signal.SIGTERM, cwd=folder, stderr=None, text=True)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise CompareError(
            f"`bench {' '.join(options)}` failed with {done.returncode} in {folder.name}: can it do that there?"
        )
    try:
        return json.loads(lines[-1])
    except ValueError:
        raise CompareError(f"the last line of `bench` in {folder.name} is no JSON") from None
