"""Files of transactions as Arrow tables: Parquet and CSV, packed or not, one file or a folder of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from services.offline.datasets.labels import DatasetError

ROWS_PER_CHUNK: Final = 200_000
_PARQUET: Final = (".parquet", ".pq")
_CSV: Final = (".csv", ".csv.gz", ".csv.bz2", ".csv.zst")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a file."""

    table: Any
    """An Arrow table."""
    path: Path
    first_row: int
    """The number of its first row in the file, from 1."""

    @property
    def untyped(self) -> bool:
        """Whether the file has no types, as CSV."""
        return kind_of(self.path) == "csv"


def kind_of(path: Path) -> str | None:
    """Return ``csv`` or ``parquet`` by a file's name, in capitals or not; None for neither."""
    name = path.name.lower()
    return "parquet" if name.endswith(_PARQUET) else "csv" if name.endswith(_CSV) else None


def files_in(path: Path) -> list[Path]:
    """Return a file, or the files of a folder by their names. Raises DatasetError."""
    if path.is_dir():
        found = sorted(one for one in path.rglob("*") if one.is_file() and kind_of(one) is not None)
        if not found:
            raise DatasetError(f"{path} holds no file named {', '.join(f'*{end}' for end in (*_PARQUET, *_CSV))}")
        return found
    if not path.is_file():
        raise DatasetError(f"there is no file {path}")
    if kind_of(path) is None:
        raise DatasetError(f"{path} is neither Parquet nor CSV by its name: {', '.join((*_PARQUET, *_CSV))}")
    return [path]


def read_chunks(path: Path, columns: Sequence[str] | None, texts: Sequence[str] = ()) -> Iterator[Chunk]:
    """Yield the rows of a file, or of the files of a folder one after the other, in their order.

    Args:
        path: the file or folder.
        columns: which columns are read; None for all whose name no other column has.
        texts: columns that are text, whatever their first values look like to a reader of CSV.

    Raises:
        DatasetError: a file cannot be read, lacks a column, or has two of one name.
    """
    for one in files_in(path):
        try:
            tables = _csv(one, texts) if kind_of(one) == "csv" else _parquet(one, columns)
            row = 1
            for table in tables:
                yield Chunk(_selected(table, columns, one), one, row)
                row += table.num_rows
        except (pa.ArrowException, OSError, UnicodeDecodeError, EOFError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise DatasetError(f"{one} cannot be read as Parquet or CSV: {said[:300]}") from None


def _selected(table: Any, columns: Sequence[str] | None, path: Path) -> Any:
    """Return the columns that were asked for. A header may name a column twice: such a name says nothing of one."""
    times = Counter(table.column_names)
    if columns is None:
        return table.select([name for name, n in times.items() if n == 1])
    if missing := sorted(set(columns) - set(times)):
        raise DatasetError(f"{path} has no column {missing[0]!r}, which the mapping names")
    if twice := sorted(name for name in columns if times[name] > 1):
        raise DatasetError(
            f"{path} has {times[twice[0]]} columns named {twice[0]!r}: the mapping cannot name one of them"
        )
    return table.select(list(columns))


def _csv(path: Path, texts: Sequence[str]) -> Iterator[Any]:
    options = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(texts, pa.string()))
    with pa.input_stream(str(path), compression="detect") as stream:
        table = pyarrow.csv.read_csv(stream, convert_options=options)
    yield from _pieces(table)


def _parquet(path: Path, columns: Sequence[str] | None) -> Iterator[Any]:
    file = pyarrow.parquet.ParquetFile(path)
    there = set(file.schema_arrow.names)
    wanted = None if columns is None else [name for name in columns if name in there]
    empty = True
    for batch in file.iter_batches(ROWS_PER_CHUNK, columns=wanted):
        empty = False
        yield pa.Table.from_batches([batch])
    if empty:
        yield file.schema_arrow.empty_table()


def _pieces(table: Any) -> Iterator[Any]:
    for at in range(0, max(1, table.num_rows), ROWS_PER_CHUNK):
        yield table.slice(at, ROWS_PER_CHUNK)
