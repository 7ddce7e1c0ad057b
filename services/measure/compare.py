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

from services.subprocesses import run_tied

_GIT = shutil.which("git") or "git"


class CompareError(Exception):
    """A revision cannot be had, or cannot be measured."""


def run_compare(
    base: str, options: Sequence[str], rounds: int, progress: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """Measure ``base`` and the working tree in turn; return by figure what both say, medians, and the ratio of the second to the first.

    Args:
        base: a revision that git knows.
        options: handed to ``proact bench``.
        rounds: how often each is measured.
        progress: told what goes on.

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
    shared = [key for key in found["base"][0] if all(key in one for ones in found.values() for one in ones)]
    medians = {
        name: {key: float(np.median([one[key] for one in ones])) for key in shared} for name, ones in found.items()
    }
    return {
        key: {
            "base": medians["base"][key],
            "this": medians["this"][key],
            "ratio": round(medians["this"][key] / medians["base"][key], 3) if medians["base"][key] else float("nan"),
        }
        for key in shared
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
    command = [sys.executable, "-m", "services.cli", "bench", *options]
    # Another revision may not tie what it starts to itself, so it is asked to end, not killed.
    done = run_tied(command, last=signal.SIGTERM, cwd=folder, stderr=None, text=True)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise CompareError(
            f"`proact bench {' '.join(options)}` failed with {done.returncode} in {folder.name}: can it do that there?"
        )
    return json.loads(lines[-1])
