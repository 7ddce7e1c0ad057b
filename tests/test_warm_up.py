"""After the warm-up nothing is compiled any more: the first real transactions wait for no kernel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

COMPILED = """
import gc
import numpy as np
from numba.core.dispatcher import Dispatcher

def compiled():
    return {(d.py_func.__module__, d.py_func.__name__, str(s)) for d in gc.get_objects() if isinstance(d, Dispatcher) for s in d.signatures}
"""
SCORER = f"""
{COMPILED}
from services.codec.transactions import TOPIC, encode_transactions
from services.core.fallback import SafeDefault
from services.inference.artifact import load_model
from services.inference.released import live_model
from services.scorer.processor import ScorerProcessor
from services.scorer.warm_up import nothing_known, warm_up
from services.offline.simulator.generate import simulate
from services.streams import Records

AT_MS = 1_767_225_600_000

traffic = simulate(200, 10, 3, AT_MS)
values, keys = encode_transactions(traffic.columns), traffic.columns.card_id.tolist()
now_ms = AT_MS + 11 * 86_400_000
processor = ScorerProcessor(load_model(live_model()), SafeDefault(30.0, 300.0))
warm_up(processor)
before, profiles, at = compiled(), {{}}, 0
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


EVERY = f"""
{COMPILED}
import sys
from services.codec.records import encode_record
from services.registry import LOGS
from services.streams import Records
from services.warm_up import warm_up_every_service
from services.codec.schemas import topics
from tests.codec.fuzzing import examples_of
from tests.codec.test_versions import fitted
from tests.worker.every_processor import PROCESSORS, key_of, work
from tests.worker.memory_system import KAFKA_TIMESTAMP_MS

warm_up_every_service()
before = compiled()
worked = set()
for name, make in sorted(PROCESSORS.items()):
    topic, _, other = name.partition(", ")
    if not (other == "" or other.startswith("by the archiver") or other.startswith("by the auditor")):
        continue
    processor = make()
    records = [
        encode_record(schema, fitted(example, schema.definition))
        for schema in topics()[topic].versions
        for example in examples_of(topic)
    ]
    for values in (records[:1], records, [b"no record", *records]):
        n = len(values)
        keys = [key_of(topic, value) for value in values]
        batch = Records(topic, np.zeros(n, np.int64), np.arange(n), np.full(n, KAFKA_TIMESTAMP_MS), keys, values)
        work(processor, batch, {{}}, np.ones(n, bool))
    worked.add(processor.log)
assert worked == set(LOGS), worked ^ set(LOGS)
assert before, "the kernels are found"
print(sorted(compiled() - before))
"""


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)

    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_first_batches_of_a_scorer_compile_nothing():
    assert python(SCORER) == "[]"


def test_what_the_image_is_built_with_compiles_all_that_any_service_calls():
    """Where the kernels are read-only, one that is missing ends in an error that no record can be blamed for."""
    assert python(EVERY) == "[]"
