"""A folder of schemas that has grown by a version, and processes and modules that read it."""

from __future__ import annotations

import copy
import importlib
import json
import pkgutil
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import services.codec
import services.codec.schemas
from services.codec.records import decode_as_newest, encode_record
from services.codec.schemas import topics
from services.codec.transactions import TOPIC, code_text
from services.codec.writing import ColumnarWriter
from services.core.columns import TransactionColumns
from services.paths import data_folder

NEW_FIELD = {
    "name": "added_by_a_test",
    "type": ["null", "string"],
    "default": None,
    "doc": "the wallet that paid; null for none",
}
Change = Callable[[dict[str, Any]], None]


def add_field(definition: dict[str, Any]) -> None:
    """Add a nullable field with a default, in the middle: a field's place is none of its readers' business."""
    definition["fields"].insert(7, copy.deepcopy(NEW_FIELD))


def grown_folder(folder: Path, topic: str, change: Change = add_field, written_version: int | None = None) -> Path:
    """Copy schemas/ into a folder, and give a topic one more version; return it."""
    schemas = folder / "schemas"
    shutil.copytree(data_folder("schemas"), schemas)
    newest = topics()[topic].latest
    definition = copy.deepcopy(newest.definition)
    change(definition)
    (schemas / topic / f"v{newest.version + 1}.avsc").write_text(json.dumps(definition))
    if written_version is not None:
        with (schemas / topic / "topic.yaml").open("a") as described:
            described.write(f"\nwritten_version: {written_version}\n")
    return schemas


def _forget() -> None:
    """Let every module of the codec read the schemas again."""
    for module in pkgutil.iter_modules(services.codec.__path__):
        for one in vars(importlib.import_module(f"services.codec.{module.name}")).values():
            if hasattr(one, "cache_clear"):
                one.cache_clear()


@contextmanager
def reading(schemas: Path) -> Iterator[None]:
    """Let the codec of this process read another folder of schemas."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services.codec.schemas, "data_folder", lambda _: schemas)
        _forget()
        try:
            yield
        finally:
            patch.undo()
            _forget()


def environment_reading(schemas: Path, folder: Path) -> dict[str, str]:
    """Return what a process needs in its environment to read another folder of schemas: Python runs sitecustomize.py before all else."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "from pathlib import Path\n"
        "import services.paths\n"
        "usual = services.paths.data_folder\n"
        f"services.paths.data_folder = lambda name: Path({str(schemas)!r}) if name == 'schemas' else usual(name)\n"
    )
    return {"PYTHONPATH": str(folder)}


def encoded_as_newest(columns: TransactionColumns, wallet: str | None = "wallet-7") -> list[bytes]:
    """Return transactions as producers of the newest version write them, who say what nobody here reads yet."""
    newest = topics()[TOPIC].latest
    records = [decode_as_newest(value)[1] | {"added_by_a_test": wallet} for value in encoded_as_first(columns)]
    return [encode_record(newest, record) for record in records]


def encoded_as_first(columns: TransactionColumns) -> list[bytes]:
    """Return transactions as producers of the first version write them."""
    schema = topics()[TOPIC].versions[0]
    values = {field["name"]: getattr(columns, field["name"]) for field in schema.definition["fields"]}
    widths = {"currency": 3, "billing_currency": 3, "country": 2}
    values |= {name: code_text(values[name], width) for name, width in widths.items()}
    return ColumnarWriter(schema).write(values, len(columns))
