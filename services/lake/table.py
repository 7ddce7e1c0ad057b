"""One table of the lake: a topic's records, each once, and with them up to which offset of each partition they are there.

The offsets ride in the same Delta commit as the records, as application transactions (Delta's protocol, "Transaction identifiers"). Delta refuses
a commit if another one with the same identifier came since the table was looked at: so of two writers of one partition the later one fails, and
whatever crashes, the table itself says where to go on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from services.lake.columns import DATE
from services.runtime.logs import fields
from services.streams import StreamsError

log = logging.getLogger("proact.lake")

FILE_BYTES: Final = 128 * 1024 * 1024
"""How large a file is made when small ones are put together."""
SMALL_FILES: Final = 8
"""So many files of one day are put together."""
VACUUM_AFTER_H: Final = 7 * 24
"""How long files that no version needs any more are kept for those who still read them."""
STRAY_AFTER_H: Final = 1
"""A file that no log names is of a commit that was killed, once it is so old: none takes so long."""
STORAGE: Final = {"timeout": "8s", "connect_timeout": "3s", "max_retries": "2", "retry_timeout": "10s"}
"""Of a lake that is reached over a network: within the 15 s that Kafka's group waits for a worker."""
_CONFIGURATION: Final = {
    # Above the age of what vacuum deletes: else the log would forget files before they are.
    "delta.deletedFileRetentionDuration": "interval 60 days",
}
COMPRESSION: Final = WriterProperties(compression="ZSTD", compression_level=1)


class LakeError(StreamsError):
    """The lake could not be read or written; the message says where and why."""

    remedy: ClassVar[str] = "see that the folder or bucket of PROACT_LAKE_URL is there, may be written, and has room"


class LakeMovedError(LakeError):
    """Somebody else has written records of a partition since it was taken over."""


@dataclass(frozen=True, slots=True)
class Move:
    """Up to which offset a partition's records are in the table: before a commit, and behind it."""

    app_id: str
    expected: int | None
    target: int


def table_name(topic: str) -> str:
    """Return what a topic's table is called."""
    return topic.replace("-", "_")


def table_url(lake_url: str, topic: str) -> str:
    """Return where a topic's table is."""
    return f"{lake_url.rstrip('/')}/{table_name(topic)}"


def midnight_ms(day: date) -> int:
    """Return when a day begins, in epoch milliseconds."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def app_id_of(topic: str, partition: int, topic_id: str) -> str:
    """Return the identifier of a partition's application transactions; a topic that was made anew begins anew."""
    return f"{topic}-{partition}-{topic_id}"


