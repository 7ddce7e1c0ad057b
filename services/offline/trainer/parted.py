"""Training on a set in parts, whose vectors stay in files: boosters by ``xgboost.dask``, everything else a part at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet
import xgboost

from services.core.columns import type_bool, type_f64, type_i64
from services.core.features import FEATURE_NAMES
from services.core.kernels import hash_text
from services.offline.datasets.parted import parts_of
from services.offline.datasets.recomputed import text_of
from services.offline.datasets.served import Served, require_rows
from services.offline.trainer.labelled import PARAMETERS, ROUNDS, Labelled, days_of
from services.offline.workers import OnDask

SAMPLE_MAX: Final = 200_000
"""So many vectors are looked at where not all fit into memory: for the isolation forest, which takes some 16,000 of them, and its threshold."""
_TRUTHS: Final = [
    "card_id", "event_time_ms", "action", "billing_amount_minor", "billing_currency", "is_fraud", "scenario",
    "weight",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class PartedLabelled(Labelled):
    """What is known of all rows is held here, some 40 bytes each; ``vectors`` holds none: they are in ``files``, which every worker sees."""

    files: tuple[Path, ...]
    edges: type_i64
    """(files + 1,) the first row of each file."""
    runner: OnDask

    @classmethod
    def open(cls, folder: Path, description: dict[str, Any], runner: OnDask) -> PartedLabelled:
        """Read the truth of a training set in parts. Raises TrainingSetError where there is nothing."""
        require_rows(description)
        files = parts_of(folder.resolve())
        found = runner.run("reading labels", truth_of, [(one,) for one in files])
        columns = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
        sizes = [len(one["fraud"]) for one in found]
        return cls(
            vectors=np.empty((0, len(FEATURE_NAMES))),
            day=days_of(columns.pop("time_ms")),
            source=description | {"trained_on": "dask", "workers": runner.worker_count},
            files=tuple(files),
            edges=np.concatenate([[0], np.cumsum(sizes)]),
            runner=runner,
            **columns,
        )

    def _chosen(self, rows: type_bool) -> list[tuple[int, type_bool]]:
        """Return the parts that have some of the rows, by their numbers, and which of a part's own rows."""
        split = [rows[a:b] for a, b in zip(self.edges[:-1], self.edges[1:], strict=True)]
        return [(part, some) for part, some in enumerate(split) if some.any()]

    def each(self, rows: type_bool, function: Callable[[type_f64], Any]) -> Any:
        """See :class:`Labelled`."""
        [sent] = self.runner.client.scatter([function], broadcast=True, hash=False)
        tasks = [(self.files[part], np.packbits(some), sent) for part, some in self._chosen(rows)]
        found = self.runner.run("scoring", call_on_part, tasks)
        return np.concatenate([function(self.vectors)[:0], *found])

    def some(self, rows: type_bool) -> type_f64:
        """See :class:`Labelled`: at most ``SAMPLE_MAX``, at even distances."""
        at = np.flatnonzero(rows)
        return self.take(at[:: max(1, -(-len(at) // SAMPLE_MAX))])

    def take(self, rows: type_i64) -> type_f64:
        """See :class:`Labelled`."""
        wanted = np.zeros(len(self), bool)
        wanted[rows] = True
        tasks = [(self.files[part], np.packbits(some), as_they_are) for part, some in self._chosen(wanted)]
        found = np.concatenate([self.vectors, *self.runner.run("looking at examples", call_on_part, tasks)])
        return found[np.searchsorted(np.flatnonzero(wanted), rows)]

    def fit(
        self, rows: type_bool, view: Callable[[type_f64, int], type_f64], rounds: int = ROUNDS, **others: Any
    ) -> xgboost.Booster:
        """See :class:`Labelled`: each worker bins the parts that it has read, and all of them grow the same trees."""
        from dask import array, delayed  # noqa: PLC0415 - of an extra
        from xgboost import dask as distributed  # noqa: PLC0415

        chosen, client = self._chosen(rows), self.runner.client
        width, sizes = len(FEATURE_NAMES), tuple(int(some.sum()) for _, some in chosen)
        parts = [
            array.from_delayed(
                delayed(matrix_of_part, pure=False)(self.files[part], np.packbits(some), view, part), (size, width), np.float32
            )
            for (part, some), size in zip(chosen, sizes, strict=True)
        ]  # fmt: skip
        labels = array.from_array(self.fraud[rows].astype(np.float32), chunks=(sizes,))
        weight = self.weights_of(rows)
        weights = None if weight is None else array.from_array(weight.astype(np.float32), chunks=(sizes,))
        parameters = {name: value for name, value in (PARAMETERS | others).items() if name != "nthread"}
        with client.as_current():  # XGBoost asks for one, whichever it is given
            matrix = distributed.DaskQuantileDMatrix(
                client, array.concatenate(parts), labels, weight=weights, max_bin=parameters["max_bin"]
            )
            booster: xgboost.Booster = distributed.train(client, parameters, matrix, num_boost_round=rounds)["booster"]
        return booster


def truth_of(path: Path) -> dict[str, Any]:
    """Task: return what is known of the rows of a part, column by column."""
    served = Served(pyarrow.parquet.read_table(path, columns=_TRUTHS), np.empty((0, 0)), {})
    return {
        "fraud": served.fraud,
        "known": served.known,
        "weight": served.weight,
        "scenario": served.scenario,
        "amount_eur": served.amount_eur,
        "card": hash_text(text_of(served.table["card_id"])).view(np.int64),
        "time_ms": served.table["event_time_ms"].to_numpy(),
    }


def call_on_part(path: Path, rows: np.ndarray, function: Callable[[type_f64], Any]) -> Any:
    """Task: return what a function makes of some rows of a part, which are packed bits."""
    return function(_vectors(path, rows))


def as_they_are(vectors: type_f64) -> type_f64:
    """Return the vectors."""
    return vectors


def matrix_of_part(path: Path, rows: np.ndarray, view: Callable[[type_f64, int], type_f64], part: int) -> np.ndarray:
    """Task: return some rows of a part as XGBoost takes them, which rounds to float32 in any case."""
    return view(_vectors(path, rows), part).astype(np.float32)


def _vectors(path: Path, rows: np.ndarray) -> type_f64:
    table = pyarrow.parquet.read_table(path, columns=list(FEATURE_NAMES))
    chosen: type_bool = np.unpackbits(rows, count=len(table)).astype(bool)
    vectors = np.stack([table[name].to_numpy() for name in FEATURE_NAMES], axis=1)
    return vectors[chosen]
