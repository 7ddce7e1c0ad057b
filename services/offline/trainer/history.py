"""Where training data come from: the simulator, or a file through a mapping."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from services.core.columns import TransactionColumns, pack_code, type_f64
from services.core.money import scales_of
from services.core.terminal.windows import fraud_labels, label_events
from services.offline.datasets.mapping import DatasetError, load_mapping, read_dataset
from services.offline.simulator.generate import simulate
from services.offline.simulator.reference import simulate_reference
from services.offline.simulator.traffic import SCENARIOS, draw_labels
from services.offline.simulator.world import EUR_PER_UNIT
from services.offline.trainer.labelled import History


def amounts_in_eur(columns: TransactionColumns) -> type_f64:
    """Return billing amounts in EUR, by the simulator's round rates; another currency counts as EUR.

    For the cost table only: no feature sees a rate.
    """
    major = columns.billing_amount_minor / scales_of(columns.billing_currency)
    rate = np.ones(len(columns))
    for code, eur in EUR_PER_UNIT.items():
        rate[columns.billing_currency == pack_code(code)] = eur
    return major * rate


def simulated_history(cards: int, days: int, seed: int, start_ms: int) -> History:
    """Return simulated transactions."""
    traffic = simulate(cards, days, seed, start_ms)
    names = np.array(SCENARIOS, object)[traffic.scenario]
    source = f"simulated: {cards} cards, {days} days, seed {seed}"
    drawn = draw_labels(traffic, np.random.default_rng(seed))
    labels = label_events(traffic.columns, drawn.rows, traffic.scenario[drawn.rows] > 0, drawn.known_at_ms)
    reference = simulate_reference(traffic.columns, traffic.scenario == 0, seed).rows_of(traffic.columns)
    amounts = amounts_in_eur(traffic.columns)
    return History(traffic.columns, traffic.scenario > 0, names, amounts, labels, source, reference)


def file_history(path: Path, mapping: str) -> History:
    """Return a file's transactions in the order of event time; a row without a label is there, and nothing is learnt of it.

    Raises:
        DatasetError: the file cannot be read, or holds no label.
    """
    chunks = list(read_dataset(path, load_mapping(mapping)))
    if not chunks or any(chunk.is_fraud is None for chunk in chunks):
        raise DatasetError(f"{path} holds no transactions, or mapping {mapping} does not say where the truth is")
    columns = TransactionColumns.joined([chunk.columns for chunk in chunks])
    fraud = np.concatenate([chunk.is_fraud for chunk in chunks if chunk.is_fraud is not None])
    labelled = np.concatenate([chunk.labelled for chunk in chunks if chunk.labelled is not None])
    if not labelled.any():
        raise DatasetError(f"{path} holds no label: the column that mapping {mapping} names is empty in every row")
    scenario = np.where(fraud, "fraud", "genuine").astype(object)
    if all(chunk.scenario is not None for chunk in chunks):
        scenario = np.concatenate([chunk.scenario for chunk in chunks if chunk.scenario is not None])
    order = np.argsort(columns.event_time_ms, kind="stable")
    columns = columns.take(order)
    source = f"{path.name} through mapping {mapping}"
    labels, amounts = fraud_labels(columns, fraud[order]), amounts_in_eur(columns)
    return History(columns, fraud[order], scenario[order], amounts, labels, source, labelled=labelled[order])
