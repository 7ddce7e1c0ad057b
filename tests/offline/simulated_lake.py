"""A lake as a year of serving would leave it behind, made at once: simulated traffic, its vectors and decisions, and labels as they come."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from services.archiver.processor import of_topic
from services.core.classes import classify
from services.core.columns import Text, uuid_text
from services.core.features import FEATURE_SET_HASH
from services.core.kernels import partitions_of
from services.core.offline import compute_offline
from services.core.policy import Action
from services.core.profiles import DAY_MS
from services.core.terminal.windows import label_events
from services.inference.artifact import load_model
from services.inference.released import live_model
from services.lake.table import LakeTable, Move, app_id_of
from services.offline.datasets.parquet import write_parquet
from services.offline.simulator.generate import simulate
from services.offline.simulator.reference import simulate_reference
from services.offline.simulator.traffic import SCENARIOS, Traffic, draw_labels

START_MS = 1_750_032_000_000
TOPIC_ID = "the-topics-id"
PARTITIONS = 4
DAYS_AT_ONCE = 10


def fill_simulated(folder: Path, cards: int, days: int, seed: int = 11, other_share: float = 0.0) -> date:
    """Fill a lake; return the day behind its last one.

    Args:
        folder: where the lake is.
        cards: how many.
        days: how many.
        seed: of the simulation; of the labels, too.
        other_share: of the decisions, how many are of another feature set; as many of either are repeats or below the champion.
    """
    traffic = simulate(cards, days, seed, START_MS)
    columns, rng = traffic.columns, np.random.default_rng(seed)
    drawn = draw_labels(traffic, rng)
    fraud = traffic.scenario > 0
    labels = label_events(columns, drawn.rows, fraud[drawn.rows], drawn.known_at_ms)
    reference = simulate_reference(columns, traffic.scenario == 0, seed).rows_of(columns)
    vectors = compute_offline(columns, labels, reference).vectors
    transactions, decisions = _transactions(traffic, folder), _decisions(vectors, rng, other_share)
    day = (columns.event_time_ms - START_MS) // DAY_MS
    for first in range(0, days, DAYS_AT_ONCE):
        rows = pa.array(np.flatnonzero((day >= first) & (day < first + DAYS_AT_ONCE)))
        some = transactions.take(rows)
        append(folder, "card-transactions", some)
        append(folder, "card-decisions", _joined(some, decisions.take(rows)))
    append(folder, "fraud-labels", _labels(transactions, traffic, drawn))
    return datetime.fromtimestamp(START_MS / 1000, UTC).date() + timedelta(days=days)


def _transactions(traffic: Traffic, folder: Path) -> pa.Table:
    columns = traffic.columns
    path = folder / "made.parquet"
    write_parquet(path, columns, traffic.scenario, SCENARIOS)
    table = pyarrow.parquet.read_table(path).drop_columns(["is_fraud", "scenario"])
    path.unlink()
    partition = partitions_of(columns.card_id, PARTITIONS)
    offset = np.empty(len(columns), np.int64)
    for one in range(PARTITIONS):
        mine = np.flatnonzero(partition == one)
        offset[mine] = np.arange(len(mine))
    more = {
        "transaction_id": _strings(uuid_text(columns.transaction_id)),
        "kafka_topic_id": pa.repeat(TOPIC_ID, len(columns)),
        "kafka_partition": pa.array(partition.astype(np.int32)),
        "kafka_offset": pa.array(offset),
        "kafka_timestamp_ms": pa.array(columns.event_time_ms),
    }
    return _with(table, more | {"event_date": _days(columns.event_time_ms)})


def _strings(text: Text) -> pa.Array:
    return pa.array(text.tolist(), pa.binary()).cast(pa.string())


def _days(time_ms: np.ndarray) -> pa.Array:
    return pa.array((time_ms // DAY_MS).astype(np.int32)).cast(pa.date32())


def _with(table: pa.Table, columns: dict[str, Any]) -> pa.Table:
    for name, values in columns.items():
        if name in table.column_names:
            table = table.drop_columns([name])
        table = table.append_column(name, values)
    return table


def _decisions(vectors: np.ndarray, rng: np.random.Generator, other_share: float) -> pa.Table:
    n, model = len(vectors), load_model(live_model())
    scores, classes = model.champion.predict(vectors), classify(vectors)
    actions = model.champion.actions(classes, scores)
    drawn = rng.random(n)
    other, repeat = (drawn < other_share), (drawn > 1 - other_share)
    below = (drawn > 1 - 2 * other_share) & ~repeat
    features = [[1.0, 2.0] if changed else vector for changed, vector in zip(other, vectors, strict=True)]
    return pa.table(
        {
            "action": pa.array([Action(one).name for one in actions.tolist()]),
            "score": pa.array(scores),
            "decided_by": pa.repeat("MODEL", n),
            "fallback_tier": pa.array(np.where(below, "SMALL_MODEL", "CHAMPION").tolist()),
            "feature_set_hash": pa.array(np.where(other, "another", FEATURE_SET_HASH).tolist()),
            "features": pa.array(features, pa.list_(pa.float64())),
            "repeat": pa.array(repeat),
            "model_version": pa.repeat(model.version, n),
        }
    )


def _joined(transactions: pa.Table, decisions: pa.Table) -> pa.Table:
    same = ("transaction_id", "card_id", "terminal_id", "event_time_ms", "event_date")
    table = transactions.select([*same, "kafka_topic_id", "kafka_partition", "kafka_offset", "kafka_timestamp_ms"])
    for name in decisions.column_names:
        table = table.append_column(name, decisions[name])
    return _with(
        table,
        {
            "source_partition": transactions["kafka_partition"],
            "source_offset": transactions["kafka_offset"],
            "decided_at_ms": pc.add(transactions["event_time_ms"], 20),
        },
    )


def _labels(transactions: pa.Table, traffic: Traffic, drawn: Any) -> pa.Table:
    n, scenario = len(drawn.rows), traffic.scenario[drawn.rows]
    table = transactions.select(
        ["transaction_id", "card_id", "terminal_id", "event_time_ms", "kafka_topic_id", "event_date"]
    )
    more = {
        "is_fraud": pa.array(scenario > 0),
        "scenario": pa.array(np.array(SCENARIOS, object)[scenario]),
        "known_at_ms": pa.array(drawn.known_at_ms),
        "source": pa.repeat("SIMULATOR", n),
        "kafka_partition": pa.repeat(pa.scalar(0, pa.int32()), n),
        "kafka_offset": pa.array(np.arange(n)),
        "kafka_timestamp_ms": pa.array(drawn.known_at_ms),
    }
    return _with(table.take(pa.array(drawn.rows)), more)


def append(folder: Path, topic: str, rows: pa.Table) -> None:
    """Append rows to a table; columns that they lack are null."""
    schema = of_topic(topic).schema
    table = LakeTable(str(folder), topic, schema)
    table.open()
    app_id = app_id_of(topic, 0, TOPIC_ID)
    before = table.next_offset(app_id)
    there = {name: rows[name] for name in rows.column_names}
    filled = [there[one.name].cast(one.type) if one.name in there else pa.nulls(len(rows), one.type) for one in schema]
    batches = pa.table(filled, schema=schema).combine_chunks().to_batches()
    table.append(list(batches), [Move(app_id, before, (before or 0) + len(rows))])
