"""What a file holds, read to its end through a mapping, before anything is done with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from services.core.columns import Text, TransactionColumns, type_bool
from services.core.validation import Reject, validate
from services.offline.datasets.fields import Converted
from services.offline.datasets.files import Chunk, read_chunks
from services.offline.datasets.labels import DatasetError
from services.offline.datasets.mapping import Mapping, converted, why_bad

EXAMPLES_MAX: Final = 5
"""Rows that are shown of each kind of trouble."""
LABELS_MAX: Final = 20
"""Different labels that are counted by name; more are no labels."""


@dataclass(slots=True)
class FieldReport:
    """One field of all rows."""

    missing: int = 0
    """Rows in which the file's column holds nothing."""
    wrong: int = 0
    """Rows whose value cannot be one."""
    least: float | None = None
    most: float | None = None
    examples: list[str] = field(default_factory=list)

    def as_json(self, rows: int, name: str) -> dict[str, Any]:
        """Return it for machines."""
        said: dict[str, Any] = {"missing": round(self.missing / rows, 4) if rows else 0.0, "wrong": self.wrong}
        if self.least is not None:
            said["range"] = [_shown(self.least, name), _shown(self.most or 0.0, name)]
        return said


@dataclass(slots=True)
class FileReport:
    """A file, read to its end."""

    rows: int = 0
    files: int = 0
    fields: dict[str, FieldReport] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)
    label_trouble: str | None = None
    refused: Counter[str] = field(default_factory=Counter)
    """By reason, rows that would become dead letters."""
    refused_rows: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether training and a replay can read it."""
        return self.rows > 0 and self.label_trouble is None and not any(one.wrong for one in self.fields.values())

    @property
    def days(self) -> float:
        """How many days its events span."""
        time = self.fields.get("event_time_ms")
        return 0.0 if time is None or time.least is None else ((time.most or 0.0) - time.least) / 86_400_000

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "usable": self.usable,
            "rows": self.rows,
            "files": self.files,
            "days": round(self.days, 1),
            "fields": {name: one.as_json(self.rows, name) for name, one in self.fields.items()},
            "labels": dict(self.labels),
            "would_be_refused": dict(self.refused),
            "examples": [line for one in self.fields.values() for line in one.examples]
            + [line for lines in self.refused_rows.values() for line in lines]
            + ([self.label_trouble] if self.label_trouble else []),
            "left_out": self.left_out,
        }


def _shown(value: float, name: str) -> Any:
    if name == "event_time_ms":
        return datetime.fromtimestamp(value / 1000, UTC).isoformat(timespec="seconds")
    return int(value) if float(value).is_integer() else round(value, 4)


def report_on(
    path: Path, mapping: Mapping, now_ms: int, progress: Callable[[int], None] = lambda _: None
) -> FileReport:
    """Read everything, and say what it holds.

    Args:
        path: a file or a folder.
        mapping: how it is read.
        now_ms: the present: what lies after tomorrow would be refused.
        progress: called with the number of rows that were read.

    Raises:
        DatasetError: a file cannot be read at all, or lacks a column.
    """
    report = FileReport(left_out=mapping.left_out)
    paths: set[Path] = set()
    for chunk in read_chunks(path, mapping.source_columns, mapping.texts):
        paths.add(chunk.path)
        _add(report, chunk, mapping, now_ms)
        progress(report.rows)
    report.files = len(paths)
    return report


def _add(report: FileReport, chunk: Chunk, mapping: Mapping, now_ms: int) -> None:
    n = chunk.table.num_rows
    report.rows += n
    if not n:
        return
    found = converted(chunk, mapping)
    bad = np.zeros(n, bool)
    for name, one in found.items():
        bad |= one.bad
        if name in mapping.fields:
            _add_field(report.fields.setdefault(name, FieldReport()), (chunk, mapping, name), one)
    _add_refused(report, chunk, found, bad, now_ms)
    _add_labels(report, chunk, mapping)


def _add_field(report: FieldReport, where: tuple[Chunk, Mapping, str], one: Converted) -> None:
    chunk, mapping, name = where
    rule = mapping.fields[name]
    if "column" in rule:
        report.missing += _missing(chunk.table.column(rule["column"]))
    if one.bad.any():
        report.wrong += int(one.bad.sum())
        if not report.examples:
            report.examples.append(why_bad(chunk, mapping, name, one))
    if (
        isinstance(one.values, Text)
        or one.values.ndim != 1
        or name in ("currency", "billing_currency", "country", "entry_mode")
    ):
        return
    good = one.values[~one.bad & np.isfinite(one.values)]
    if len(good):
        least, most = float(good.min()), float(good.max())
        report.least = least if report.least is None else min(report.least, least)
        report.most = most if report.most is None else max(report.most, most)


def _missing(column: Any) -> int:
    nothing = column.null_count
    if pa.types.is_string(column.type):
        nothing += int(pc.sum(pc.equal(column, "")).as_py() or 0)
    if pa.types.is_floating(column.type):
        nothing += int(pc.sum(pc.is_nan(column)).as_py() or 0)
    return int(nothing)


def _add_refused(report: FileReport, chunk: Chunk, found: dict[str, Converted], bad: type_bool, now_ms: int) -> None:
    """Count what the scorer would refuse of the rows that can be read."""
    good = np.flatnonzero(~bad)
    if not len(good):
        return
    columns = TransactionColumns(**{name: one.values for name, one in found.items()}).take(good)
    status = validate(columns, columns.card_id, np.ones(len(good), bool), np.full(len(good), now_ms, np.int64))
    for reason in np.unique(status[status != Reject.NONE]).tolist():
        rows = good[status == reason] + chunk.first_row
        name = Reject(reason).name
        report.refused[name] += len(rows)
        lines = report.refused_rows.setdefault(name, [])
        if not lines:
            shown = ", ".join(map(str, rows[:EXAMPLES_MAX].tolist()))
            lines.append(f"{chunk.path.name}: {name}: rows {shown}{' and more' if len(rows) > EXAMPLES_MAX else ''}")


def _add_labels(report: FileReport, chunk: Chunk, mapping: Mapping) -> None:
    label = mapping.label
    if label is None:
        return
    column = chunk.table.column(label.column)
    try:
        words = label.read(column, chunk.path.name, chunk.first_row, untyped=chunk.untyped)
    except DatasetError as error:
        report.label_trouble = report.label_trouble or str(error)
        return
    report.labels["fraud"] += int(words.fraud.sum())
    report.labels["genuine"] += int((words.known & ~words.fraud).sum())
    report.labels["none"] += int((~words.known).sum())
