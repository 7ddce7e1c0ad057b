"""Are the features that came out with the decisions the published ones, and the offline ones bit for bit?

A value that is missing on one side alone is a difference, whatever the reason; a decision's marks say which reason, and where there is no
mark, nobody noticed. A comparison that could not have failed, of no rows or of columns that are all alike, does not hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from services.core.columns import TransactionColumns, type_bool, type_f64, type_i64
from services.core.features import FEATURE_NAMES
from services.core.kernels import group_text
from services.core.offline import compute_offline
from services.core.terminal.windows import REACH_MS, fraud_labels
from services.core.vacuous import VacuousError, require_varied
from services.offline.datasets.fields import namespaced_uuid
from services.offline.datasets.published import PUBLISHED
from tests.benchmarks.collecting import Collected, Marks, ids_of

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

    def offline(self) -> type_f64:
        """Return the vectors (n, features) that training would see."""
        return compute_offline(self.columns, fraud_labels(self.columns, self.fraud)).vectors


@dataclass(frozen=True, slots=True)
class Published:
    """Published features, in any order."""

    ids: Any
    """(m,) of their transactions, as 16-byte voids."""
    values: Mapping[str, type_f64]
    """(m,) by our name of the feature."""

    @classmethod
    def read(cls, path: Path, namespace: str) -> Published:
        """Read a file of them, by TRANSACTION_ID in the namespace of a mapping."""
        table = pq.read_table(path, columns=["TRANSACTION_ID", *PUBLISHED])
        identifiers = table.column("TRANSACTION_ID").to_pylist()
        raw = b"".join(namespaced_uuid(namespace, identifier).bytes for identifier in identifiers)
        values = {ours: np.asarray(table.column(theirs).to_numpy(), np.float64) for theirs, ours in PUBLISHED.items()}
        return cls(np.frombuffer(raw, "V16"), values)


@dataclass(frozen=True, slots=True)
class Parity:
    """What a comparison found: all counts are of transactions."""

    transactions: int
    undecided: int
    """Without any decision."""
    again: int
    """Decisions beside the first of their transaction."""
    strangers: int
    """That were not replayed, and have a decision."""
    marks: dict[str, int]
    """Decided below CHAMPION, or without something, by what the decision says of it."""
    offline_different: int
    """Any of the features, offline and online, differ in any bit; a value on one side alone differs."""
    one_sided: int
    """A value is missing on one side alone."""
    unmarked: int
    """The same, and the decision does not say why."""
    valueless: tuple[str, ...]
    """Features that have no value on either side, in any row: nothing is known of them."""
    published: int
    """Published rows that are compared."""
    twins: int
    """Published rows that share card and second with another transaction: their order is the publisher's secret."""
    published_different: dict[str, int]
    """Published rows that differ beyond the tolerance, or have a value on one side alone, by feature."""
    vacuous: tuple[str, ...] = field(default=())
    """Why the comparison could not have failed."""

    @property
    def holds(self) -> bool:
        """Whether everything was there, and nothing differs."""
        incomplete = self.undecided or self.again or self.strangers
        return not (incomplete or self.offline_different or any(self.published_different.values()) or self.vacuous)

    def line(self) -> str:
        """Return the one line that says so."""
        verdict = "PARITY HOLDS" if self.holds else "PARITY BROKEN"
        wrong = {name: count for name, count in self.published_different.items() if count}
        decided = self.transactions - self.undecided
        said = [
            f"{decided:,} of {self.transactions:,} transactions decided, {self.again:,} again, {self.strangers:,} strangers",
            f"marked: {self.marks or 'none'}",
            f"{len(FEATURE_NAMES) - len(self.valueless)} of {len(FEATURE_NAMES)} features have values (none: {', '.join(self.valueless) or '-'})",
            f"online and offline bit-equal on {decided - self.offline_different:,} rows, different on {self.offline_different:,}",
            f"a value missing on one side on {self.one_sided:,} rows, without a mark on {self.unmarked:,}",
            f"{len(self.published_different)} published features compared on {self.published:,} rows, differing: {wrong or 'none'}",
            f"{self.twins:,} same-second twins aside",
            *(f"nothing follows: {why}" for why in self.vacuous),
        ]
        return f"{verdict}: {'; '.join(said)}"


