"""Whether one Avro schema reads what another wrote, by the rules of the Avro specification (Schema Resolution), whatever the records hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.codec.resolution import whole

_PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


def why_not_read(writer: Any, reader: Any) -> list[str]:
    """Return why records of ``writer`` are not all read by ``reader``; nothing where they are.

    Beyond the specification: a default of bytes or fixed is null, since fastavro gives such a default as a text.
    """
    return list(_why_not(whole(writer), whole(reader), reader["name"]))


def _kind(one: Any) -> str:
    return one["type"] if isinstance(one, dict) else one


def _why_not(said: Any, read: Any, at: str) -> Iterator[str]:
    if isinstance(said, list):
        for branch in said:
            yield from _why_not(branch, read, at)
    elif isinstance(read, list):
        if all(list(_why_not(said, branch, at)) for branch in read):
            yield f"{at}: {_kind(said)} is none of {[_kind(branch) for branch in read]}"
    elif _kind(said) != _kind(read):
        if _kind(read) not in _PROMOTIONS.get(_kind(said), ()):
            yield f"{at}: {_kind(said)} is not read as {_kind(read)}"
    elif _kind(said) in ("record", "enum", "fixed"):
        names = {read["name"].split(".")[-1], *read.get("aliases", [])}
        if said["name"].split(".")[-1] not in names:
            yield f"{at}: {said['name']} is not {read['name']}"
        yield from {"record": _why_not_record, "enum": _why_not_enum, "fixed": _why_not_fixed}[_kind(said)](
            said, read, at
        )
    elif _kind(said) in ("array", "map"):
        items = "items" if _kind(said) == "array" else "values"
        yield from _why_not(said[items], read[items], f"{at}[]")


def _why_not_record(said: Any, read: Any, at: str) -> Iterator[str]:
    by_name = {field["name"]: field for field in said["fields"]}
    for field in read["fields"]:
        reported = next((by_name[name] for name in (field["name"], *field.get("aliases", [])) if name in by_name), None)
        name = f"{at}.{field['name']}"
        if reported is not None:
            yield from _why_not(reported["type"], field["type"], name)
        elif "default" not in field:
            yield f"{name}: is not said, and has no default"
        elif field["default"] is not None and {"bytes", "fixed"} & {_kind(one) for one in _branches(field["type"])}:
            yield f"{name}: a default of bytes is null"


def _branches(kind: Any) -> list[Any]:
    return kind if isinstance(kind, list) else [kind]


def _why_not_enum(said: Any, read: Any, at: str) -> Iterator[str]:
    unknown = [symbol for symbol in said["symbols"] if symbol not in read["symbols"]]
    if unknown and "default" not in read:
        yield f"{at}: {', '.join(unknown)} are no symbols, and there is no default"


def _why_not_fixed(said: Any, read: Any, at: str) -> Iterator[str]:
    if said["size"] != read["size"]:
        yield f"{at}: {said['size']} bytes are not {read['size']}"
