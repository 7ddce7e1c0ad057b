"""How much memory a training set takes to make: at once, and in parts; of a history, and of ten times as much."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, Final

from services.runtime.children import ChildError
from services.subprocesses import run_tied
from tests.offline.simulated_lake import fill_simulated

CARDS: Final = 600
_PEAK: Final = """
import sys
from pathlib import Path
from services.cli.dataset import dataset
from services.offline.datasets import parted
ranges_of = parted.ranges_of
parted.ranges_of = lambda extent: ranges_of(extent, 10_000)
dataset.main(sys.argv[1:], standalone_mode=False)
[peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(peak.split()[1])
"""


def measure_training_sets(folder: Path, days: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """Return the peaks of resident memory in MiB, of ``days`` and of ten times as many. Raises ChildError."""
    peaks: dict[str, list[float]] = {"in_parts": [], "at_once": []}
    for length in (days, 10 * days):
        lake = folder / f"lake-{length}"
        progress(f"simulating {length} days of {CARDS} cards")
        until = fill_simulated(lake, cards=CARDS, days=length)
        for name, how in (("in_parts", ("--recompute", "--in-parts")), ("at_once", ("--recompute",))):
            peaks[name].append(_peak_mib((lake, until, folder / "set"), how))
            progress(f"{length} days, {name.replace('_', ' ')}: {peaks[name][-1]:,.0f} MiB")
    return {
        name: {"mib": round(one), "ten_times_mib": round(ten), "growth": round(ten / one, 2)}
        for name, (one, ten) in peaks.items()
    }


def _peak_mib(what: tuple[Path, date, Path], how: tuple[str, ...]) -> float:
    lake, until, output = what
    arguments = ["build", "--lake-url", str(lake), "--until", until.isoformat(), "--output", str(output), *how]
    done = run_tied([sys.executable, "-c", _PEAK, *arguments], text=True)
    if done.returncode:
        raise ChildError(f"no training set was made: {done.stderr.strip().splitlines()[-1]}")
    return int(done.stdout.splitlines()[-1]) / 1024
