"""From one version of a schema to the next while both are produced: nothing is refused, and every decision is the one without the roll."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.codec.schemas import topics
from services.codec.transactions import TOPIC, encode_transactions
from services.core.columns import TransactionColumns
from services.scorer.processor import ScorerProcessor
from services.streams import Records
from services.streams.memory_commits import partition_of
from services.worker.folding import fold_log
from tests.codec.growing import encoded_as_first, encoded_as_newest, grown_folder, reading
from tests.generators import random_events, to_columns
from tests.worker.memory_system import (
    EVENTS,
    KAFKA_TIMESTAMP_MS,
    SAFE,
    MemorySystem,
    assert_same_end,
    reference,
    released_model,
)


def columns() -> TransactionColumns:
    """Those of :func:`reference`, in order."""
    return to_columns(random_events(1, EVENTS, cards=6))


def produce(system: MemorySystem, part: TransactionColumns, newest: np.ndarray) -> None:
    """Append transactions, some of them as producers do that write the newest version, the others as those that write the first."""
    old, new = encoded_as_first(part), encoded_as_newest(part)
    for i, key in enumerate(part.card_id.tolist()):
        value = new[i] if newest[i] else old[i]
        system.log.append(TOPIC, key, value, KAFKA_TIMESTAMP_MS, partition_of(key, system.partitions))


def rolled(tmp_path: Path) -> MemorySystem:
    """A worker that knows the first version only, then one that knows two, first with producers of the first, then of both, then of the second."""
    system, all_ = MemorySystem(), columns()
    rng = np.random.default_rng(24)
    no, some, yes = np.zeros(EVENTS // 3, bool), rng.random(EVENTS // 3) < 0.5, np.ones(EVENTS // 3, bool)
    parts = [all_.take(np.arange(i, i + EVENTS // 3)) for i in range(0, EVENTS, EVENTS // 3)]
    system.produce(parts[0].take(np.arange(20)))
    worker, _ = system.worker()
    system.drain(worker)
    system.produce(parts[0].take(np.arange(20, len(no))))  # found by the next worker
    with reading(grown_folder(tmp_path, TOPIC, written_version=1)):
        worker, _ = system.worker()
        produce(system, parts[1], some)
        system.drain(worker)
        produce(system, parts[2], yes)
        system.drain(worker)
        mixed = [r.value[:10] for p in range(system.partitions) for r in system.log.visible(TOPIC, p)]
        assert {schema.header for schema in topics()[TOPIC].versions} == set(mixed)
    return system


def test_a_roll_of_a_version_under_producers_of_both_refuses_nothing_and_decides_the_same(tmp_path: Path):
    system = rolled(tmp_path)

    assert system.records("dead-letters") == []
    assert len(system.records("card-decisions")) == EVENTS
    assert_same_end(reference(), system)


def test_a_lost_grid_is_folded_again_from_a_log_of_mixed_versions(tmp_path: Path):
    system = rolled(tmp_path / "a")
    system.grid.profiles.clear()
    system.grid.metas.clear()
    with reading(grown_folder(tmp_path / "b", TOPIC, written_version=1)):
        worker, _ = system.worker()
        system.drain(worker)

    assert_same_end(reference(), system)


def test_the_fold_of_a_log_of_mixed_versions_is_what_the_grid_holds(tmp_path: Path):
    """What ``proact grid verify`` compares and ``proact grid rebuild`` writes."""
    system = rolled(tmp_path / "a")
    with reading(grown_folder(tmp_path / "b", TOPIC, written_version=1)):
        for p in range(system.partitions):
            log = list(system.log.visible(TOPIC, p))
            at, n = np.arange(len(log)), len(log)
            timestamps = np.full(n, KAFKA_TIMESTAMP_MS)
            records = Records(
                TOPIC, np.full(n, p), at, timestamps, [r.key for r in log], [r.value for r in log], system.partitions
            )
            written: list[dict[bytes, bytes]] = []
            fold_log(
                ScorerProcessor(released_model(), SAFE),
                iter([records]),
                {},
                lambda _, some, into=written: into.append(some),
                None,
            )

            folded = {card: blob for some in written for card, blob in some.items()}
            assert folded == system.grid.of(TOPIC, p) == reference().grid.of(TOPIC, p) != {}


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_worker_of_the_new_version_may_go_back_to_producers_of_the_old_one(tmp_path: Path, newest_first: bool):
    system, all_ = MemorySystem(), columns()
    with reading(grown_folder(tmp_path, TOPIC, written_version=1)):
        worker, _ = system.worker()
        for begin in range(0, EVENTS, 30):
            is_new = (begin == 30) != newest_first
            produce(system, all_.take(np.arange(begin, begin + 30)), np.full(30, is_new))
            system.drain(worker)

    assert_same_end(reference(), system)


def test_a_worker_that_does_not_know_a_version_says_so_of_each_of_its_records():
    """So the readers are rolled before the producers."""
    system = MemorySystem()
    value = encode_transactions(columns().take(np.arange(1)))[0]
    unknown = value[:2] + b"whoknows" + value[10:]
    for p in range(2):
        system.log.append(TOPIC, b"card-1", unknown, KAFKA_TIMESTAMP_MS, p)
    worker, _ = system.worker(breaker_share=1.0)
    system.drain(worker)

    assert [letter["reason"] for letter in system.records("dead-letters")] == ["UNKNOWN_FINGERPRINT"] * 2
