"""One field of a transaction from one column of a file, a column at a time, with a word on every value that cannot be one."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from services.core.columns import ENTRY_MODES, Text, pack_code, type_bool, type_i64
from services.core.money import COUNTRIES, EXPONENTS
from services.core.validation import AMOUNT_MINOR_MAX, EARLIEST_MS

NAMESPACE: Final = uuid.UUID("0f6d0a6e-52b8-5f0c-9d8a-3f1c5b7e2a94")
TEXTS: Final = ("card_id", "customer_id", "account_id", "terminal_id", "merchant_id", "device_id")
CODES: Final = ("currency", "billing_currency", "country")
DEGREES: Final = ("latitude", "longitude")
AMOUNTS: Final = ("amount_minor", "billing_amount_minor")
LATEST_MS: Final = 4_102_444_800_000
"""2100-01-01: a number beyond is no time in milliseconds."""
EPOCHS: Final[Mapping[str, float]] = {"epoch_s": 1_000.0, "epoch_ms": 1.0, "epoch_us": 0.001}
"""Formats of times that are numbers, with how many milliseconds one of them is."""
_NUMBER: Final = r"^\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?\s*$"


@dataclass(frozen=True, slots=True)
class Converted:
    """A field of n rows."""

    values: Any
    """As :class:`services.core.columns.TransactionColumns` has it."""
    bad: type_bool
    """(n,) whether a value cannot be one; what is in ``values`` there means nothing."""
    allowed: str = ""
    """What a value must be, as a person reads it."""


def namespaced_uuid(namespace: str, identifier: object) -> uuid.UUID:
    """Return the UUID of an identifier from elsewhere: version 5, the same every time."""
    return uuid.uuid5(uuid.uuid5(NAMESPACE, namespace), str(identifier))


def convert(column: Any, name: str, rule: Mapping[str, Any]) -> Converted:
    """Return a field as a rule of a mapping makes it of a column (an Arrow array of n values); never raises for what it holds."""
    if "names" in rule:
        column, unnamed = _renamed(column, rule["names"])
        if unnamed.any():
            made = _CONVERTERS.get(name, _whole)(column, rule, name)
            return Converted(made.values, unnamed | made.bad, f"one of {_listed(map(str, rule['names']))}")
    return _CONVERTERS.get(name, _whole)(column, rule, name)


def _listed(words: Any, most: int = 12) -> str:
    words = list(words)
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def _strings(column: Any) -> Any:
    """Return a column as text; null stays."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_floating(kind):
        # A column of whole numbers with a gap is one of floats to a reader: 12.0 is 12.
        numbers = column.cast(pa.float64())
        whole = pc.and_kleene(pc.is_finite(numbers), pc.equal(pc.floor(numbers), numbers))
        small = pc.and_kleene(whole, pc.less(pc.abs(numbers), 1e15))
        return pc.if_else(
            pc.fill_null(small, False),
            pc.if_else(small, numbers, 0.0).cast(pa.int64()).cast(pa.string()),
            numbers.cast(pa.string()),
        )
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.array(
            [None if one is None else one.decode("utf-8", "replace") for one in column.to_pylist()], pa.string()
        )
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.array([None if one is None else str(one) for one in column.to_pylist()], pa.string())


def _nulls(column: Any) -> type_bool:
    found: type_bool = column.is_null().to_numpy(zero_copy_only=False)
    return found


def _renamed(column: Any, names: Mapping[Any, Any]) -> tuple[Any, type_bool]:
    """Return a column with its values called otherwise, and which have no other name."""
    encoded = _strings(column).dictionary_encode()
    known = {str(value): str(name) for value, name in names.items()}
    renamed = pa.array([known.get(value) for value in encoded.dictionary.to_pylist()], pa.string())
    found = renamed.take(encoded.indices)
    return found, _nulls(found)


def _text(column: Any, rule: Mapping[str, Any], name: str) -> Converted:
    strings = pc.fill_null(_strings(column), "")
    strings = _hashed(strings) if rule.get("hashed") else strings
    empty = pc.equal(strings, "").to_numpy(zero_copy_only=False)
    if rule.get("prefix"):
        strings = pc.if_else(pc.equal(strings, ""), strings, pc.binary_join_element_wise(rule["prefix"], strings, ""))
    bad = np.zeros(len(strings), bool) if name == "device_id" else empty
    return Converted(text_of(strings), bad, "1 to 64 bytes of text")


def _hashed(strings: Any) -> Any:
    """Return texts as tokens of 20 letters, the same for the same text: what looks like a card number may be in no record.

    It hides nothing from who can try all numbers: it is for made-up numbers of public data.
    """
    encoded = strings.dictionary_encode()
    tokens = [token_of(value) if value else "" for value in encoded.dictionary.to_pylist()]
    return pa.array(tokens, pa.string()).take(encoded.indices)


