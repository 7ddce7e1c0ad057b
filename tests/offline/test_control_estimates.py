"""What a control group says of a model that blocks, against the truth of a simulator; and what the labels alone say."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from services.core.classes import classify
from services.core.control import ControlGroup
from services.core.kernels import group_text
from services.core.offline import compute_offline
from services.core.policy import Action
from services.core.terminal.windows import fraud_labels
from services.offline.backtests.control import GROUP_MIN, ControlRows, estimate
from services.offline.datasets.served import TrainingSetError
from services.offline.simulator.generate import simulate
from tests.worker.memory_system import released_model

START_MS = 1_767_225_600_000
SEEDS = range(20)


@cache
def world(seed: int) -> tuple[ControlRows, tuple[float, float]]:
    """Return a month of decisions of the live model, with labels of what was not blocked; and true precision and recall."""
    traffic = simulate(1_500, 40, seed, START_MS)
    columns, fraud = traffic.columns, traffic.scenario > 0
    vectors = compute_offline(columns, fraud_labels(columns, fraud), None).vectors
    model = released_model()
    assert model.champion is not None
    actions = model.champion.actions(classify(vectors), model.champion.predict(vectors))
    stopped = actions != Action.APPROVE
    group = ControlGroup(0.2, 1e9, f"key {seed}")
    drawn = group.drawn(columns.transaction_id) & stopped
    known = drawn | (actions != Action.BLOCK)
    card, _ = group_text(columns.card_id, np.zeros(len(columns), np.int64))
    rows = ControlRows(
        card, stopped & ~drawn, np.where(stopped, 0.2, np.nan), drawn, fraud & known, known & fraud
    )  # fmt: skip
    caught = (stopped & fraud).sum()
    return rows, (caught / stopped.sum(), caught / fraud.sum())


def test_the_estimates_interval_holds_the_truth_and_the_labels_alone_do_not_say_it():
    held, naive_held = [0, 0], [0, 0]
    for seed in SEEDS:
        rows, truth = world(seed)
        found = estimate(rows, seed)
        for j, name in enumerate(("precision", "recall")):
            low, high = found[name]["interval"]
            held[j] += low <= truth[j] <= high
            naive_held[j] += low <= found[name]["naive"] <= high and abs(found[name]["naive"] - truth[j]) < 0.02
    assert min(held) >= 18, held
    assert max(naive_held) <= 4, naive_held


def test_the_estimate_is_what_a_loop_adds_up_to():
    rows, _ = world(3)
    could = frauds = missed = 0.0
    for i in range(len(rows.card)):
        could += not np.isnan(rows.propensity[i])
        if rows.let_through[i] and rows.fraud[i]:
            frauds += 1 / rows.propensity[i]
        missed += bool(rows.fraud[i] and not rows.stopped[i] and not rows.let_through[i])
    found = estimate(rows, 1)
    assert found["precision"]["value"] == pytest.approx(frauds / could, abs=1e-4)
    assert found["recall"]["value"] == pytest.approx(frauds / (frauds + missed), abs=1e-4)
    assert found["let_through"] == int(rows.let_through.sum())


def test_of_a_few_nothing_is_estimated():
    nothing = np.zeros(GROUP_MIN, bool)
    rows = ControlRows(np.zeros(GROUP_MIN, np.int64), nothing, np.full(GROUP_MIN, np.nan), nothing, nothing, nothing)
    with pytest.raises(TrainingSetError, match="let through"):
        estimate(rows, 1)
