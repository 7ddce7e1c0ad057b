"""After the warm-up nothing is compiled any more: the first real transactions wait for no kernel."""

from __future__ import annotations

import subprocess
import sys

CHILD = """
import gc
import numpy as np
from numba.core.dispatcher import Dispatcher
from services.codec.transactions import TOPIC, encode_transactions
from services.core.fallback import SafeDefault
from services.inference.artifact import load_model
from services.inference.released import live_model
from services.scorer.processor import ScorerProcessor
from services.scorer.warm_up import nothing_known, warm_up
from services.offline.simulator.generate import simulate
from services.streams import Records

AT_MS = 1_767_225_600_000

def compiled():
    return {(d.py_func.__module__, d.py_func.__name__, str(s)) for d in gc.get_objects() if isinstance(d, Dispatcher) for s in d.signatures}

traffic = simulate(200, 10, 3, AT_MS)
values, keys = encode_transactions(traffic.columns), traffic.columns.card_id.tolist()
now_ms = AT_MS + 11 * 86_400_000
processor = ScorerProcessor(load_model(live_model()), SafeDefault(30.0, 300.0))
warm_up(processor)
before, profiles, at = compiled(), {}, 0
for size in (1, 2, 7, 500, 3):
    rows = slice(at, at + size)
    at += size
    records = Records(TOPIC, np.zeros(size, np.int64), np.arange(rows.start, rows.stop), np.full(size, now_ms), keys[rows], values[rows])
    prepared = processor.prepare(records, np.zeros(size, bool))
    outcome = processor.decide(prepared, [profiles.get(card) for card in prepared.cards], nothing_known(prepared), np.ones(size, bool), now_ms)
    assert outcome.decided == size, outcome.rejected
    list(outcome.outputs)
    profiles |= dict(zip(prepared.cards, outcome.profiles, strict=True))
assert before, "the kernels are found"
print(sorted(compiled() - before))
"""


def test_the_first_batches_compile_nothing():
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
