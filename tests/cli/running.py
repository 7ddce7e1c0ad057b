"""The command line as its user calls it."""

from __future__ import annotations

import os
import subprocess
import sys

TOOLS = {"chaos": "tests.chaos"} | dict.fromkeys(
    ("bench", "bench-compare", "bench-gate", "costs", "parity", "benchmark-quality"), "tests.benchmarks"
)
"""The module of what breaks and measures the services, which is no part of the package."""


def line_of(proact: list[str], *arguments: str) -> list[str]:
    """Return how a command is started: ``proact``, or one of the tools."""
    first, *others = arguments
    if first == "chaos":
        return [sys.executable, "-m", TOOLS[first], *others]
    return [sys.executable, "-m", TOOLS[first], *arguments] if first in TOOLS else [*proact, *arguments]


def run(
    proact: list[str], *arguments: str, timeout: float = 60, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        line_of(proact, *arguments),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **environment},
    )
