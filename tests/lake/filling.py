"""A lake that holds what some records say, filled as the archiver fills it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from services.archiver.processor import of_topic
from services.codec.records import encode_record
from services.codec.schemas import topics
from services.lake.columns import TOPIC_ID
from services.lake.table import LakeTable, Move, app_id_of
from services.streams import Records
from services.streams.memory import MemoryLog

KAFKA_MS = 1_900_000_000_000
TOPIC = "the-topics-id"


def fill(folder: Path, topic: str, records: Sequence[dict[str, Any]], begin: int = 0, partition: int = 0) -> None:
    """Put records into a table, as those of a partition and of offsets from ``begin`` on."""
    values = [encode_record(topics()[topic].latest, one) for one in records]
    fill_values(folder, topic, {partition: list(enumerate(values, begin))})


def fill_values(folder: Path, topic: str, values: dict[int, list[tuple[int, bytes | None]]]) -> None:
    """Put records, by partition with their offsets, into a table."""
    processor = of_topic(topic)
    table = LakeTable(str(folder), topic, processor.schema)
    table.open()
    for partition, mine in values.items():
        n, app_id = len(mine), app_id_of(topic, partition, TOPIC)
        zeros, offset = np.zeros(n, np.int64), np.array([one for one, _ in mine], np.int64)
        batch = Records(topic, zeros + partition, offset, zeros + KAFKA_MS, [b"key"] * n, [value for _, value in mine])
        prepared = processor.prepare(batch, zeros)
        assert not prepared.status.any()
        end = int(offset[-1]) + 1 if n else 0
        at = prepared.rows.schema.get_field_index(TOPIC_ID)
        rows = prepared.rows.set_column(at, prepared.rows.schema.field(at), pa.repeat(TOPIC, n))
        table.append([rows] if n else [], [Move(app_id, table.next_offset(app_id), end)])


def fill_from(folder: Path, log: MemoryLog, topic: str, partitions: int) -> None:
    """Put what readers see of a topic in memory into its table."""
    found = {}
    for p in range(partitions):
        stored = log.partition_log(topic, p)
        seen = set(map(id, log.visible(topic, p)))
        found[p] = [(offset, one.value) for offset, one in enumerate(stored) if id(one) in seen]
    fill_values(folder, topic, found)
