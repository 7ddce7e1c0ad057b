"""A training set made part by part: with memory for a part, however long the history is, by one process or by many.

The log is cut into ranges of offsets, the same of each of its partitions, so that a range is about one time and files of other times are passed over.
Each range is joined with its decisions and with the labels of these. If the log is folded again, too, the rows of each range are first put into buckets
by card, through files: the cards of a bucket are folded together, and no card is in two. Terminals are seen by many cards: they are folded by
buckets of their own, where rows of another feature set need them at all. A row of the log carries the latest time of the whole log up to it (``clock_ms``),
which says where it stands among all others, and which labels were known: so each bucket is folded as if the whole log went by.

The rows are those of :func:`services.offline.datasets.served.read_served`, bit by bit, in as many files as there are parts.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from services.core.columns import type_f64, type_i64
from services.core.features import FEATURE_NAMES, FEATURE_SET_HASH
from services.core.kernels import hash_text
from services.core.offline import compute_offline, see_terminals
from services.core.terminal.features import TERMINAL_COLUMNS
from services.lake.queries import Lake
from services.offline.datasets.recomputed import (
    IN_ORDER,
    LOG_COLUMNS,
    begins_of,
    columns_of,
    compare,
    read_heads,
    read_label_events,
    read_log,
    text_of,
)
from services.offline.datasets.served import (
    TABLES,
    OffsetRange,
    Served,
    TrainingPeriod,
    added,
    as_table,
    count_late,
    describe,
    read_rows,
    require_tables,
)
from services.offline.workers import TaskRunner

ROWS_A_PART: Final = 100_000
"""At most so many records of the log are handled at once."""
BUCKETS_A_RANGE: Final = 2
"""A bucket's profiles come beside its rows, and the busiest terminals and cards make some buckets larger than others."""
LABELS_AT_ONCE: Final = 2_000_000
PARTS: Final = "transactions"
"""The folder of the parts within that of the training set."""
_EXTENT: Final = """
    SELECT min(o) AS first, max(o) AS last, greatest(count(DISTINCT (topic, p)) FILTER (logged), count(DISTINCT p) FILTER (NOT logged)) AS partitions
    FROM (
        SELECT true AS logged, coalesce(kafka_topic_id, '') AS topic, kafka_partition AS p, kafka_offset AS o FROM card_transactions
        UNION ALL SELECT false, '', source_partition, source_offset FROM card_decisions
    )
"""
_OTHERS: Final = "SELECT count(*) AS n FROM card_decisions WHERE feature_set_hash != $hash"
_LABELS: Final = "SELECT count(*) AS n FROM fraud_labels"
_VECTOR: Final = "vector"
_SERVED_ORDER: Final = [(name, "ascending") for name in ("event_time_ms", "source_partition", "source_offset")]


@dataclass(frozen=True, slots=True)
class PartedBuild:
    """What every task of a build is given."""

    lake_url: str
    versions: dict[str, int]
    """Of the tables: all tasks see the same."""
    wanted: TrainingPeriod
    output: Path
    """Where the parts go."""
    scratch: Path
    """For what goes from task to task."""
    buckets: int
    terminals: bool
    """Whether terminals are to be folded: rows of another feature set are there."""

    def open_lake(self) -> Lake:
        """Open the lake as it was when the build began. Raises LakeError."""
        return Lake(self.lake_url, TABLES, self.versions)

    def write(self, table: pa.Table, *where: str | int) -> None:
        """Write a file for other tasks, whole or not at all."""
        _write(table, self.scratch.joinpath(*map(str, where)).with_suffix(".parquet"), use_dictionary=False)

    def read(self, kind: str, bucket: int) -> pa.Table | None:
        """Return what all tasks wrote of a bucket; None if there is nothing."""
        files = sorted((self.scratch / kind / str(bucket)).glob("*.parquet"))
        return pa.concat_tables([pyarrow.parquet.read_table(one) for one in files]) if files else None

    def write_part(self, served: Served, number: int) -> None:
        """Write a part of the training set, unless it is empty."""
        if len(served.table):
            _write(as_table(served), self.output / f"part-{number:05}.parquet")


