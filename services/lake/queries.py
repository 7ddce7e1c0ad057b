"""The lake as people read it: which tables there are, SQL over them, and a customer who is to be forgotten."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from services.lake.columns import DATE
from services.lake.table import COMPRESSION, LakeError, LakeTable, files_of, lake_errors, table_url

AUDIT: Final = "lake_audit"
"""The table of what people removed from the lake."""
_AUDIT_SCHEMA: Final = pa.schema(
    [
        ("at_ms", pa.int64()), ("who", pa.string()), ("what", pa.string()), ("customer_sha256", pa.string()), ("table", pa.string()),
        ("rows", pa.int64()), (DATE, pa.date32()),
    ]
)  # fmt: skip
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class TableStatus:
    """What a table holds."""

    table: str
    rows: int
    files: int
    bytes: int
    first_day: str | None
    last_day: str | None
    version: int
    behind: dict[int, int]
    """By partition of the topic, the offset behind the last record that it has."""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


class Lake:
    """The tables of a lake that are there. Raises LakeError throughout."""

    def __init__(self, url: str, topics: Sequence[str]) -> None:
        """Look at the tables of some topics, and at that of the audit trail."""
        self.url = url
        self.tables: dict[str, DeltaTable] = {}
        for name in (*(topic.replace("-", "_") for topic in topics), AUDIT):
            with lake_errors(table_url(url, name)):
                if DeltaTable.is_deltatable(table_url(url, name)):
                    self.tables[name] = DeltaTable(table_url(url, name))
        if not self.tables:
            where = f"{url} is no folder" if "://" not in url and not Path(url).is_dir() else f"{url} has no tables"
            raise LakeError(f"{where}: the archiver makes them (`proact archiver`)")

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Return a database in memory in which each table is a view."""
        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
        for name, table in self.tables.items():
            with lake_errors(self.url):
                connection.register(name, table.to_pyarrow_dataset())
        return connection

    def query(self, sql: str, parameters: dict[str, Any] | None = None) -> pa.Table:
        """Return what a query finds, with its ``$name`` parameters. Raises LakeError, which says what is wrong with it, too."""
        named = {name: value for name, value in (parameters or {}).items() if f"${name}" in sql}
        try:
            found = self.connect().sql(sql, params=named or None)
        except duckdb.Error as error:
            raise LakeError(" ".join(str(error).split())) from None
        try:
            return pa.table({}) if found is None else found.to_arrow_table()
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            raise LakeError(f"{self.url}: {' '.join(str(error).split())}") from None

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield every row of a table."""
        with lake_errors(self.url):
            for batch in self.tables[name].to_pyarrow_dataset().to_batches():
                yield from batch.to_pylist()

    def status(self) -> list[TableStatus]:
        """Return what each table holds."""
        found = []
        for name, table in self.tables.items():
            with lake_errors(self.url):
                files = list(files_of(table))
                days = sorted(one.day for one in files)
            behind = {} if name == AUDIT or not files else self._behind(name)
            found.append(
                TableStatus(
                    name,
                    sum(one.rows for one in files),
                    len(files),
                    sum(one.size_bytes for one in files),
                    days[0] if days else None,
                    days[-1] if days else None,
                    table.version(),
                    behind,
                )
            )
        return found

    def _behind(self, name: str) -> dict[int, int]:
        with lake_errors(self.url):
            found = self.connect().view(name).aggregate("kafka_partition, max(kafka_offset) + 1", "kafka_partition")
            return dict(sorted(found.fetchall()))

    def forget(self, customer_id: str, who: str, now_ms: int) -> dict[str, int]:
        """Remove a customer's rows from every table and every file, and note it in the audit trail; say how many rows of each table.

        What Kafka still holds of the customer is archived no second time; what comes later is, until it is said again.
        """
        holding = [name for name, table in self.tables.items() if "customer_id" in _names(table)]
        others = [
            name for name, table in self.tables.items() if name not in holding and "transaction_id" in _names(table)
        ]
        quoted = "'" + customer_id.replace("'", "''") + "'"
        theirs = f"customer_id = {quoted}"
        listed = ", ".join(f"'{one}'" for name in holding for one in self._of_rows(name, theirs, "transaction_id"))
        wanted = dict.fromkeys(holding, theirs) | dict.fromkeys(others, f"transaction_id IN ({listed})")
        removed = {name: self._delete(name, rows) if listed else 0 for name, rows in wanted.items()}
        self._note(hashlib.sha256(customer_id.encode()).hexdigest(), who, now_ms, removed)
        return removed

    def _of_rows(self, name: str, predicate: str, column: str) -> list[Any]:
        """Return a column of the rows that a predicate holds of."""
        with lake_errors(self.url):
            return [row[0] for row in self.connect().view(name).filter(predicate).project(column).fetchall()]

    def _delete(self, name: str, predicate: str) -> int:
        """Delete rows, and the files that held them; tried again where somebody else has written meanwhile."""
        # By their places: Delta's log keeps what was asked, and must not keep whom it was about.
        places = sorted(self._of_rows(name, predicate, "kafka_partition * 2**48::BIGINT + kafka_offset"))
        if not places:
            return 0
        listed = ", ".join(map(str, places))
        for left in reversed(range(_TRIES)):
            table = DeltaTable(table_url(self.url, name))
            try:
                table.delete(f"kafka_partition * {2**48} + kafka_offset IN ({listed})", writer_properties=COMPRESSION)
                table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
            except DeltaError as error:
                if not left:
                    raise LakeError(f"{name}: {error}") from error
                continue
            break
        self.tables[name] = DeltaTable(table_url(self.url, name))
        return len(places)

    def _note(self, customer: str, who: str, now_ms: int, removed: dict[str, int]) -> None:
        day = datetime.fromtimestamp(now_ms / 1000, UTC).date()
        rows = [
            {"at_ms": now_ms, "who": who, "what": "forget", "customer_sha256": customer, "table": name, "rows": count, DATE: day}
            for name, count in removed.items()
        ]  # fmt: skip
        batch = pa.RecordBatch.from_pylist(rows, schema=_AUDIT_SCHEMA)
        note = CommitProperties(custom_metadata={"userName": who, "userMetadata": "a customer is forgotten"})
        with lake_errors(self.url):
            write_deltalake(
                table_url(self.url, AUDIT), [batch], mode="append", partition_by=[DATE], commit_properties=note
            )

    def optimize(self, retention_h: int) -> dict[str, tuple[int, int]]:
        """Put small files together and delete those that nobody needs; say, by table, of how many days and how many files."""
        found = {}
        for name in self.tables:
            table = LakeTable(self.url, name, pa.schema([]))
            found[name] = table.compact(), table.vacuum(retention_h)
        return found


def _names(table: DeltaTable) -> set[str]:
    return {field.name for field in table.schema().fields}
