"""Where training data come from: the simulator, or a file through a mapping."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from services.core.columns import Text, TransactionColumns, pack_code, type_f64
from services.core.money import exponents_of
from services.datasets.mapping import Dataset, DatasetError, load_mapping, read_dataset
from services.simulator.generate import simulate
from services.simulator.traffic import SCENARIOS
from services.simulator.world import EUR_PER_UNIT
from services.trainer.training import History


def amounts_in_eur(columns: TransactionColumns) -> type_f64:
    """Return billing amounts in EUR, by the simulator's round rates; another currency counts as EUR.

    For the cost table only: no feature sees a rate.
    """
    major = columns.billing_amount_minor / 10.0 ** exponents_of(columns.billing_currency)
    rate = np.ones(len(columns))
    for code, eur in EUR_PER_UNIT.items():
        rate[columns.billing_currency == pack_code(code)] = eur
    return major * rate


def simulated_history(cards: int, days: int, seed: int, start_ms: int) -> History:
    """Return simulated transactions."""
    traffic = simulate(cards, days, seed, start_ms)
    names = np.array(SCENARIOS, object)[traffic.scenario]
    source = f"simulated: {cards} cards, {days} days, seed {seed}"
    return History(traffic.columns, traffic.scenario > 0, names, amounts_in_eur(traffic.columns), source)


def file_history(path: Path, mapping: str) -> History:
    """Return a file's transactions in the order of event time. Raises DatasetError."""
    chunks = list(read_dataset(path, load_mapping(mapping)))
    if not chunks or any(chunk.is_fraud is None for chunk in chunks):
        raise DatasetError(f"{path} holds no transactions, or mapping {mapping} does not say where the truth is")
    columns = concatenate(chunks)
    fraud = np.concatenate([chunk.is_fraud for chunk in chunks if chunk.is_fraud is not None])
    scenario = np.where(fraud, "fraud", "genuine").astype(object)
    if all(chunk.scenario is not None for chunk in chunks):
        scenario = np.concatenate([chunk.scenario for chunk in chunks if chunk.scenario is not None])
    order = np.argsort(columns.event_time_ms, kind="stable")
    columns = columns.take(order)
    return History(
        columns, fraud[order], scenario[order], amounts_in_eur(columns), f"{path.name} through mapping {mapping}"
    )


def concatenate(chunks: list[Dataset]) -> TransactionColumns:
    """Return the chunks of a file as one."""
    joined: dict[str, Any] = {}
    for field in fields(TransactionColumns):
        parts = [getattr(chunk.columns, field.name) for chunk in chunks]
        joined[field.name] = _concatenate_text(parts) if isinstance(parts[0], Text) else np.concatenate(parts)
    return TransactionColumns(**joined)


def _concatenate_text(parts: list[Text]) -> Text:
    at = np.cumsum([0, *(len(part.buffer) for part in parts)])
    return Text(
        np.concatenate([part.buffer for part in parts]),
        np.concatenate([part.start + shift for part, shift in zip(parts, at[:-1], strict=True)]),
        np.concatenate([part.length for part in parts]),
    )
