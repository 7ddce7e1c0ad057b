"""Foreign files as transactions: a mapping says, field by field, where a value comes from.

A field is one of: ``{constant: X}``; ``{column: NAME}``; a column with ``prefix`` or ``hashed`` (tokens), ``uuid5`` (identifiers
from elsewhere become UUIDs in a namespace of that name), ``decimals`` (an amount in major units), ``format`` (a time: epoch_s, epoch_ms,
epoch_us, iso, or as strptime writes it) or ``names`` (a table of values). What a file does not have may be left out: see
:data:`LEFT_OUT`. The truth is a column with the values that stand for ``true`` and for ``false``
(:mod:`services.offline.datasets.labels`). A mapping is a YAML file, in ``services/offline/datasets/mappings`` or anywhere.
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
import yaml

from services.core.columns import TransactionColumns, type_bool
from services.core.masking import mask_text
from services.offline.datasets.fields import (
    AMOUNTS,
    CODES,
    DEGREES,
    EPOCHS,
    NAMESPACE,
    TEXTS,
    Converted,
    constant,
    convert,
)
from services.offline.datasets.files import Chunk, files_in, read_chunks
from services.offline.datasets.labels import DatasetError, LabelRule

__all__ = ["Dataset", "DatasetError", "Mapping", "load_mapping", "mapping_names", "read_dataset"]

_FOLDER: Final = Path(__file__).parent / "mappings"
_FIELDS: Final = tuple(f.name for f in fields(TransactionColumns))
LEFT_OUT: Final[dict[str, str]] = {
    "transaction_id": "rows are numbered: a row keeps its id as long as file and order stay",
    "customer_id": "each card is a customer of its own: nothing is known across a customer's cards",
    "account_id": "each card is an account of its own: balances, limits and blocks say nothing",
    "terminal_id": "merchants stand for their terminals, or all is one terminal: what is known of terminals says less, or nothing",
    "merchant_id": "terminals stand for their merchants, or all is one merchant: rules on merchants have nothing to go by",
    "device_id": "no device is known",
    "merchant_category_code": "all are 5999, miscellaneous: rules and features of the category say nothing",
    "entry_mode": "all are CHIP: no class of its own for e-commerce or cash",
    "billing_amount_minor": "the amount is billed as it is",
    "billing_currency": "the currency is billed as it is",
    "latitude": "no position is known: distances and speeds say nothing",
    "longitude": "no position is known: distances and speeds say nothing",
}
"""Fields that a mapping may leave out, and what that costs."""
_STANDS_FOR: Final = {
    "customer_id": "card_id", "account_id": "card_id", "terminal_id": "merchant_id", "merchant_id": "terminal_id",
    "billing_amount_minor": "amount_minor", "billing_currency": "currency",
}  # fmt: skip
"""Fields whose values are those of another one where they are left out."""
_CONSTANTS: Final[dict[str, Any]] = {
    "device_id": "", "merchant_category_code": 5999, "entry_mode": "CHIP", "latitude": None, "longitude": None,
    "terminal_id": "unknown", "merchant_id": "unknown",
}  # fmt: skip
_OPTIONS: Final[dict[str, frozenset[str]]] = {
    "transaction_id": frozenset({"uuid5"}), "event_time_ms": frozenset({"format"}), "entry_mode": frozenset({"names"}),
    "merchant_category_code": frozenset({"names"}), **dict.fromkeys(TEXTS, frozenset({"prefix", "names", "hashed"})),
    **dict.fromkeys(CODES, frozenset({"names"})), **dict.fromkeys(AMOUNTS, frozenset({"decimals"})),
    **dict.fromkeys(DEGREES, frozenset()), "scenario": frozenset({"names"}),
}  # fmt: skip
"""What may stand beside a field's column."""


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
        missing, unknown = set(_FIELDS) - set(self.fields) - set(LEFT_OUT), set(self.fields) - set(_FIELDS)
        if missing or unknown:
            raise DatasetError(f"mapping {self.name}: missing {sorted(missing)}, unknown {sorted(unknown)}")
        if unknown := set(self.truth) - {"is_fraud", "scenario"}:
            raise DatasetError(f"mapping {self.name}: the truth is is_fraud and scenario, not {min(unknown)}")
        _ = self.label
        for name, rule in (self.fields | {k: v for k, v in self.truth.items() if k != "is_fraud"}).items():
            self._check(name, rule)

    def _check(self, name: str, rule: dict[str, Any]) -> None:
        """Raises DatasetError."""
        where = f"mapping {self.name}: field {name}"
        if "constant" in rule and set(rule) == {"constant"}:
            try:
                constant(name, rule["constant"], 1)
            except (ValueError, TypeError, AttributeError, OverflowError) as error:
                raise DatasetError(f"{where} cannot be {rule['constant']!r} in every row: {error}") from None
            return
        if "column" not in rule or "constant" in rule:
            raise DatasetError(f"{where} must be a constant or a column, not {rule}")
        if extra := set(rule) - {"column"} - _OPTIONS[name]:
            allowed = ", ".join(sorted(_OPTIONS[name])) or "nothing"
            raise DatasetError(
                f"{where}: {min(map(str, extra))} does not apply to it; beside the column it may have {allowed}"
            )
        if "names" in rule and not (isinstance(rule["names"], dict) and rule["names"]):
            raise DatasetError(f"{where}: names is a table of the file's values and what each is called")
        wanted = rule.get("format")
        if wanted is not None and not (
            isinstance(wanted, str) and (wanted in EPOCHS or wanted == "iso" or "%" in wanted)
        ):
            raise DatasetError(
                f"{where}: format is {', '.join(EPOCHS)}, iso, or like %Y-%m-%d %H:%M:%S, not {wanted!r}"
            )
        decimals = rule.get("decimals", 0)
        if type(decimals) is not int or not 0 <= decimals <= 6:
            raise DatasetError(f"{where}: decimals is a number from 0 to 6, not {decimals!r}")

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

    @property
    def texts(self) -> list[str]:
        """The columns that are text: what a label, a token or a code is, is not for a reader of CSV to guess."""
        named = [rule for name, rule in self.fields.items() if name in (*TEXTS, *CODES, "transaction_id")]
        return sorted({rule["column"] for rule in [*named, *self.truth.values()] if "column" in rule})

    @property
    def left_out(self) -> dict[str, str]:
        """The fields that are not mapped, and what that costs."""
        return {name: cost for name, cost in LEFT_OUT.items() if name not in self.fields}


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
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, OSError, RecursionError) as error:
        raise DatasetError(f"{path} is not a mapping: {' '.join(str(error).split())[:300]}") from None


