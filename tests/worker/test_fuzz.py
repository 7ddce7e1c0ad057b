"""Every processor over whatever its topic may hold: prepared, decided and encoded, twice on what it folded, and no exception at all."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from services.codec.reference import ACCOUNTS, CUSTOMERS
from services.core.validation import Reject
from services.paths import data_folder
from services.streams import Records
from services.worker.processor import NotYetError
from tests.benchmarks.core_only import CoreProcessor
from tests.codec.fuzzing import avro_values, good_values, json_values
from tests.worker.every_processor import PROCESSORS, key_of, work
from tests.worker.memory_system import KAFKA_TIMESTAMP_MS


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


@st.composite
def batches(draw: st.DrawFn, topic: str, begin: int) -> Records:
    values = draw(st.lists(values_of(topic), min_size=1, max_size=8))
    keys = [draw(st.sampled_from([key_of(topic, value)] * 8 + [None, b"", b"\xff\xfe"])) for value in values]
    n = len(values)
    partition = np.sort(np.array(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)), np.int64))
    stamps = draw(st.lists(st.sampled_from([KAFKA_TIMESTAMP_MS] * 8 + [0, 2**62]), min_size=n, max_size=n))
    return Records(topic, partition, begin + np.arange(n), np.array(stamps, np.int64), keys, values)


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
