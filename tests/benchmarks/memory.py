"""Memory: what a card takes in the grid and in a worker."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from services.core.card.features import fold
from services.core.card.layout import CARD
from services.core.columns import type_i64
from services.core.kernels import group_text
from services.core.profiles import DAY_MS, open_profiles, seal_profiles
from services.core.vacuous import require_positive
from services.grid import GridWrite, LogIdentity
from services.grid.near_cache import NearCache
from services.grid.redis import RedisGrid
from services.grid.status import RedisStatus
from services.offline.simulator.generate import simulate
from services.offline.simulator.traffic import Traffic
from services.subprocesses import run_tied
from tests.benchmarks.bench_system import START_MS, Subject, bench_system

IN_GRID: Final = 5_000
IN_WORKER: Final = 200_000
REMEMBERED: Final = 60
WINDOW_MS: Final = 30 * DAY_MS
MIB: Final = 1024 * 1024


def profiles_of_60(cards: int) -> list[bytes]:
    """Return the profiles of simulated cards with 60 transactions in 30 days: busy ones' last 60, within that time."""
    traffic = simulate(cards, 60, 11, START_MS)
    rows, slot = _last_rows(traffic)
    columns = traffic.columns.take(rows)
    # Their own last 60, at even distances within the window: what is measured is how many there are, and of what kind.
    order = np.tile(np.arange(REMEMBERED), len(rows) // REMEMBERED)
    columns.event_time_ms[:] = START_MS + WINDOW_MS + (order * (WINDOW_MS // REMEMBERED)) + slot % 9_973
    opened = open_profiles([None] * (len(rows) // REMEMBERED), CARD, slot)
    fold(columns, slot, np.arange(len(rows)), np.zeros(len(rows), bool), opened)
    return seal_profiles(opened)


def _last_rows(traffic: Traffic) -> tuple[type_i64, type_i64]:
    """Return the rows of the last transactions of each card that has enough of them, and which card each row is of."""
    card_of_row, first = group_text(traffic.columns.card_id, np.zeros(len(traffic), np.int64))
    order = np.argsort(card_of_row, kind="stable")
    ends = np.cumsum(np.bincount(card_of_row, minlength=len(first)))
    begins = np.concatenate([[0], ends[:-1]])
    enough = ends[ends - begins >= REMEMBERED]
    rows = order[enough[:, None] - REMEMBERED + np.arange(REMEMBERED)]
    return rows.reshape(-1), np.repeat(np.arange(len(enough)), REMEMBERED)


def measure_memory(subject: Subject, folder: Path) -> dict[str, Any]:
    """Return the bytes of a card with 60 transactions in Redis, all included, and the resident MiB of a scorer with 200,000 of them."""
    some = profiles_of_60(1_000)
    with bench_system(subject, folder) as system:
        grid, status = RedisGrid(system.stack.grid_connection), RedisStatus(system.stack.grid_connection)
        claim = grid.claim("bench", 0, LogIdentity("bench", 1, CARD.version))
        before, applied = status.ask().memory_bytes, None
        for at in range(0, IN_GRID, 1_000):
            cards = [b"card-%06d" % card for card in range(at, at + 1_000)]
            profiles = [some[card % len(some)] for card in range(at, at + 1_000)]
            grid.apply("bench", [GridWrite(claim, applied, at + 1, cards, profiles)])
            applied = at + 1
        used = status.ask().memory_bytes - before
    reported = run_tied(
        [sys.executable, "-m", "tests.benchmarks.memory"],
        check=True, text=True, input=json.dumps([one.hex() for one in some]),
    )  # fmt: skip
    require_positive("the memory that Redis used for profiles", used)
    return {
        "profile_bytes_60": round(float(np.mean([len(one) for one in some]))),
        "redis_bytes_per_card_60": round(used / IN_GRID),
        **json.loads(reported.stdout.splitlines()[-1]),
    }


def _fill_worker() -> None:
    """Keep the profiles of 200,000 cards beside everything else that a scorer has, and say how much memory that takes: a process of its own."""
    from services.core.fallback import SafeDefault  # noqa: PLC0415 - in a process that is only this
    from services.inference.artifact import load_model  # noqa: PLC0415
    from services.inference.released import live_model  # noqa: PLC0415
    from services.scorer.processor import ScorerProcessor  # noqa: PLC0415
    from services.scorer.warm_up import warm_up  # noqa: PLC0415

    some = [bytes.fromhex(one) for one in json.load(sys.stdin)]
    warm_up(ScorerProcessor(load_model(live_model()), SafeDefault(0.0, 0.0)))
    before = psutil.Process().memory_info().rss
    cache = NearCache(4 * IN_WORKER * (NearCache.OVERHEAD_BYTES + len(some[0])))
    for card in range(IN_WORKER):
        # A copy each: in a worker no two are the same object.
        cache.put(card % 12, {b"card-%06d" % card: bytes(bytearray(some[card % len(some)]))})
    after = psutil.Process().memory_info().rss
    print(json.dumps({"scorer_rss_mib_200k": round(after / MIB), "scorer_rss_mib_empty": round(before / MIB)}))  # noqa: T201 - its answer


if __name__ == "__main__":
    _fill_worker()
