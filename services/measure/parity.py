"""Are the features that came out with the decisions the published ones, and the offline ones, bit for bit?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from services.codec.reading import ColumnarReader
from services.codec.schemas import topics
from services.core.columns import TransactionColumns, type_bool, type_f64, type_u8
from services.core.features import FEATURE_NAMES
from services.core.kernels import group_text
from services.core.offline import compute_offline
from services.core.terminal_features import TERMINAL_COLUMNS
from services.core.terminals import REACH_MS, fraud_labels
from services.datasets.mapping import namespaced_uuid
from services.datasets.published import PUBLISHED
from services.streams import Records

MEAN_TOLERANCE: Final = 1e-9
"""Published means are running float sums; ours are exact sums divided once."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Recorded transactions in their order, and which of them were frauds."""

    columns: TransactionColumns
    fraud: type_bool

    def between(self, begin_ms: int, end_ms: int) -> Recorded:
        """Return those of an interval of event time; its end is excluded."""
        rows = (self.columns.event_time_ms >= begin_ms) & (self.columns.event_time_ms < end_ms)
        return Recorded(self.columns.take(rows), self.fraud[rows])


@dataclass(slots=True)
class VectorCollector:
    """Collects what decisions say: transaction ids and vectors."""

    ids: list[type_u8] = field(default_factory=list)
    vectors: list[type_f64] = field(default_factory=list)
    count: int = 0
    _reader: ColumnarReader = field(
        default_factory=lambda: ColumnarReader(
            topics()["card-decisions"].latest, topics()["card-decisions"].record_bytes_max
        )
    )

    def add(self, records: Records) -> None:
        """Take a batch of decisions."""
        columns = self._reader.read(records.values)
        self.ids.append(columns.fixed("transaction_id"))
        self.vectors.append(columns.vectors("features", len(FEATURE_NAMES)))
        self.count += len(columns.rows)

    def by_id(self) -> tuple[Any, type_f64]:
        """Return the distinct ids, sorted, as 16-byte voids, and the vector of each."""
        ids, first = np.unique(
            np.ascontiguousarray(np.concatenate(self.ids)).view("V16").reshape(-1), return_index=True
        )
        return ids, np.concatenate(self.vectors)[first]


@dataclass(frozen=True, slots=True)
class Parity:
    """What a comparison found."""

    transactions: int
    published_rows: int
    twins: int
    """Published rows that share card and second with another transaction: their order is the publisher's secret."""
    published_different: dict[str, int]
    """Rows that differ beyond the tolerance, by feature, twins aside."""
    offline_different: int
    """Transactions of which any of the features, offline and online, differ in any bit; terminals that were unknown aside."""
    unknown: int
    """Transactions that were decided before anything was known of their terminal's partition."""

    @property
    def holds(self) -> bool:
        """Whether nothing differs."""
        return self.offline_different == 0 and not any(self.published_different.values())

    def line(self) -> str:
        """Return the one line that says so."""
        verdict = "PARITY HOLDS" if self.holds else "PARITY BROKEN"
        wrong = {name: count for name, count in self.published_different.items() if count}
        return (
            f"{verdict}: {self.transactions:,} decisions; {len(self.published_different)} published features equal on {self.published_rows - self.twins:,} of "
            f"{self.published_rows:,} rows ({self.twins} same-second twins aside), differing: {wrong or 'none'}; "
            f"{len(FEATURE_NAMES)} features online and offline bit-equal on all but {self.offline_different:,} "
            f"(nothing known of terminals in the first {self.unknown:,})"
        )


def same_second_twins(columns: TransactionColumns) -> type_bool:
    """Return which transactions share card and second with another."""
    slot, _ = group_text(columns.card_id, np.zeros(len(columns), np.int64))
    pairs = np.stack([slot, columns.event_time_ms // 1000], axis=1)
    _, inverse, counts = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    return counts[inverse.reshape(-1)] > 1


def bits_differ(a: type_f64, b: type_f64) -> type_bool:
    """Return the rows in which any of the features differ in any bit (two NaN are equal)."""
    return ((a.view(np.int64) != b.view(np.int64)) & ~(np.isnan(a) & np.isnan(b))).any(axis=1)


def _ids(columns: TransactionColumns) -> Any:
    return np.ascontiguousarray(columns.transaction_id).view("V16").reshape(-1)


def online_vectors(columns: TransactionColumns, collected: VectorCollector) -> type_f64:
    """Return the vector that came out for each transaction, in their order."""
    ids, vectors = collected.by_id()
    mine = _ids(columns)
    at = np.minimum(np.searchsorted(ids, mine), len(ids) - 1)
    assert np.array_equal(ids[at], mine), "a transaction has no decision"
    return vectors[at]


def compare(recorded: Recorded, features: Path, collected: VectorCollector, namespace: str) -> Parity:
    """Compare online vectors with published and with offline ones.

    Args:
        recorded: what was replayed.
        features: the published features, by TRANSACTION_ID.
        collected: what came out.
        namespace: the mapping's namespace of transaction ids.
    """
    columns = recorded.columns
    mine, online = _ids(columns), online_vectors(columns, collected)
    offline = compute_offline(columns, fraud_labels(columns, recorded.fraud)).vectors
    unknown = np.isnan(online[:, TERMINAL_COLUMNS[0]])
    offline[np.ix_(unknown, TERMINAL_COLUMNS)] = online[np.ix_(unknown, TERMINAL_COLUMNS)]
    order = np.argsort(mine)
    table = pq.read_table(features, columns=["TRANSACTION_ID", *PUBLISHED])
    published_ids = _uuids(table.column("TRANSACTION_ID").to_pylist(), namespace)
    place = np.minimum(np.searchsorted(mine[order], published_ids), len(mine) - 1)
    rows = order[place]
    present = mine[rows] == published_ids
    twins = same_second_twins(columns)[rows] & present
    # Where windows reach back to before what was replayed, the publisher knew more.
    compared = present & ~twins & (columns.event_time_ms[rows] - columns.event_time_ms.min() >= REACH_MS)
    different = {}
    for theirs, ours in PUBLISHED.items():
        gap = np.abs(online[rows, FEATURE_NAMES.index(ours)] - table.column(theirs).to_numpy())
        tolerance = MEAN_TOLERANCE if "mean" in ours else 0.0
        different[ours] = int((gap[compared] > tolerance).sum())
    return Parity(
        len(online), int((compared | twins).sum()), int(twins.sum()), different, int(bits_differ(online, offline).sum()),
        int(unknown.sum()),
    )  # fmt: skip


def _uuids(identifiers: Sequence[object], namespace: str) -> Any:
    raw = b"".join(namespaced_uuid(namespace, identifier).bytes for identifier in identifiers)
    return np.frombuffer(raw, "V16")
