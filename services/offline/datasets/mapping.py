"""Foreign files as transactions: a mapping says, field by field, where a value comes from.

A field is one of: ``{constant: X}``; ``{column: NAME}``; a column with ``prefix`` (identifiers), ``uuid5`` (identifiers
from elsewhere become UUIDs in a namespace of that name), ``decimals`` (an amount in major units) or ``names`` (a table of
values). The truth is a column with the values that stand for ``true`` and for ``false`` (:mod:`services.offline.datasets.labels`). A
mapping is a YAML file, in ``services/offline/datasets/mappings`` or anywhere.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import yaml

from services.core.columns import ENTRY_MODES, Text, TransactionColumns, pack_code, type_bool
from services.core.masking import mask_text
from services.offline.datasets.labels import DatasetError, LabelRule

__all__ = [
    "Dataset",
    "DatasetError",
    "Mapping",
    "load_mapping",
    "mapping_names",
    "namespaced_uuid",
    "read_dataset",
]

_FOLDER: Final = Path(__file__).parent / "mappings"
_NAMESPACE: Final = uuid.UUID("0f6d0a6e-52b8-5f0c-9d8a-3f1c5b7e2a94")
_TEXTS: Final = ("card_id", "customer_id", "account_id", "terminal_id", "merchant_id", "device_id")
_CODES: Final = ("currency", "billing_currency", "country")
_FLOATS: Final = ("latitude", "longitude")
_FIELDS: Final = tuple(f.name for f in fields(TransactionColumns))
ROWS_PER_CHUNK: Final = 200_000


class _Loader(yaml.SafeLoader):
    """YAML 1.2's truth values, true and false alone: Yes, No, on and off are the texts that a file may hold."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))


@dataclass(frozen=True, slots=True)
class Dataset:
    """Transactions of a file, and the truth about them where the file has it."""

    columns: TransactionColumns
    is_fraud: type_bool | None
    """(n,) False, too, where a row has no label."""
    scenario: np.ndarray | None
    """(n,) names, dtype object."""
    labelled: type_bool | None = None
    """(n,) whether a row has a label; None without ``is_fraud``."""

    def __len__(self) -> int:
        return len(self.columns)


@dataclass(frozen=True, slots=True)
class Mapping:
    """A checked mapping."""

    name: str
    fields: dict[str, dict[str, Any]]
    truth: dict[str, dict[str, Any]]

    def __post_init__(self) -> None:
        missing, unknown = set(_FIELDS) - set(self.fields), set(self.fields) - set(_FIELDS)
        if missing or unknown:
            raise DatasetError(f"mapping {self.name}: missing {sorted(missing)}, unknown {sorted(unknown)}")
        if unknown := set(self.truth) - {"is_fraud", "scenario"}:
            raise DatasetError(f"mapping {self.name}: the truth is is_fraud and scenario, not {min(unknown)}")
        _ = self.label
        for name, rule in (self.fields | {k: v for k, v in self.truth.items() if k != "is_fraud"}).items():
            allowed = {"constant"} if "constant" in rule else {"column", "prefix", "uuid5", "decimals", "names"}
            if not ("constant" in rule or "column" in rule) or set(rule) - allowed:
                raise DatasetError(f"mapping {self.name}: field {name} must be a constant or a column, not {rule}")

    @property
    def label(self) -> LabelRule | None:
        """Where the truth is; None where the mapping does not say. Raises DatasetError."""
        try:
            return LabelRule.of(self.truth["is_fraud"]) if "is_fraud" in self.truth else None
        except DatasetError as error:
            raise DatasetError(f"mapping {self.name}: {error}") from None

    @property
    def source_columns(self) -> list[str]:
        """The columns of the file that are read."""
        rules = [*self.fields.values(), *self.truth.values()]
        return sorted({rule["column"] for rule in rules if "column" in rule})


