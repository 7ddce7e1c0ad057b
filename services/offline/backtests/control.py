"""What the control group says of those who stop transactions: precision, recall and money, without the bias that stopping makes for itself.

What is blocked has no label: nobody complains of what did not happen. So the figures of a model that blocks are of what it let through, which
is no sample of what it stops. Of the control group the truth comes as for everything else. Sums over all that could have been let through are
estimated by those over the group, each divided by its probability (Horvitz and Thompson, 1952); the intervals are a bootstrap by card.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from services.core.columns import type_bool, type_f64, type_i64
from services.lake.queries import Lake
from services.offline.datasets.served import TrainingPeriod, TrainingSetError, require_tables

RESAMPLES: Final = 1_000
LEVEL: Final = 0.95
GROUP_MIN: Final = 30
"""Of fewer transactions nothing is estimated."""
_ASKED: Final = """
    SELECT d.card_id, d.action != 'APPROVE' AS stopped, d.control_propensity AS propensity, d.control_action IS NOT NULL AS let_through,
        coalesce(l.is_fraud, false) AS fraud, l.is_fraud IS NOT NULL AS labelled
    FROM card_decisions d LEFT JOIN (
        SELECT transaction_id, is_fraud FROM fraud_labels WHERE known_at_ms <= $until_ms
        QUALIFY row_number() OVER (PARTITION BY transaction_id ORDER BY known_at_ms DESC, kafka_offset DESC) = 1
    ) l ON l.transaction_id = d.transaction_id
    WHERE d.event_time_ms >= $from_ms AND d.event_time_ms < $mature_ms AND d.decided_at_ms < $decided_ms AND NOT d.repeat
        AND d.decided_by IN ('MODEL', 'ANOMALY')
    ORDER BY d.card_id
"""


@dataclass(frozen=True, slots=True)
class ControlRows:
    """Decisions of model and anomaly score, and what became of them."""

    card: type_i64
    """(n,) a number for each card, ascending."""
    stopped: type_bool
    propensity: type_f64
    """(n,) NaN where it could not be let through."""
    let_through: type_bool
    """(n,) which were, although they would have been stopped."""
    fraud: type_bool
    """(n,) which are known to be fraud."""
    labelled: type_bool
    """(n,) of which somebody said what they are."""


def read_control(lake: Lake, period: TrainingPeriod) -> ControlRows:
    """Return the decisions of a period. Raises TrainingSetError, LakeError."""
    require_tables(lake)
    if "control_action" not in lake.columns("card_decisions"):
        raise TrainingSetError("the lake's decisions are older than the control group: none of them was let through")
    asked = {name: period.parameters[name] for name in ("from_ms", "until_ms", "mature_ms", "decided_ms")}
    table = lake.query(_ASKED, asked)
    cards = table["card_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    flags = (table[name].to_numpy().astype(bool) for name in ("stopped", "let_through", "fraud", "labelled"))
    stopped, let_through, fraud, labelled = flags
    propensity = table["propensity"].to_numpy().astype(np.float64)
    return ControlRows(cards, stopped, propensity, let_through, fraud, labelled)


def estimate(rows: ControlRows, seed: int) -> dict[str, Any]:
    """Return precision and recall of what model and anomaly score stop, among what could have been let through, with intervals.

    Args:
        rows: the decisions.
        seed: of the cards that are drawn.

    Raises:
        TrainingSetError: the control group is too small to say anything.
    """
    size = int(rows.let_through.sum())
    if size < GROUP_MIN:
        raise TrainingSetError(
            f"{size} transactions were let through: {GROUP_MIN} at least say something (control_share)"
        )
    sums = _by_card(rows)
    rng, n = np.random.default_rng(seed), len(sums)
    drawn = np.array([_figures(rng.multinomial(n, np.full(n, 1 / n)) @ sums) for _ in range(RESAMPLES)])
    whole, naive = _figures(sums.sum(axis=0)), _naive(rows)
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    names = ("precision", "recall")
    return {
        "let_through": size,
        "could_have_been": int((~np.isnan(rows.propensity)).sum()),
        "level": LEVEL,
        **{
            name: {"value": _rounded(whole[j]), "interval": [_rounded(low[j]), _rounded(high[j])], "naive": _rounded(naive[j])}
            for j, name in enumerate(names)
        },
    }  # fmt: skip


def _by_card(rows: ControlRows) -> type_f64:
    """Return (cards, 3): how many could have been let through, how many frauds those are by the estimate, and how many frauds were approved."""
    could = ~np.isnan(rows.propensity)
    frauds = np.where(rows.let_through & rows.fraud, 1.0 / np.where(could, rows.propensity, 1.0), 0.0)
    missed = ~rows.stopped & ~rows.let_through & rows.fraud
    n = int(rows.card.max(initial=-1)) + 1
    return np.stack(
        [np.bincount(rows.card, one, n) for one in (could.astype(float), frauds, missed.astype(float))], axis=1
    )


def _figures(sums: type_f64) -> tuple[float, float]:
    could, frauds, missed = sums.tolist()
    return _ratio(frauds, could), _ratio(frauds, frauds + missed)


def _naive(rows: ControlRows) -> tuple[float, float]:
    """Return precision and recall as they look by the labels of what was stopped: those of a few that somebody asked about."""
    stopped = rows.stopped & ~np.isnan(rows.propensity)
    frauds = float((stopped & rows.fraud).sum())
    missed = float((~rows.stopped & ~rows.let_through & rows.fraud).sum())
    return _ratio(frauds, float(stopped.sum())), _ratio(frauds, frauds + missed)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
