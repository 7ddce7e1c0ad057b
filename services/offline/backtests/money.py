"""A policy tried on what was decided, day by day: frauds stopped, good sales lost, reviews, and what it is worth, beside what was really done.

By the code that decides live (:func:`services.decision.engine.decide_actions`), on the vectors that serving saw. What account or customer forbade stays
forbidden. Of transactions whose truth is not known (blocked ones that nobody labelled) no money is counted; how many there are is said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from services.core.classes import TransactionClass
from services.core.columns import type_bool, type_f64, type_i64
from services.core.fallback import FallbackTier
from services.core.policy import Action
from services.core.rules.engine import NOBODY
from services.decision.engine import DecisionBatch, decide_actions
from services.lake.queries import Lake
from services.lake.table import midnight_ms
from services.offline.backtests.policy import TriedPolicy
from services.offline.datasets.recomputed import columns_of
from services.offline.datasets.served import (
    Served,
    TrainingPeriod,
    TrainingSetError,
    read_decided,
    require_tables,
)
from services.offline.trainer.costs import CostTable

MEASURES: Final = ("fraud_stopped_eur", "good_sales_lost_eur", "reviews", "review_minutes", "net_value_eur")
FLIPS_MAX: Final = 1_000
RESAMPLES: Final = 400
LEVEL: Final = 0.95
_FORBIDDING: Final = pa.array(["ACCOUNT", "CUSTOMER"])
"""Whose word no policy changes."""
_ACTIONS: Final = {action.name: int(action) for action in Action}


@dataclass(slots=True)
class MoneyTally:
    """Sums by card: what was really done, and what the policy would have done."""

    cards: dict[str, int] = field(default_factory=dict)
    done: type_f64 = field(default_factory=lambda: np.zeros((0, len(MEASURES))))
    """(cards, measures)"""
    tried: type_f64 = field(default_factory=lambda: np.zeros((0, len(MEASURES))))
    groups: dict[tuple[str, str], type_f64] = field(default_factory=dict)
    """By kind of group and its name: transactions, frauds, frauds not approved then, and by the policy."""
    flips: list[dict[str, Any]] = field(default_factory=list)
    flipped: int = 0
    transactions: int = 0
    frauds: int = 0
    unknown: int = 0
    """Transactions whose truth is not known."""
    unknown_approved: int = 0
    """Those of them that the policy would approve."""

    def add(self, card: list[str], done: type_f64, tried: type_f64) -> None:
        """Add rows of measures to the sums of their cards."""
        at = np.array([self.cards.setdefault(one, len(self.cards)) for one in card], np.int64)
        more = len(self.cards) - len(self.done)
        if more > 0:
            grown = np.zeros((max(more, len(self.done)), len(MEASURES)))
            self.done, self.tried = np.concatenate([self.done, grown]), np.concatenate([self.tried, grown.copy()])
        np.add.at(self.done, at, done)
        np.add.at(self.tried, at, tried)


def run_backtest(
    lake: Lake, policy: TriedPolicy, period: TrainingPeriod, seed: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Try a policy on the decisions of a period that have matured by its end.

    Returns:
        what JSON and page are made of: each measure then, by the policy, and the difference, with an interval of ``LEVEL`` over cards that are
        drawn again with replacement (bootstrap; Efron and Tibshirani, 1993).

    Raises:
        TrainingSetError: a table is missing, or there is nothing of the period.
        LakeError: the lake cannot be read.
    """
    tally = MoneyTally()
    for day in _days(lake, period):
        some = read_decided(lake, period, day)
        if len(some.table):
            _add_day(tally, some, policy)
            progress(f"{day}: {tally.transactions:,} decisions tried")
    if not tally.transactions:
        raise TrainingSetError(
            "the lake holds no decision of these days that has matured; of a history that was replayed say --replayed"
        )
    return _result(tally, policy, period, seed)


def _days(lake: Lake, period: TrainingPeriod) -> list[str]:
    until_ms = midnight_ms(period.until - timedelta(days=period.label_delay_days))
    until = datetime.fromtimestamp(until_ms / 1000, UTC).date().isoformat()
    require_tables(lake)
    found = lake.query("SELECT DISTINCT event_date::VARCHAR AS day FROM card_decisions ORDER BY 1").to_pylist()
    days = [row["day"] for row in found]
    return [day for day in days if day < until and (period.since is None or day >= period.since.isoformat())]