def token_of(text: str) -> str:
    """Return the token of a text: 20 letters from a to p."""
    digits = hashlib.sha256(NAMESPACE.bytes + text.encode()).hexdigest()[:20]
    return "".join(chr(ord("a") + int(one, 16)) for one in digits)


def text_of(strings: Any) -> Text:
    """Return a string array as a column of text: its buffers are what :class:`Text` is, so nothing is copied a row."""
    array = strings.combine_chunks() if isinstance(strings, pa.ChunkedArray) else strings
    array = array.cast(pa.large_string())
    _, offsets, data = array.buffers()
    edges = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    buffer = np.frombuffer(data, np.uint8) if data is not None and data.size else np.empty(0, np.uint8)
    return Text(buffer, edges[:-1].copy(), np.diff(edges))


def _coded(column: Any, code_of: Callable[[str], int | None], allowed: str) -> Converted:
    encoded = _strings(column).dictionary_encode()
    codes = [None if value is None else code_of(value) for value in encoded.dictionary.to_pylist()]
    table = np.array([*(-1 if code is None else code for code in codes), -1], np.int64)
    at = pc.fill_null(encoded.indices.cast(pa.int64()), len(codes)).to_numpy(zero_copy_only=False)
    values = table[at]
    return Converted(values, values < 0, allowed)


def _code(column: Any, rule: Mapping[str, Any], name: str) -> Converted:  # noqa: ARG001
    known = COUNTRIES if name == "country" else EXPONENTS.keys()
    kind = (
        "a country's two letters (ISO 3166), such as BE"
        if name == "country"
        else "a currency's three letters (ISO 4217), such as EUR"
    )
    return _coded(column, lambda value: pack_code(value) if value in known else None, kind)


def _entry_mode(column: Any, rule: Mapping[str, Any], name: str) -> Converted:  # noqa: ARG001
    modes = {mode: i for i, mode in enumerate(ENTRY_MODES)}
    return _coded(column, modes.get, f"one of {', '.join(ENTRY_MODES)}")


def _floats(column: Any) -> tuple[np.ndarray, type_bool]:
    """Return a column as numbers, NaN where there is none, and which values are none though they are there."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    nulls = _nulls(column)
    if (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
    ):
        column = column.cast(pa.int8()) if pa.types.is_boolean(kind) else column
        return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.zeros(len(column), bool)
    strings = _strings(column)
    bare = pc.utf8_trim_whitespace(strings)
    looks = pc.fill_null(pc.match_substring_regex(bare, _NUMBER), False)
    numbers = pc.if_else(looks, bare, pa.scalar(None, pa.string())).cast(pa.float64())
    empty = pc.fill_null(pc.equal(bare, ""), False).to_numpy(zero_copy_only=False)
    return numbers.to_numpy(zero_copy_only=False), ~looks.to_numpy(zero_copy_only=False) & ~nulls & ~empty


def _degree(column: Any, rule: Mapping[str, Any], name: str) -> Converted:  # noqa: ARG001
    values, bad = _floats(column)
    most = 90 if name == "latitude" else 180
    return Converted(
        values, bad | (np.abs(np.nan_to_num(values)) > most), f"degrees from -{most} to {most}, or nothing"
    )


def _amount(column: Any, rule: Mapping[str, Any], name: str) -> Converted:  # noqa: ARG001
    values, bad = _floats(column)
    minor = np.rint(values * 10.0 ** rule.get("decimals", 0))
    bad = bad | ~np.isfinite(minor) | (minor < 0) | (minor > AMOUNT_MINOR_MAX)
    return Converted(np.where(bad, 0, minor).astype(np.int64), bad, "an amount from 0 on")


def _whole(column: Any, rule: Mapping[str, Any], name: str) -> Converted:  # noqa: ARG001
    values, bad = _floats(column)
    bad = bad | ~np.isfinite(values) | (np.abs(np.nan_to_num(values)) >= 2**53) | (np.floor(values) != values)
    if name == "merchant_category_code":
        bad = bad | (np.nan_to_num(values) < 0) | (np.nan_to_num(values) > 9999)
    return Converted(np.where(bad, 0, values).astype(np.int64), bad, "a merchant category code, 0 to 9999")


def _time(column: Any, rule: Mapping[str, Any], name: str) -> Converted:  # noqa: ARG001
    wanted, kind = rule.get("format"), column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        at = column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
        return _in_range(pc.fill_null(at, 0).to_numpy(zero_copy_only=False), _nulls(column), "a time")
    if wanted in EPOCHS or (wanted is None and not _is_text(kind)):
        values, bad = _floats(column)
        at_ms = values * EPOCHS[wanted or "epoch_ms"]
        bad = bad | ~np.isfinite(at_ms) | (np.abs(np.nan_to_num(at_ms)) > 2**52)
        found = _in_range(np.where(bad, 0, at_ms).astype(np.int64), bad, f"a time as {wanted or 'epoch_ms'}")
        return found if wanted is not None else Converted(found.values, found.bad, found.allowed + _hint(values))
    strings = _strings(column)
    written_ms, bad = _strptime(strings, wanted) if wanted not in (None, "iso") else _iso(strings)
    return _in_range(written_ms, bad, f"a time like {wanted}" if wanted else "a time like 2026-11-28T09:30:00")


def _is_text(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _in_range(at_ms: type_i64, bad: type_bool, allowed: str) -> Converted:
    outside = (at_ms < EARLIEST_MS) | (at_ms > LATEST_MS)
    return Converted(np.where(outside, EARLIEST_MS, at_ms), bad | outside, f"{allowed}, from 2000 to 2099")


def _hint(values: np.ndarray) -> str:
    """Return which format numbers seem to have that are no milliseconds."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return ""
    middle = float(np.median(finite))
    for name, factor in EPOCHS.items():
        if name != "epoch_ms" and EARLIEST_MS <= middle * factor <= LATEST_MS:
            return f"; these look like {name}: say format: {name}"
    return ""