def same_second_twins(columns: TransactionColumns) -> type_bool:
    """Return which transactions share card and second with another."""
    slot, _ = group_text(columns.card_id, np.zeros(len(columns), np.int64))
    pairs = np.stack([slot, columns.event_time_ms // 1000], axis=1)
    _, inverse, counts = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    return counts[inverse.reshape(-1)] > 1


def bits_differ(a: type_f64, b: type_f64) -> type_bool:
    """Return the rows in which any of the features differ in any bit (two NaN are equal, one is not)."""
    return ((a.view(np.int64) != b.view(np.int64)) & ~(np.isnan(a) & np.isnan(b))).any(axis=1)


def compare(columns: TransactionColumns, offline: type_f64, collected: Collected, published: Published) -> Parity:
    """Compare what came out with offline features and published ones. Pure.

    Args:
        columns: n transactions that were replayed, in their order, each with an id of its own.
        offline: (n, features) computed from them.
        collected: the decisions, in any order.
        published: what was published, in any order; rows of other transactions are left out.
    """
    mine = ids_of(columns)
    if len(np.unique(mine)) < len(mine):
        raise ValueError("two of the transactions have the same id")
    row = collected.rows_of(mine)
    decided, distinct = row >= 0, len(np.unique(collected.ids))
    online, marked = collected.vectors[row[decided]], collected.marks[row[decided]]
    silent = np.isin(marked, [at for at, kind in enumerate(collected.kinds) if not kind])
    theirs = offline[decided]
    one_sided = (np.isnan(online) != np.isnan(theirs)).any(axis=1)
    without = np.flatnonzero(np.asarray((np.isnan(online) & np.isnan(theirs)).all(axis=0)))
    compared, twins, different, vacuous = _compare_published(columns, collected, row, published)
    return Parity(
        transactions=len(mine),
        undecided=int(np.count_nonzero(~decided)),
        again=len(collected) - distinct,
        strangers=distinct - int(np.count_nonzero(decided)),
        marks=_by_mark(np.bincount(marked, minlength=len(collected.kinds)), collected.kinds),
        offline_different=int(np.count_nonzero(bits_differ(online, theirs))),
        one_sided=int(np.count_nonzero(one_sided)),
        unmarked=int(np.count_nonzero(one_sided & silent)),
        valueless=tuple(FEATURE_NAMES[at] for at in without.tolist()),
        published=compared,
        twins=twins,
        published_different=different,
        vacuous=vacuous if decided.any() else ("no transaction was decided on", *vacuous),
    )  # fmt: skip


def _by_mark(counts: type_i64, kinds: Sequence[Marks]) -> dict[str, int]:
    by_mark: Counter[str] = Counter()
    for count, kind in zip(counts.tolist(), kinds, strict=True):
        by_mark.update(dict.fromkeys(kind, count))
    return {name: count for name, count in sorted(by_mark.items()) if count}


def _compare_published(
    columns: TransactionColumns, collected: Collected, row: Any, published: Published
) -> tuple[int, int, dict[str, int], tuple[str, ...]]:
    """Return how many rows were compared, how many twins were not, how many differ by feature, and why nothing follows."""
    mine = ids_of(columns)
    order = np.argsort(mine)
    known = np.flatnonzero(np.isin(published.ids, mine))
    if not len(known):
        return 0, 0, dict.fromkeys(published.values, 0), ("no published row is of these transactions",)
    at = order[np.searchsorted(mine[order], published.ids[known])]
    # Where windows reach back to before what was replayed, the publisher knew more.
    inside = columns.event_time_ms[at] - columns.event_time_ms.min() >= REACH_MS
    twins = same_second_twins(columns)[at] & inside
    chosen = np.flatnonzero(inside & ~twins & (row[at] >= 0))
    online = collected.vectors[row[at[chosen]]]
    different, vacuous = {}, []
    for name, values in published.values.items():
        theirs, ours = values[known[chosen]], online[:, FEATURE_NAMES.index(name)]
        tolerance = MEAN_TOLERANCE if "mean" in name else 0.0
        # Not `> tolerance`, of which NaN knows nothing.
        different[name] = int(np.count_nonzero(~(np.abs(ours - theirs) <= tolerance)))
        try:
            require_varied(f"published {name}", theirs)
        except VacuousError as error:
            vacuous.append(str(error))
    return len(chosen), int(np.count_nonzero(twins)), different, tuple(vacuous)
