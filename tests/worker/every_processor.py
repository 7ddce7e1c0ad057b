"""Every processor of the registry, as it decides with a released model, and what works a batch off without a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from services.codec.reassessments import REQUESTS
from services.codec.records import UndecodableError, decode_record
from services.codec.schemas import topics
from services.codec.terminal_events import LABELS
from services.codec.transactions import TOPIC as TRANSACTIONS
from services.inference.artifact import load_small
from services.inference.released import live_model
from services.reassessor.processor import ReassessorProcessor
from services.registry import BY_LOG, BY_TOPIC, LOGS, load
from services.scorer.processor import ScorerProcessor
from services.streams import Records
from services.worker.processor import LookedUp
from tests.benchmarks.core_only import CoreProcessor
from tests.worker.memory_system import KAFKA_TIMESTAMP_MS, SAFE, nothing_known, released_model

PROCESSORS: dict[str, Callable[[], Any]] = {
    log.topic + (f", by the {BY_LOG[name].name}" if log.grid_prefix else ""): load(log.processor)
    for name, log in LOGS.items()
} | {
    TRANSACTIONS: lambda: ScorerProcessor(released_model(), SAFE),
    f"{TRANSACTIONS}, alone": lambda: CoreProcessor(released_model(), SAFE),
    f"{TRANSACTIONS}, by the small model": lambda: ScorerProcessor(load_small(live_model()), SAFE),
    REQUESTS: lambda: ReassessorProcessor(released_model(), SAFE),
}
KEYS = {topic: topics()[topic].key for topic in BY_TOPIC if topic != LABELS}


def key_of(topic: str, value: bytes | None) -> bytes | None:
    """Return the key that a record should have, so that it is not refused for its key before anything else is looked at."""
    try:
        record = decode_record(value or b"")[1]
    except UndecodableError:
        return b"somebody"
    return str(record.get(KEYS.get(topic, ""), "somebody")).encode() or None


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