def read_dataset(path: Path, mapping: Mapping, limit: int | None = None) -> Iterator[Dataset]:
    """Read a file, or the files of a folder one after the other, in chunks and in their order.

    Raises:
        DatasetError: at once if there is no such file, while reading if it is not what the mapping says.
    """
    files_in(path)
    return _read(path, mapping, limit)


def _read(path: Path, mapping: Mapping, limit: int | None) -> Iterator[Dataset]:
    left = limit if limit is not None else 2**62
    for chunk in read_chunks(path, mapping.source_columns, mapping.texts):
        if left <= 0:
            return
        some = Chunk(chunk.table.slice(0, min(left, chunk.table.num_rows)), chunk.path, chunk.first_row)
        if some.table.num_rows:
            yield _to_dataset(some, mapping)
        left -= some.table.num_rows


def _to_dataset(chunk: Chunk, mapping: Mapping) -> Dataset:
    found = converted(chunk, mapping)
    for name, one in found.items():
        if one.bad.any():
            raise DatasetError(why_bad(chunk, mapping, name, one))
    columns, label = TransactionColumns(**{name: one.values for name, one in found.items()}), mapping.label
    if label is None:
        return Dataset(columns, None, None)
    labels = label.read(chunk.table.column(label.column), chunk.path.name, chunk.first_row, untyped=chunk.untyped)
    scenario = mapping.truth.get("scenario")
    named = None if scenario is None else _named(chunk, scenario)
    return Dataset(columns, labels.fraud, named, labels.known)


def converted(chunk: Chunk, mapping: Mapping) -> dict[str, Converted]:
    """Return every field of some rows, those that are left out among them; never raises for what the file holds."""
    n = chunk.table.num_rows
    found: dict[str, Converted] = {}
    for name, rule in mapping.fields.items():
        if "constant" in rule:
            found[name] = Converted(constant(name, rule["constant"], n), np.zeros(n, bool))
            continue
        column = chunk.table.column(rule["column"]).combine_chunks()
        column = column if isinstance(column, pa.Array) else pa.array([], chunk.table.schema.field(rule["column"]).type)
        found[name] = convert(column, name, rule)
    return found | {name: _left_out(name, chunk, found) for name in mapping.left_out}


def _left_out(name: str, chunk: Chunk, found: dict[str, Converted]) -> Converted:
    n = chunk.table.num_rows
    good = np.zeros(n, bool)
    if _STANDS_FOR.get(name) in found:
        return Converted(found[_STANDS_FOR[name]].values, good)
    if name == "transaction_id":
        namespace = uuid.uuid5(NAMESPACE, f"row of {chunk.path.name}")
        raw = b"".join(uuid.uuid5(namespace, str(chunk.first_row + i)).bytes for i in range(n))
        return Converted(np.frombuffer(raw, np.uint8).reshape(-1, 16), good)
    return Converted(constant(name, _CONSTANTS[name], n), good)


def why_bad(chunk: Chunk, mapping: Mapping, name: str, one: Converted) -> str:
    """Return what is wrong with the first bad value of a field, and what it must be."""
    at = int(np.argmax(one.bad))
    column = mapping.fields[name]["column"]
    value = chunk.table.column(column)[at].as_py()
    shown = "nothing" if value in (None, "") else repr(mask_text(str(value))[:40])
    return (
        f"{chunk.path.name}: row {chunk.first_row + at}: column {column!r} holds {shown}; {name} must be {one.allowed}"
    )


def _named(chunk: Chunk, rule: dict[str, Any]) -> np.ndarray:
    """Return scenarios by name; what has none is called unknown. Raises DatasetError."""
    raw = chunk.table.column(rule["column"]).to_pylist()
    names = {str(value): str(name) for value, name in (rule.get("names") or {}).items()}
    found = ["unknown" if value in (None, "") else names.get(str(value)) if names else str(value) for value in raw]
    if None in found:
        at = found.index(None)
        where = f"row {chunk.first_row + at}: column {rule['column']!r} holds {mask_text(str(raw[at]))[:40]!r}"
        raise DatasetError(f"{chunk.path.name}: {where}, which the mapping does not name: it names {', '.join(names)}")
    return np.array(found, object)
