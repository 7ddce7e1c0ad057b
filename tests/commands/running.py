"""The command line as its user calls it."""

from __future__ import annotations

import os
import subprocess


def run(
    proact: list[str], *arguments: str, timeout: float = 60, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*proact, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **environment},
    )