class LakeTable:
    """The table of one topic. Raises LakeError throughout; one thread at a time."""

    def __init__(self, lake_url: str, topic: str, schema: pa.Schema) -> None:
        self.topic, self.url = topic, table_url(lake_url, topic)
        self._schema = schema
        self._table: DeltaTable | None = None

    def open(self) -> None:
        """Look at the table anew; make it if there is none."""
        with lake_errors(self.url):
            try:
                self._table = opened(self.url)
            except TableNotFoundError:
                self._table = DeltaTable.create(
                    self.url,
                    self._schema,
                    mode="ignore",
                    partition_by=[DATE],
                    description=f"the records of the topic {self.topic}",
                    # Delta's log would hold the least and the largest of every text, whoever was forgotten meanwhile.
                    configuration={
                        **_CONFIGURATION,
                        "delta.dataSkippingStatsColumns": ",".join(_numbers(self._schema)),
                    },
                    storage_options=storage_of(self.url),
                )

    def next_offset(self, app_id: str) -> int | None:
        """Return up to which offset a partition's records are in the table, as far as this has looked; None: there are none."""
        return self._opened.transaction_version(app_id)

    def append(self, batches: Sequence[pa.RecordBatch], moves: Sequence[Move]) -> None:
        """Commit records and offsets together, all or nothing.

        Raises:
            LakeMovedError: the table is not where the moves begin.
            LakeError: it may have happened or not; open the table and ask it.
        """
        with lake_errors(self.url):
            table = self._opened
            table.update_incremental()
            for move in moves:
                found = table.transaction_version(move.app_id)
                if found != move.expected:
                    raise LakeMovedError(f"{self.url} holds {move.app_id} up to {found}, not {move.expected}")
            write_deltalake(
                table,
                pa.RecordBatchReader.from_batches(self._schema, batches),
                mode="append",
                schema_mode="merge",
                writer_properties=COMPRESSION,
                target_file_size=FILE_BYTES,
                commit_properties=CommitProperties(
                    app_transactions=[Transaction(move.app_id, move.target) for move in moves]
                ),
            )

    def compact(self) -> int:
        """Put small files of each day together; return how many days were."""
        with lake_errors(self.url):
            table = opened(self.url)
            small: dict[str, int] = {}
            for one in files_of(table):
                small[one.day] = small.get(one.day, 0) + (one.size_bytes < FILE_BYTES // 2)
            days = [day for day, count in small.items() if count >= SMALL_FILES]
            for day in days:
                table.optimize.compact(
                    partition_filters=[(DATE, "=", day)], target_size=FILE_BYTES, writer_properties=COMPRESSION
                )
        if days:
            log.info("small files were put together", extra=fields(table=self.topic, days=len(days)))
        return len(days)

    def forget_before(self, day: date) -> None:
        """Remove the records of all days before one that Kafka got before it, too: a history that was replayed lately stays."""
        old = pc.field("kafka_timestamp_ms") < midnight_ms(day)
        with lake_errors(self.url):
            table = opened(self.url)
            for one in sorted({found.day for found in files_of(table)}):
                if one < day.isoformat() and table.to_pyarrow_dataset().count_rows(filter=of_day(one) & old):
                    rewrite_day(opened(self.url), one, ~old)

    def vacuum(self, retention_h: int = VACUUM_AFTER_H, *, strays: bool = False) -> int:
        """Delete files that no version of the last hours needs; return how many were.

        Args:
            retention_h: how many hours.
            strays: whether files are looked for, too, that no log names; each file of the table is listed then.
        """
        with lake_errors(self.url):
            deleted = opened(self.url).vacuum(
                retention_hours=retention_h, dry_run=False, enforce_retention_duration=False
            )
            if strays:
                deleted += opened(self.url).vacuum(
                    retention_hours=max(STRAY_AFTER_H, retention_h),
                    dry_run=False,
                    enforce_retention_duration=False,
                    full=True,
                )
        return len(deleted)

    @property
    def _opened(self) -> DeltaTable:
        assert self._table is not None, "not open"
        return self._table


def storage_of(url: str) -> dict[str, str] | None:
    """Return what is said to the library of where a lake is; its own variables say who may."""
    return dict(STORAGE) if "://" in url else None


def opened(url: str, version: int | None = None) -> DeltaTable:
    """Return a table as it is now, or as it was at a version. Raises what the library does."""
    return DeltaTable(url, version=version, storage_options=storage_of(url))


def of_day(day: str) -> Any:
    """Return what holds of the rows of a day."""
    return pc.field(DATE) == date.fromisoformat(day)


def rewrite_day(table: DeltaTable, day: str, kept: Any) -> None:
    """Write the rows of a day anew that an expression holds of, in the place of all of its rows. Raises what the library does.

    Not by Delta's own delete: that writes texts of another type (views), on which pyarrow cannot filter beside the others.
    """
    rows = table.to_pyarrow_dataset().scanner(filter=of_day(day) & kept).to_reader()
    write_deltalake(table, rows, mode="overwrite", predicate=f"{DATE} = '{day}'", writer_properties=COMPRESSION)


def _numbers(schema: pa.Schema) -> list[str]:
    return [one.name for one in schema if pa.types.is_integer(one.type) or pa.types.is_floating(one.type)]


@contextmanager
def lake_errors(url: str) -> Iterator[None]:
    """Turn what the library raises into LakeError."""
    try:
        yield
    except (DeltaError, OSError, ValueError, pa.ArrowException, duckdb.Error) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise LakeError(f"{url}: {said[:300]}") from error


@dataclass(frozen=True, slots=True)
class File:
    """A file of a table."""

    day: str
    size_bytes: int
    rows: int


def files_of(table: DeltaTable) -> Iterator[File]:
    """Yield the files of a table's newest version."""
    found = pa.table(table.get_add_actions(flatten=True)).to_pydict()
    for day, size_bytes, rows in zip(
        found[f"partition.{DATE}"], found["size_bytes"], found["num_records"], strict=True
    ):
        yield File(str(day), size_bytes, rows)


def first_day_kept(today: date, retention_days: int) -> date:
    """Return the oldest day whose records are kept."""
    return today - timedelta(days=retention_days)
