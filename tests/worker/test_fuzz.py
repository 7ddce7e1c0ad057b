"""Every processor over whatever its topic may hold: prepared, decided and encoded, twice on what it folded, and no exception at all."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from services.codec.reassessments import REQUESTS
from services.codec.records import UndecodableError, decode_record
from services.codec.reference import ACCOUNTS, CUSTOMERS
from services.codec.schemas import topics
from services.codec.terminal_events import LABELS
from services.codec.transactions import TOPIC as TRANSACTIONS
from services.core.validation import Reject
from services.inference.artifact import load_small
from services.inference.released import live_model
from services.paths import data_folder
from services.reassessor.processor import ReassessorProcessor
from services.registry import LOGS, load
from services.scorer.processor import ScorerProcessor
from services.streams import Records
from services.worker.processor import LookedUp, NotYetError
from tests.benchmarks.core_only import CoreProcessor
from tests.codec.fuzzing import avro_values, good_values, json_values
from tests.worker.memory_system import KAFKA_TIMESTAMP_MS, SAFE, nothing_known, released_model

PROCESSORS: dict[str, Callable[[], Any]] = {topic: load(log.processor) for topic, log in LOGS.items()} | {
    TRANSACTIONS: lambda: ScorerProcessor(released_model(), SAFE),
    f"{TRANSACTIONS}, alone": lambda: CoreProcessor(released_model(), SAFE),
    f"{TRANSACTIONS}, by the small model": lambda: ScorerProcessor(load_small(live_model()), SAFE),
    REQUESTS: lambda: ReassessorProcessor(released_model(), SAFE),
}
KEYS = {topic: topics()[topic].key for topic in LOGS if topic != LABELS}


def test_every_processor_is_fuzzed():
    found = set()
    for path in sorted((data_folder("schemas").parent / "services").glob("*/processor.py")):
        module = importlib.import_module(f"services.{path.parent.name}.processor")
        members = inspect.getmembers(module, inspect.isclass)
        found |= {
            one
            for _, one in members
            if one.__module__ == module.__name__ and hasattr(one, "prepare") and hasattr(one, "measure")
        }
    found = {one for one in found if one.__name__ != "Processor"}

    assert found | {CoreProcessor} == {type(make()) for make in PROCESSORS.values()}


def values_of(topic: str) -> st.SearchStrategy[bytes | None]:
    """Return what a topic may hold, most of it of its schema: else little would be decided."""
    some = [good_values(topic)] * 4 + [avro_values(topic)]
    return st.one_of(*some, *([json_values(topic)] * 3 if topic in (ACCOUNTS, CUSTOMERS) else []))


def key_of(topic: str, value: bytes | None) -> bytes | None:
    """Return the key that a record should have, so that it is not refused for its key before anything else is looked at."""
    try:
        record = decode_record(value or b"")[1]
    except UndecodableError:
        return b"somebody"
    return str(record.get(KEYS.get(topic, ""), "somebody")).encode() or None


@st.composite
def batches(draw: st.DrawFn, topic: str, begin: int) -> Records:
    values = draw(st.lists(values_of(topic), min_size=1, max_size=8))
    keys = [draw(st.sampled_from([key_of(topic, value)] * 8 + [None, b"", b"\xff\xfe"])) for value in values]
    n = len(values)
    partition = np.sort(np.array(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)), np.int64))
    stamps = draw(st.lists(st.sampled_from([KAFKA_TIMESTAMP_MS] * 8 + [0, 2**62]), min_size=n, max_size=n))
    return Records(topic, partition, begin + np.arange(n), np.array(stamps, np.int64), keys, values)


def work(processor: Any, records: Records, held: dict[tuple[int, bytes], bytes], emit: Any) -> Any:
    """Prepare, decide and encode; return the outcome, and fold it into what is held."""
    prepared = processor.prepare(records, np.zeros(len(records), np.int64))
    pairs = list(zip(prepared.partitions, prepared.cards, strict=True))
    found: dict[str, LookedUp] = nothing_known(prepared, 2**62)
    outcome = processor.decide(prepared, [held.get(pair) for pair in pairs], found, emit, KAFKA_TIMESTAMP_MS)
    for output in outcome.outputs:
        assert len(output.keys) == len(output.values)
        for value in output.values:
            assert decode_record(value or b"")[0].topic == output.topic
    assert outcome.decided + len(outcome.refused) == int(emit.sum())
    assert outcome.folded_only == int((~emit).sum())
    held |= {pair: profile for pair, profile in zip(pairs, outcome.profiles, strict=True) if profile is not None}
    return prepared


@pytest.mark.parametrize("name", sorted(PROCESSORS))
@given(data=st.data())
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_a_processor_raises_nothing_whatever_comes(name: str, data: st.DataObject):
    topic, processor = name.partition(",")[0], _made(name)
    held: dict[tuple[int, bytes], bytes] = {}
    for begin in (0, 100):
        records = data.draw(batches(topic, begin))
        emit = np.ones(len(records), bool) if data.draw(st.booleans()) else np.arange(len(records)) % 2 == 0
        try:
            prepared = work(processor, records, held, emit)
        except NotYetError:
            return  # its own word: a request that points to an offset that is not there waits
        event(f"good: {bool((prepared.status == Reject.NONE).any())}")
        alone = [
            processor.prepare(records.take(np.arange(len(records)) == i), np.zeros(1, np.int64))
            for i in range(len(records))
        ]
        assert [int(one.status[0]) for one in alone] == prepared.status.tolist(), "a neighbour matters"
        excluded = np.where(np.arange(len(records)) % 2 == 0, int(Reject.INTERNAL_ERROR), 0)
        left = processor.prepare(records, excluded).status
        assert (left[excluded != 0] == Reject.INTERNAL_ERROR).all()
        assert (left[excluded == 0] == prepared.status[excluded == 0]).all()


_MADE: dict[str, Any] = {}


def _made(name: str) -> Any:
    if name not in _MADE:
        _MADE[name] = PROCESSORS[name]()
    return _MADE[name]