def mapping_names() -> list[str]:
    """Return the names of the mappings that come with Proact."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_mapping(name: str) -> Mapping:
    """Load a mapping by its name or by the path of a file. Raises DatasetError."""
    path = _FOLDER / f"{name}.yaml"
    path = path if path.is_file() else Path(name)
    if not path.is_file():
        raise DatasetError(f"there is no mapping {name!r}: use one of {', '.join(mapping_names())}, or a file's path")
    try:
        described = yaml.load(path.read_text(), _Loader)  # noqa: S506 - a safe loader
        return Mapping(path.stem, described["fields"], described.get("truth") or {})
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path} is not a mapping: {error}") from None


def namespaced_uuid(namespace: str, identifier: object) -> uuid.UUID:
    """Return the UUID of an identifier from elsewhere: version 5, the same every time."""
    return uuid.uuid5(uuid.uuid5(_NAMESPACE, namespace), str(identifier))


def read_dataset(path: Path, mapping: Mapping, limit: int | None = None) -> Iterator[Dataset]:
    """Read a Parquet or CSV file in chunks of ``ROWS_PER_CHUNK``, in its order.

    Raises:
        DatasetError: at once if there is no such file, while reading if it is not what the mapping says.
    """
    if not path.is_file():
        raise DatasetError(f"there is no file {path}")
    return _read_chunks(path, mapping, limit)


def _read_chunks(path: Path, mapping: Mapping, limit: int | None) -> Iterator[Dataset]:
    left, first_row = limit if limit is not None else 2**62, 1
    for table in _tables(path, mapping):
        chunk = table.slice(0, min(left, table.num_rows))
        if chunk.num_rows:
            yield _to_dataset(chunk, mapping, path, first_row)
        left, first_row = left - chunk.num_rows, first_row + chunk.num_rows
        if left <= 0:
            return


def _tables(path: Path, mapping: Mapping) -> Iterator[Any]:
    columns = mapping.source_columns
    # What a label is, is not for a reader of CSV to guess, which looks at the first rows alone.
    texts = [rule["column"] for rule in mapping.truth.values() if "column" in rule]
    try:
        if path.suffix == ".csv":
            options = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(texts, pa.string()))
            table = pyarrow.csv.read_csv(path, convert_options=options)
        else:
            table = pyarrow.parquet.ParquetFile(path)
            missing = set(columns) - set(table.schema_arrow.names)
            if not missing:
                yield from (pa.Table.from_batches([b]) for b in table.iter_batches(ROWS_PER_CHUNK, columns=columns))
                return
            raise DatasetError(f"{path} has no column {min(missing)!r}, which the mapping names")
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} cannot be read as Parquet or CSV: {str(error).splitlines()[0]}") from None
    missing = set(columns) - set(table.column_names)
    if missing:
        raise DatasetError(f"{path} has no column {min(missing)!r}, which the mapping names")
    for at in range(0, table.num_rows, ROWS_PER_CHUNK):
        yield table.slice(at, ROWS_PER_CHUNK)


def _to_dataset(table: Any, mapping: Mapping, path: Path, first_row: int) -> Dataset:
    values: dict[str, Any] = {}
    for name, rule in mapping.fields.items():
        try:
            values[name] = _field(table, name, rule)
        except (pa.ArrowException, ValueError, TypeError, KeyError) as error:
            raise DatasetError(f"mapping {mapping.name}: field {name}: {error}") from None
    columns, label, scenario = TransactionColumns(**values), mapping.label, mapping.truth.get("scenario")
    if label is None:
        return Dataset(columns, None, None)
    labels = label.read(table.column(label.column), path.name, first_row, untyped=path.suffix == ".csv")
    named = None if scenario is None else _named(table, scenario, path, first_row)
    return Dataset(columns, labels.fraud, named, labels.known)


def _named(table: Any, rule: dict[str, Any], path: Path, first_row: int) -> np.ndarray:
    """Return scenarios by name; what has none is called unknown. Raises DatasetError."""
    raw = table.column(rule["column"]).to_pylist()
    names = {str(value): str(name) for value, name in (rule.get("names") or {}).items()}
    found = ["unknown" if value in (None, "") else names.get(str(value)) if names else str(value) for value in raw]
    if None in found:
        at = found.index(None)
        where = f"row {first_row + at}: column {rule['column']!r} holds {mask_text(str(raw[at]))[:40]!r}"
        raise DatasetError(f"{path.name}: {where}, which the mapping does not name: it names {', '.join(names)}")
    return np.array(found, object)


def _field(table: Any, name: str, rule: dict[str, Any]) -> Any:
    n = table.num_rows
    if "constant" in rule:
        return _constant(name, rule["constant"], n)
    column = table.column(rule["column"]).combine_chunks()
    if name == "transaction_id":
        return _uuids(column, rule)
    if name in _TEXTS:
        return _text(column, rule.get("prefix", ""))
    if name in _CODES:
        return _coded(column, pack_code)
    if name == "entry_mode":
        return _coded(column, ENTRY_MODES.index)
    if name in _FLOATS:
        return column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    if name == "event_time_ms" and pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("ms")).cast(pa.int64()).to_numpy()
    if "decimals" in rule:
        return np.rint(column.cast(pa.float64()).to_numpy() * 10 ** rule["decimals"]).astype(np.int64)
    return column.cast(pa.int64()).to_numpy()


def _constant(name: str, value: Any, n: int) -> Any:
    if name in _TEXTS:
        return Text.constant(str(value).encode(), n)
    if name in _FLOATS:
        return np.full(n, np.nan if value is None else float(value))
    if name in _CODES:
        return np.full(n, pack_code(value), np.int64)
    if name == "entry_mode":
        return np.full(n, ENTRY_MODES.index(value), np.int64)
    return np.full(n, int(value), np.int64)


def _uuids(column: Any, rule: dict[str, Any]) -> np.ndarray:
    if "uuid5" in rule:
        namespace = uuid.uuid5(_NAMESPACE, rule["uuid5"])
        raw = b"".join(uuid.uuid5(namespace, str(value)).bytes for value in column.to_pylist())
    elif pa.types.is_fixed_size_binary(column.type):
        raw = b"".join(column.to_pylist())
    else:
        raw = b"".join(uuid.UUID(value).bytes for value in column.to_pylist())
    return np.frombuffer(raw, np.uint8).reshape(-1, 16)


def _text(column: Any, prefix: str) -> Text:
    """Return a string column; arrow's buffers are what :class:`Text` is, so nothing is copied a row."""
    strings = pc.fill_null(column.cast(pa.string()), "")
    if prefix:
        strings = pc.binary_join_element_wise(prefix, strings, "")
    _, offsets, data = strings.buffers()
    edges = np.frombuffer(offsets, np.int32)[strings.offset : strings.offset + len(strings) + 1].astype(np.int64)
    buffer = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return Text(buffer, edges[:-1], np.diff(edges))


def _coded(column: Any, code_of: Any) -> np.ndarray:
    encoded = column.cast(pa.string()).dictionary_encode()
    codes = np.array([code_of(value) for value in encoded.dictionary.to_pylist()], np.int64)
    return codes[encoded.indices.to_numpy()]
