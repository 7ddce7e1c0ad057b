"""A first mapping of a file, from its header and its first rows: a draft for a person to look through."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import yaml

from services.core.card_number_kernels import rows_with_card_numbers
from services.offline.datasets.fields import EPOCHS, convert
from services.offline.datasets.files import read_chunks
from services.offline.datasets.mapping import LEFT_OUT

LOOKED_AT: Final = 2_000
"""Rows whose values are looked at."""
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "transaction_id": ("transaction_id", "trans_num", "trans_id", "txn_id", "tx_id", "transactionid", "id"),
    "card_id": ("card_id", "cc_num", "card_number", "card_num", "pan_token", "card", "card1", "customer_id"),
    "customer_id": ("customer_id", "client_id", "user_id", "customer", "user"),
    "account_id": ("account_id", "account", "iban", "acct_num"),
    "terminal_id": ("terminal_id", "terminal", "pos_id"),
    "merchant_id": ("merchant_id", "merchant", "merchant_name", "store"),
    "device_id": ("device_id", "device", "deviceinfo"),
    "merchant_category_code": ("mcc", "merchant_category_code", "category_code"),
    "amount_minor": ("amount_minor", "amt", "amount", "tx_amount", "transactionamt", "transaction_amount", "value"),
    "currency": ("currency", "ccy", "currency_code"),
    "event_time_ms": (
        "event_time_ms", "trans_date_trans_time", "tx_datetime", "timestamp", "datetime", "unix_time", "transactiondt", "time", "date",
    ),
    "entry_mode": ("entry_mode", "entry_method", "use_chip"),
    "country": ("country", "country_code"),
    "latitude": ("merch_lat", "latitude", "lat"),
    "longitude": ("merch_long", "longitude", "long", "lon"),
}  # fmt: skip
"""What columns are called that hold a field, the likelier ones first; compared in small letters, without signs between."""
_LABELS: Final = ("is_fraud", "isfraud", "fraud", "tx_fraud", "class", "label", "fraud_label", "fraud_reported")
_TRUE: Final = ("1", "true", "yes", "y", "fraud", "t")
_FALSE: Final = ("0", "false", "no", "n", "genuine", "legit", "f")
_FORMATS: Final = (
    "iso",
    "%Y-%m-%d %H:%M:%S",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    *EPOCHS,
)
_NEEDED: Final = {"currency": "EUR", "country": "BE"}
"""What a person has to say where no column does; a draft says it for now."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A mapping, and what a person should look at."""

    mapping: dict[str, Any]
    notes: list[str]

    def as_yaml(self) -> str:
        """Return the mapping as a file, with the notes as comments."""
        text = yaml.safe_dump(self.mapping, sort_keys=False, default_flow_style=None, width=120)
        return "".join(f"# {note}\n" for note in self.notes) + text


def suggest(path: Path) -> Suggestion:
    """Draft a mapping of a file or a folder. Raises DatasetError: it cannot be read."""
    table = next(iter(read_chunks(path, None))).table.slice(0, LOOKED_AT)
    columns = {name: _array(table, name) for name in table.column_names}
    taken: dict[str, str] = {}
    for field, words in _WORDS.items():
        name = _find(columns, words)
        if name is not None:
            taken[field] = name
    fields: dict[str, Any] = {}
    notes = [f"drafted from the first {len(table):,} rows of {path.name}: look at every line"]
    for field, name in taken.items():
        rule, note = _rule(field, name, columns[name])
        if note:
            notes.append(note)
        if rule is not None:
            fields[field] = rule
    for field in ("card_id", "amount_minor", "event_time_ms"):
        if field not in fields:
            fields[field] = {"column": "?"}
            notes.append(f"no column seems to hold {field}: name one in the place of the question mark")
    for field, value in _NEEDED.items():
        if field not in fields:
            fields[field] = {"constant": value}
            notes.append(f"no column seems to hold {field}: {value} in every row, unless you say otherwise")
    notes += [f"{name} is left out: {cost}" for name, cost in LEFT_OUT.items() if name not in fields]
    mapping: dict[str, Any] = {"description": f"drafted from {path.name}", "fields": fields}
    truth, note = _truth(columns)
    notes.append(note)
    return Suggestion(mapping | ({"truth": truth} if truth else {}), notes)


def _array(table: Any, name: str) -> Any:
    column = table.column(name).combine_chunks()
    return column if isinstance(column, pa.Array) else pa.array([], table.schema.field(name).type)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _find(columns: Mapping[str, Any], words: tuple[str, ...]) -> str | None:
    by_name = {_plain(name): name for name in reversed(list(columns))}
    return next((by_name[_plain(word)] for word in words if _plain(word) in by_name), None)


def _rule(field: str, name: str, column: Any) -> tuple[dict[str, Any] | None, str]:
    """Return how a field is read of a column, None where it cannot be; and what to look at."""
    rule: dict[str, Any] = {"column": name}
    if field == "transaction_id":
        return rule | ({} if not convert(column, field, rule).bad.any() else {"uuid5": "mine"}), ""
    if field == "amount_minor":
        return rule | {"decimals": 2}, f"amounts of {name} are taken to be in major units with two decimals"
    if field == "event_time_ms":
        for wanted in (None, *_FORMATS):
            tried = rule if wanted is None else rule | {"format": wanted}
            if not convert(column, field, tried).bad.any():
                return tried, ""
        return rule | {"format": "?"}, f"how {name} writes its times was not found out: say format"
    if field == "card_id" and rows_with_card_numbers(convert(column, field, rule).values).any():
        return rule | {
            "hashed": True
        }, f"{name} holds what looks like card numbers, which no record may: tokens are made of them"
    if field in ("entry_mode", "merchant_category_code") and convert(column, field, rule).bad.any():
        return None, f"{name} holds other values than {field} has: say names, or leave it out"
    if field in ("currency", "country") and convert(column, field, rule).bad.any():
        return None, f"{name} holds no codes of a {field}: say names, or a constant"
    return rule, ""


def _truth(columns: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    name = _find(columns, _LABELS)
    if name is None:
        return (
            None,
            "no column seems to hold the truth: say truth: {is_fraud: {column: ..., true: [...], false: [...]}}",
        )
    values = {one for one in columns[name].to_pylist() if one is not None and one == one}  # noqa: PLR0124 - NaN is not
    true = sorted((one for one in values if str(one).lower() in _TRUE or _is(one, 1)), key=str)
    false = sorted((one for one in values if str(one).lower() in _FALSE or _is(one, 0)), key=str)
    other = values - set(true) - set(false)
    if other:
        return None, f"{name} holds more than two kinds of labels: say which values are true and which are false"
    listed = {"true": [_plain_value(one) for one in true] or [1], "false": [_plain_value(one) for one in false] or [0]}
    return {"is_fraud": {"column": name} | listed}, f"the truth is taken to be in {name}"


def _is(value: object, number: int) -> bool:
    return isinstance(value, int | float | np.number) and float(value) == number


def _plain_value(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
