"""Transactions to Parquet, in Proact's own form: what ``--mapping proact`` reads."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from services.core.columns import ENTRY_MODES, Text, TransactionColumns, type_i64, unpack_code

_CODES = ("currency", "billing_currency", "country")


def _arrow(name: str, column: Any) -> Any:
    if isinstance(column, Text):
        return pa.array(column.tolist(), pa.binary()).cast(pa.string())
    if name == "transaction_id":
        return pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), len(column), [None, pa.py_buffer(np.ascontiguousarray(column))]
        )
    if name in _CODES:
        known, index = np.unique(column, return_inverse=True)
        return pa.DictionaryArray.from_arrays(index.astype(np.int32), [unpack_code(c) for c in known]).cast(pa.string())
    if name == "entry_mode":
        return pa.DictionaryArray.from_arrays(column.astype(np.int32), list(ENTRY_MODES)).cast(pa.string())
    return pa.array(column)


def write_parquet(path: Path, columns: TransactionColumns, scenario: type_i64, names: tuple[str, ...]) -> None:
    """Write transactions and the truth about them: ``is_fraud`` and the scenario's name."""
    values = {f.name: _arrow(f.name, getattr(columns, f.name)) for f in fields(columns)}
    values["is_fraud"] = pa.array(scenario > 0)
    values["scenario"] = pa.DictionaryArray.from_arrays(scenario.astype(np.int32), list(names)).cast(pa.string())
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.table(values), path, compression="zstd")
