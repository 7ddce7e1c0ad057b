"""The lake as people read it: which tables there are, and SQL over them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from services.lake.table import LakeError, LakeTable, files_of, lake_errors, opened, storage_of, table_name, table_url

AUDIT: Final = "lake_audit"
"""The table of what people removed from the lake."""
FORGOTTEN: Final = "lake_forgotten"
"""The table of whose rows were removed, and of which transactions, as SHA-256."""


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
    next_offsets: dict[int, int]
    """By partition of the topic, the offset behind the last record that it has."""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


class Lake:
    """The tables of a lake that are there. Raises LakeError throughout."""

    def __init__(self, url: str, topics: Sequence[str], versions: Mapping[str, int] | None = None) -> None:
        """Look at the tables of some topics, and at that of the audit trail.

        Args:
            url: where the lake is.
            topics: whose tables are looked at.
            versions: by table, which version; the newest one of those that are not named.
        """
        self.url, self._versions = url, dict(versions or {})
        self._connection: duckdb.DuckDBPyConnection | None = None
        self.tables: dict[str, DeltaTable] = {}
        """Those that are there, by name."""
        for name in (*map(table_name, topics), AUDIT, FORGOTTEN):
            self.look_again(name)
        if not self.tables:
            where = f"{url} is no folder" if "://" not in url and not Path(url).is_dir() else f"{url} has no tables"
            raise LakeError(f"{where}: the archiver makes them (`proact archiver`)")

    def look_again(self, name: str) -> None:
        """Look at the newest version of a table, or at the one that it was asked for."""
        url = table_url(self.url, name)
        with lake_errors(url):
            if DeltaTable.is_deltatable(url, storage_options=storage_of(url)):
                self.tables[name] = opened(url, self._versions.get(name))
                self._connection = None

    @property
    def records(self) -> list[str]:
        """The tables that hold records of topics."""
        return [name for name in self.tables if name not in (AUDIT, FORGOTTEN)]

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Return a database in memory in which each table is a view, the same until a table is looked at again."""
        if self._connection is None:
            connection = duckdb.connect()
            connection.execute("SET TimeZone = 'UTC'")
            for name, table in self.tables.items():
                with lake_errors(self.url):
                    connection.register(name, table.to_pyarrow_dataset())
            self._connection = connection
        return self._connection

    def query(
        self, sql: str, parameters: dict[str, Any] | None = None, beside: Mapping[str, pa.Table] | None = None
    ) -> pa.Table:
        """Return what a query finds. Raises LakeError, which says what is wrong with it, too.

        Args:
            sql: the query.
            parameters: its ``$name`` parameters; those that it does not have are left out.
            beside: tables in memory that it may name beside the lake's.
        """
        named = {name: value for name, value in (parameters or {}).items() if f"${name}" in sql}
        connection = self.connect()
        for name, table in (beside or {}).items():
            connection.register(name, table)
        try:
            return self._found(connection, sql, named)
        finally:
            for name in beside or {}:
                connection.unregister(name)

    def _found(self, connection: duckdb.DuckDBPyConnection, sql: str, named: dict[str, Any]) -> pa.Table:
        try:
            found = connection.sql(sql, params=named or None)
        except duckdb.Error as error:
            raise LakeError(" ".join(str(error).split())) from None
        try:
            return pa.table({}) if found is None else found.to_arrow_table()
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            raise LakeError(f"{self.url}: {' '.join(str(error).split())}") from None

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield every row of a table, as it was looked at last."""
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
            offsets = self._next_offsets(name) if name in self.records and files else {}
            found.append(
                TableStatus(
                    name,
                    sum(one.rows for one in files),
                    len(files),
                    sum(one.size_bytes for one in files),
                    days[0] if days else None,
                    days[-1] if days else None,
                    table.version(),
                    offsets,
                )
            )
        return found

    def _next_offsets(self, name: str) -> dict[int, int]:
        with lake_errors(self.url):
            # Of a topic that was made anew the newest one counts.
            newest = "arg_max(kafka_offset, (kafka_timestamp_ms, kafka_offset)) + 1"
            found = self.connect().view(name).aggregate(f"kafka_partition, {newest}", "kafka_partition")
            return dict(sorted(found.fetchall()))

    def columns(self, name: str) -> set[str]:
        """Return what the columns of a table are called."""
        return {field.name for field in self.tables[name].schema().fields}

    def of_rows(self, name: str, predicate: str, column: str) -> list[Any]:
        """Return an expression over a table's columns, of the rows that a predicate holds of."""
        with lake_errors(self.url):
            return [row[0] for row in self.connect().view(name).filter(predicate).project(column).fetchall()]

    def optimize(self, retention_h: int) -> dict[str, tuple[int, int]]:
        """Put small files together and delete those that nobody needs; say, by table, of how many days and how many files."""
        found = {}
        for name in self.tables:
            table = LakeTable(self.url, name, pa.schema([]))
            found[name] = table.compact(), table.vacuum(retention_h, strays=True)
        return found