def _add_day(tally: MoneyTally, some: Served, policy: TriedPolicy) -> None:
    table = some.table
    made = decide_actions(policy.engine, FallbackTier.CHAMPION, columns_of(table), some.vectors, None)
    done = np.array([_ACTIONS.get(name, 0) for name in table["action"].to_pylist()], np.int64)
    forbidden = pc.is_in(table["decided_by"], _FORBIDDING).to_numpy(zero_copy_only=False)
    actions = np.where(forbidden, done, made.actions)
    fraud, known, amount_eur = some.fraud, some.known, some.amount_eur
    rows = np.flatnonzero(known)
    tally.transactions += len(table)
    tally.frauds += int(fraud.sum())
    tally.unknown += int((~known).sum())
    tally.unknown_approved += int((~known & (actions == Action.APPROVE)).sum())
    cards = table["card_id"].to_pylist()
    measured = (
        _measures(one[rows], fraud[rows], amount_eur[rows], policy.review_minutes, policy.costs)
        for one in (done, actions)
    )
    tally.add([cards[i] for i in rows.tolist()], *measured)
    scenario = table["scenario"].fill_null("").to_numpy(zero_copy_only=False)
    _add_groups(
        tally,
        "class",
        np.array([one.name for one in TransactionClass], object)[made.classes],
        (fraud, done, actions),
        known,
    )
    _add_groups(
        tally, "scenario", np.where(fraud & (scenario == ""), "fraud", scenario), (fraud, done, actions), known & fraud
    )
    _add_flips(tally, some, made, (done, actions), policy)


def _measures(actions: type_i64, fraud: type_bool, amount_eur: type_f64, minutes: float, costs: CostTable) -> type_f64:
    """Return (n, measures) of what actions come to."""
    cost = np.choose(actions, [costs.of(action, fraud, amount_eur) for action in Action])
    loss_share = np.array([costs.actions[action.name].loss_share for action in Action])[actions]
    reviews = (actions == Action.REVIEW).astype(np.float64)
    return np.stack(
        [
            np.where(fraud, amount_eur * (1.0 - loss_share), 0.0),
            np.where(~fraud & (actions == Action.BLOCK), amount_eur, 0.0),
            reviews,
            reviews * minutes,
            costs.of(Action.APPROVE, fraud, amount_eur) - cost,
        ],
        axis=1,
    )


def _add_groups(
    tally: MoneyTally, kind: str, names: Any, what: tuple[type_bool, type_i64, type_i64], rows: type_bool
) -> None:
    fraud, done, actions = what
    for name in np.unique(names[rows].astype(str)).tolist():
        mine = rows & (names == name)
        caught = [int((mine & fraud & (one != Action.APPROVE)).sum()) for one in (done, actions)]
        found = tally.groups.setdefault((kind, name), np.zeros(4))
        found += [int(mine.sum()), int((mine & fraud).sum()), *caught]


def _add_flips(
    tally: MoneyTally, some: Served, made: DecisionBatch, both: tuple[type_i64, type_i64], policy: TriedPolicy
) -> None:
    done, actions = both
    changed = np.flatnonzero(done != actions)
    tally.flipped += len(changed)
    for i in changed[: FLIPS_MAX - len(tally.flips)].tolist():
        winner = NOBODY if made.hits is None else int(made.hits.winner[i])
        why = f"score {made.scores[i]:.4f}, {TransactionClass(int(made.classes[i])).name}"
        row = some.table.slice(i, 1).select(["transaction_id", "event_time_ms", "action", "is_fraud"]).to_pylist()[0]
        tally.flips.append(
            row
            | {
                "amount_eur": round(float(some.amount_eur[i]), 2),
                "would_be": Action(int(actions[i])).name,
                "why": why if winner == NOBODY else f"rule {policy.rule_ids[winner]}; {why}",
            }
        )


def _result(tally: MoneyTally, policy: TriedPolicy, period: TrainingPeriod, seed: int) -> dict[str, Any]:
    n = len(tally.cards)
    done, tried = tally.done[:n], tally.tried[:n]
    rng = np.random.default_rng(seed)
    drawn = [
        (w @ done, w @ tried) for w in (rng.multinomial(n, np.full(n, 1 / n)) for _ in range(RESAMPLES if n else 0))
    ]
    found = {}
    for j, name in enumerate(MEASURES):
        values = {
            "done": (done[:, j].sum(), [one[j] for one, _ in drawn]),
            "policy": (tried[:, j].sum(), [one[j] for _, one in drawn]),
            "difference": ((tried - done)[:, j].sum(), [b[j] - a[j] for a, b in drawn]),
        }
        found[name] = {what: _with_interval(value, resampled) for what, (value, resampled) in values.items()}
    return policy.description | {
        "from": None if period.since is None else period.since.isoformat(),
        "until": period.until.isoformat(),
        "label_delay_days": period.label_delay_days,
        "decisions": tally.transactions,
        "cards": n,
        "frauds": tally.frauds,
        "truth_unknown": tally.unknown,
        "truth_unknown_and_approved_by_the_policy": tally.unknown_approved,
        "flipped": tally.flipped,
        "level": LEVEL,
        "measures": found,
        "groups": [
            {"by": kind, "name": name, "transactions": int(g[0]), "frauds": int(g[1]), "caught": int(g[2]), "caught_by_policy": int(g[3])}
            for (kind, name), g in sorted(tally.groups.items())
        ],
        "flips": tally.flips,
    }  # fmt: skip


def _with_interval(value: float, resampled: list[float]) -> dict[str, Any]:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if resampled else (value, value)
    return {"value": round(float(value), 2), "interval": [round(float(low), 2), round(float(high), 2)]}