def _write(table: pa.Table, path: Path, **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(
        f".{uuid4().hex}"
    )  # a task that seemed lost may still write, beside the one that does it again
    pyarrow.parquet.write_table(table, unfinished, compression="zstd", **how)
    unfinished.replace(path)


def build_parted(
    lake: Lake, wanted: TrainingPeriod, folder: Path, runner: TaskRunner, code_revision: str
) -> dict[str, Any]:
    """Write a training set in parts into ``folder``/transactions, and return what it is. What was there is gone.

    With ``wanted.all_feature_sets`` the log is folded again, too, as :func:`services.offline.datasets.recomputed.recompute` does.

    Raises:
        TrainingSetError: a table is missing.
        LakeError: the lake cannot be read.
        ClusterError: the workers are gone.
        OSError: files cannot be written.
    """
    require_tables(lake)
    versions = {name: table.version() for name, table in lake.tables.items()}
    url = lake.url if "://" in lake.url else str(Path(lake.url).resolve())
    with _fresh(folder / PARTS) as (output, scratch):
        build = PartedBuild(url, versions, wanted, output, scratch, 1, terminals=False)
        # By a lake of its own, as every task: a table that was read whole remembers something of each of its files.
        [extent] = runner.run("looking how long the log is", extent_of, [(build,)])
        ranges = ranges_of(extent)
        build = replace(
            build,
            buckets=max(1, BUCKETS_A_RANGE * len(ranges)),
            terminals=wanted.all_feature_sets and extent["others"] > 0,
        )
        shares = 1 + extent["labels"] // LABELS_AT_ONCE
        late = runner.run("counting labels", late_of, [(build, share, shares) for share in range(shares)])
        more: dict[str, Any] = {}
        if wanted.all_feature_sets:
            counted, folded = _folded(build, ranges, runner)
            more = {"recomputed": folded}
        else:
            counted = runner.run("joining", join_range, [(build, i, one) for i, one in enumerate(ranges)])
        frauds, later = (sum(one[k] for one in late) for k in (0, 1))
        described = describe(lake, wanted, added(counted), (frauds, later), code_revision)
    return described | more | {"parts": len(list(parts_of(folder)))}


def parts_of(folder: Path) -> list[Path]:
    """Return the files of a training set that was made in parts, in their order."""
    return sorted((folder / PARTS).glob("part-*.parquet"))


@contextmanager
def _fresh(output: Path) -> Iterator[tuple[Path, Path]]:
    """Give a folder that takes the place of another one when all went well, and one that is thrown away."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output.parent, prefix=".building-") as temporary:
        made, scratch = (Path(temporary).resolve() / name for name in ("made", "scratch"))
        made.mkdir()
        scratch.mkdir()
        yield made, scratch
        if output.exists():
            shutil.rmtree(output)
        made.rename(output)


def extent_of(build: PartedBuild) -> dict[str, Any]:
    """Task: return the first and the last offset of the log, how many partitions it has, how many decisions are of other feature sets, and labels."""
    lake = build.open_lake()
    [found] = lake.query(_EXTENT).to_pylist()
    others = lake.query(_OTHERS, {"hash": FEATURE_SET_HASH}) if build.wanted.all_feature_sets else pa.table({"n": [0]})
    return found | {"others": others["n"][0].as_py(), "labels": lake.query(_LABELS)["n"][0].as_py()}


def ranges_of(extent: dict[str, Any], rows: int = ROWS_A_PART) -> list[OffsetRange]:
    """Return ranges that hold every offset of an extent; none has more records of the log than so many."""
    if extent["first"] is None:
        return []
    step = max(1, rows // extent["partitions"])
    return [OffsetRange(begin, begin + step) for begin in range(extent["first"], extent["last"] + 1, step)]


def late_of(build: PartedBuild, share: int, shares: int) -> tuple[int, int]:
    """Task: count frauds, and those that were noticed late, of a share of the transactions."""
    return count_late(build.open_lake(), build.wanted, share, shares)


def join_range(build: PartedBuild, number: int, within: OffsetRange) -> dict[str, Any]:
    """Task: write the rows of a range as a part; return what was counted."""
    served = read_rows(build.open_lake(), build.wanted, within)
    build.write_part(served, number)
    return served.description


def _folded(
    build: PartedBuild, ranges: list[OffsetRange], runner: TaskRunner
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    heads = runner.run("looking through the log", heads_of_range, [(build, one) for one in ranges])
    latest: dict[tuple[str, int], int] = {}
    tasks = []
    for number, (within, found) in enumerate(zip(ranges, heads, strict=True)):
        tasks.append((build, (number, within), dict(latest)))
        for one in found:
            key = one["topic_id"], one["partition"]
            latest[key] = max(one["latest_ms"], latest.get(key, one["latest_ms"]))
    counted = runner.run("sorting by card", split_range, tasks)
    shares = [(build, bucket) for bucket in range(build.buckets)]
    if build.terminals:
        runner.run("folding terminals", fold_terminals, shares)
    begins = begins_of(one for found in heads for one in found)
    said: Counter[str] = Counter()
    for one in runner.run("folding cards", fold_cards, [(*share, begins) for share in shares]):
        said.update(one)
    return counted, {name: said[name] for name in ("compared", "different", "rows_too_early", "rows_made")}


def heads_of_range(build: PartedBuild, within: OffsetRange) -> list[dict[str, Any]]:
    """Task: see :func:`services.offline.datasets.recomputed.read_heads`."""
    return read_heads(build.open_lake(), build.wanted, within)


def split_range(
    build: PartedBuild, place: tuple[int, OffsetRange], latest: dict[tuple[str, int], int]
) -> dict[str, Any]:
    """Task: put the log of a range, and what was served of it, into buckets; return what was counted.

    Args:
        build: the build.
        place: the range's number, and the range.
        latest: the latest time of each partition of the log before the range.
    """
    lake, (number, within) = build.open_lake(), place
    served = read_rows(lake, build.wanted, within)
    log = _with_clock(read_log(lake, build.wanted, within), latest).select([*LOG_COLUMNS, *IN_ORDER])
    rows = served.table.append_column(_VECTOR, _packed(served.vectors))
    kinds = [("log", log, "card_id"), ("served", rows, "card_id"), ("terminals", log, "terminal_id")]
    for kind, table, column in kinds if build.terminals else kinds[:2]:
        for bucket, some in _by_bucket(table, column, build.buckets):
            build.write(some, kind, bucket, number)
    return served.description


def _packed(vectors: type_f64) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).ravel()), len(FEATURE_NAMES))


def _with_clock(log: pa.Table, latest: dict[tuple[str, int], int]) -> pa.Table:
    keys = zip(log["kafka_topic_id"].fill_null("").to_pylist(), log["kafka_partition"].to_pylist(), strict=True)
    before = np.array([latest.get(key, -(2**62)) for key in keys], np.int64)
    clock = np.maximum(log["clock_ms"].to_numpy(), before)
    return log.set_column(log.schema.get_field_index("clock_ms"), "clock_ms", pa.array(clock))


def _by_bucket(table: pa.Table, column: str, buckets: int) -> Iterator[tuple[int, pa.Table]]:
    """Yield the buckets of which a table has rows, and these."""
    if not len(table):
        return
    bucket: type_i64 = (hash_text(text_of(table[column])) % np.uint64(buckets)).astype(np.int64)
    order = np.argsort(bucket, kind="stable")
    found, begin = np.unique(bucket[order], return_index=True)
    in_order = table.take(pa.array(order))
    for one, at, stop in zip(found.tolist(), begin.tolist(), [*begin.tolist()[1:], len(order)], strict=True):
        yield one, in_order.slice(at, stop - at)


def _in_order(log: pa.Table) -> pa.Table:
    return log.sort_by([(name, "ascending") for name in IN_ORDER])


def fold_terminals(build: PartedBuild, bucket: int) -> None:
    """Task: fold the terminals of a bucket; write what each transaction was to see of them, by the buckets of the cards."""
    log = build.read("terminals", bucket)
    if log is None:
        return
    log = _in_order(log)
    lake, vectors = build.open_lake(), np.full((len(log), len(FEATURE_NAMES)), np.nan)
    labels = read_label_events(lake, build.wanted, log.select(["terminal_id"]))
    see_terminals(columns_of(log), labels, log["clock_ms"].to_numpy(), vectors)
    seen = log.select([*IN_ORDER, "card_id"]).append_column(_VECTOR, _packed(vectors))
    for card_bucket, some in _by_bucket(seen, "card_id", build.buckets):
        build.write(some, "seen", card_bucket, bucket)


def fold_cards(build: PartedBuild, bucket: int, begins: dict[tuple[str, int], int]) -> dict[str, int]:
    """Task: fold the cards of a bucket, compare with what was served of them, and write that as a part; return what was counted."""
    rows, log, seen = (build.read(kind, bucket) for kind in ("served", "log", "seen"))
    if rows is None or log is None:
        return {}
    log, rows = _in_order(log), rows.sort_by(_SERVED_ORDER)
    folded = compute_offline(columns_of(log)).vectors
    if seen is not None:
        # Each row of the log is in both, once.
        folded[:, TERMINAL_COLUMNS] = _vectors(_in_order(seen))[:, TERMINAL_COLUMNS]
    served = Served(rows.drop_columns([_VECTOR]), _vectors(rows), {})
    made = compare(served, log, folded, begins)
    build.write_part(Served(served.table, made.vectors, {}), bucket)
    return {
        "compared": made.compared, "different": made.different, "rows_too_early": made.too_early, "rows_made": made.made,
    }  # fmt: skip


def _vectors(table: pa.Table) -> type_f64:
    flat: type_f64 = pc.list_flatten(table[_VECTOR]).to_numpy()
    return flat.reshape(-1, len(FEATURE_NAMES)).copy()