def _strptime(strings: Any, wanted: str) -> tuple[type_i64, type_bool]:
    found = pc.strptime(strings, format=wanted, unit="ms", error_is_null=True)
    return pc.fill_null(found.cast(pa.int64()), 0).to_numpy(zero_copy_only=False), _nulls(found)


def _iso(strings: Any) -> tuple[type_i64, type_bool]:
    encoded = strings.dictionary_encode()
    times = [_iso_ms(value) for value in encoded.dictionary.to_pylist()]
    table = np.array([*(0 if one is None else one for one in times), 0], np.int64)
    wrong = np.array([*(one is None for one in times), True])
    at = pc.fill_null(encoded.indices.cast(pa.int64()), len(times)).to_numpy(zero_copy_only=False)
    return table[at], wrong[at]


def _iso_ms(text: str) -> int | None:
    try:
        found = datetime.fromisoformat(text.strip())
        found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
        return round(found.timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        return None


def _uuid(column: Any, rule: Mapping[str, Any], name: str) -> Converted:  # noqa: ARG001
    nulls = _nulls(column)
    if _is_text(column.type):
        nulls = nulls | pc.fill_null(pc.equal(_strings(column), ""), True).to_numpy(zero_copy_only=False)
    if "uuid5" in rule:
        namespace = uuid.uuid5(NAMESPACE, rule["uuid5"])
        raw = b"".join(uuid.uuid5(namespace, str(value)).bytes for value in column.to_pylist())
        return Converted(np.frombuffer(raw, np.uint8).reshape(-1, 16), nulls, "an identifier")
    found = [_uuid_of(value) for value in column.to_pylist()]
    raw = b"".join(bytes(16) if one is None else one for one in found)
    bad = np.array([one is None for one in found], bool)
    return Converted(
        np.frombuffer(raw, np.uint8).reshape(-1, 16), bad, "a UUID; with uuid5: NAME one is made of any identifier"
    )


def _uuid_of(value: object) -> bytes | None:
    if isinstance(value, bytes):
        return value if len(value) == 16 else None
    try:
        return uuid.UUID(str(value)).bytes
    except ValueError:
        return None


_CONVERTERS: Final[dict[str, Callable[[Any, Mapping[str, Any], str], Converted]]] = {
    "transaction_id": _uuid,
    "event_time_ms": _time,
    "entry_mode": _entry_mode,
    **dict.fromkeys(TEXTS, _text),
    **dict.fromkeys(CODES, _code),
    **dict.fromkeys(DEGREES, _degree),
    **dict.fromkeys(AMOUNTS, _amount),
}
"""By field; the others are whole numbers."""


def constant(name: str, value: Any, n: int) -> Any:
    """Return a field of n rows that is the same in all. Raises ValueError, TypeError."""
    if name in TEXTS:
        return Text.constant(str(value).encode(), n)
    if name in DEGREES:
        return np.full(n, np.nan if value is None else float(value))
    if name in CODES:
        return np.full(n, pack_code(value), np.int64)
    if name == "entry_mode":
        return np.full(n, ENTRY_MODES.index(value), np.int64)
    return np.full(n, int(value), np.int64)
