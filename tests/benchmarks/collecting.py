"""What came out of running services: the vectors of decisions, and what each decision says that it was made without."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from services.codec.reading import ColumnarReader
from services.codec.records import decode_as_newest
from services.codec.schemas import topics
from services.core.columns import TransactionColumns, type_f64, type_i64, type_u8
from services.core.fallback import FallbackTier
from services.core.features import FEATURE_NAMES
from services.core.vacuous import VacuousError
from services.streams import Records

Marks = tuple[str, ...]
"""What a decision says that it was made without: its fallback tier below CHAMPION, and the names of ``degraded``."""
UNMARKED: Final[Marks] = ()


def ids_of(columns: TransactionColumns) -> Any:
    """Return the transactions' ids (n,) as 16-byte voids."""
    return _as_voids(columns.transaction_id)


def _as_voids(ids: type_u8) -> Any:
    return np.ascontiguousarray(ids).view("V16").reshape(-1)


@dataclass(frozen=True, slots=True)
class Collected:
    """Decisions, in the order in which they were seen."""

    ids: Any
    """(n,) of their transactions, as 16-byte voids."""
    vectors: type_f64
    """(n, features)"""
    marks: type_i64
    """(n,) which of ``kinds`` each says."""
    kinds: tuple[Marks, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def rows_of(self, wanted: Any) -> type_i64:
        """Return (m,) the first decision on each of these transactions, -1 where there is none."""
        ids, first = np.unique(self.ids, return_index=True)
        if not len(ids):
            return np.full(len(wanted), -1, np.int64)
        at = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
        return np.where(ids[at] == wanted, first[at], -1).astype(np.int64)

    def complete_vectors(self, columns: TransactionColumns) -> type_f64:
        """Return the vector (n, features) of each transaction, in their order, where all was at hand for every decision.

        Raises:
            VacuousError: a transaction has no decision, or one that says that something was missing.
        """
        row = self.rows_of(ids_of(columns))
        undecided = int(np.count_nonzero(row < 0))
        marked = {kind: int(np.count_nonzero(self.marks == at)) for at, kind in enumerate(self.kinds) if kind}
        if undecided or not len(row) or any(marked.values()):
            raise VacuousError(
                f"{undecided:,} of {len(row):,} transactions have no decision; marked as made without something: {marked or 'none'}"
            )
        return self.vectors[row]


@dataclass(slots=True)
class VectorCollector:
    """Collects decisions, batch by batch."""

    count: int = 0
    undecodable: int = 0
    _ids: list[type_u8] = field(default_factory=list)
    _vectors: list[type_f64] = field(default_factory=list)
    _marks: list[type_i64] = field(default_factory=list)
    _kinds: dict[tuple[int, bytes], int] = field(default_factory=dict)
    """The marks seen so far, by fallback tier and encoded ``degraded``, and their number."""
    _named: list[Marks] = field(default_factory=list)
    _reader: ColumnarReader = field(default_factory=lambda: ColumnarReader.of(topics()["card-decisions"]))

    def add(self, records: Records) -> None:
        """Take a batch of decisions."""
        columns = self._reader.read(records.values)
        self._ids.append(columns.fixed("transaction_id"))
        self._vectors.append(columns.vectors("features", len(FEATURE_NAMES)))
        said = zip(
            columns.integers("fallback_tier").tolist(),
            columns.text("degraded").tolist(),
            columns.rows.tolist(),
            strict=True,
        )
        self._marks.append(
            np.array([self._kind(one, degraded, records.values[row]) for one, degraded, row in said], np.int64)
        )
        self.count += len(columns.rows)
        self.undecodable += len(records) - len(columns.rows)

    def _kind(self, tier: int, degraded: bytes, value: bytes | None) -> int:
        known = self._kinds.get((tier, degraded))
        if known is None:
            known = self._kinds[tier, degraded] = len(self._named)
            lower = () if tier == FallbackTier.CHAMPION else (FallbackTier(tier).name,)
            self._named.append((*lower, *decode_as_newest(value or b"")[1]["degraded"]))
        return known

    def collected(self) -> Collected:
        """Return all of them."""
        return Collected(
            _as_voids(np.concatenate([np.empty((0, 16), np.uint8), *self._ids])),
            np.concatenate([np.empty((0, len(FEATURE_NAMES))), *self._vectors]),
            np.concatenate([np.empty(0, np.int64), *self._marks]),
            tuple(self._named),
        )
