"""How good decisions were, by how old the labels are; and what the figures will be when all labels have come.

Decisions are counted by the day of their transaction. A label of age h days is one that was known h days after its transaction: an old label
changes the figures of its own day, and of no other. What is still to come is forecast from how labels of earlier days came, by development factors as insurers
reserve (Mack, ASTIN Bulletin 23, 1993, without the error).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import numpy as np

from services.core.columns import type_bool, type_f64, type_i64
from services.core.profiles import DAY_MS
from services.lake.queries import Lake

AGES: Final = (7, 14, 30, 60, 90)
"""Days. The last one counts as all labels."""
WINDOW_DAYS: Final = 7
"""Figures are of as many days of transactions: a day alone has few frauds."""
_DECISIONS: Final = """
    SELECT event_time_ms // 86400000 AS day, count(*) AS decisions, count(*) FILTER (action != 'APPROVE') AS stopped
    FROM card_decisions WHERE event_date >= $first::DATE AND NOT repeat AND event_time_ms >= $from_ms AND event_time_ms < $until_ms GROUP BY ALL ORDER BY day
"""
_SCORES: Final = """
    SELECT event_time_ms // 86400000 AS day, round(coalesce(score, 0), 4) AS score, count(*) AS n
    FROM card_decisions WHERE event_date >= $first::DATE AND NOT repeat AND event_time_ms >= $from_ms AND event_time_ms < $until_ms GROUP BY ALL
"""
_LABELS: Final = """
    SELECT d.event_time_ms // 86400000 AS day, d.transaction_id AS id, round(coalesce(d.score, 0), 4) AS score,
        d.action != 'APPROVE' AS stopped, l.is_fraud AS fraud, l.known_at_ms - d.event_time_ms AS age_ms,
        coalesce(t.billing_amount_minor / 100.0, 0) AS amount
    FROM fraud_labels l JOIN card_decisions d ON l.transaction_id = d.transaction_id
    LEFT JOIN card_transactions t ON t.kafka_partition = d.source_partition AND t.kafka_offset = d.source_offset
        AND t.transaction_id = d.transaction_id AND t.event_date = d.event_date
    WHERE d.event_date >= $first::DATE AND NOT d.repeat AND d.event_time_ms >= $from_ms AND d.event_time_ms < $until_ms AND l.known_at_ms <= $now_ms
    ORDER BY day, id, age_ms, l.kafka_offset
"""


@dataclass(frozen=True, slots=True)
class LabelHistory:
    """LabelHistory of decisions, in the order of day, transaction and age."""

    day: type_i64
    """(k,) days since 1970, of the transaction."""
    transaction: type_i64
    """(k,) a number for each transaction."""
    score: type_f64
    stopped: type_bool
    fraud: type_bool
    age_ms: type_i64
    amount: type_f64
    """(k,) in major units of the billing currency, of two decimals."""

    def known(self, age_ms: int) -> type_i64:
        """Return the rows that are the newest label of their transaction that was known at an age."""
        rows = np.flatnonzero(self.age_ms <= age_ms)
        last = (
            np.append(self.transaction[rows][1:] != self.transaction[rows][:-1], True)
            if len(rows)
            else rows.astype(bool)
        )
        return rows[last]


@dataclass(frozen=True, slots=True)
class Decisions:
    """Decisions by day, and by day and score."""

    day: type_i64
    """(m,) ascending."""
    decisions: type_i64
    stopped: type_i64
    score_day: type_i64
    score: type_f64
    """(b,) rounded to four decimals, of the day beside it."""
    score_count: type_i64


@dataclass(frozen=True, slots=True)
class QualityByAge:
    """How good the decisions of some days were, by labels of an age."""

    age_days: int
    first_day: int
    """Days since 1970."""
    last_day: int
    decisions: int
    stopped: int
    frauds: int
    precision: float
    recall: float
    average_precision: float
    fraud_stopped: float
    """In major units."""
    fraud_missed: float

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {n: (None if math.isnan(v) else round(v, 4)) if isinstance(v, float) else v for n, v in values.items()}


def read_history(lake: Lake, now_ms: int, days: int = 2 * AGES[-1]) -> tuple[Decisions, LabelHistory]:
    """Return the decisions of the last days, and all labels of them that are known by now. Raises LakeError."""
    today = now_ms // DAY_MS
    first = (date(1970, 1, 1) + timedelta(days=today - days)).isoformat()
    asked = {"first": first, "from_ms": (today - days) * DAY_MS, "until_ms": today * DAY_MS}
    by_day, by_score = lake.query(_DECISIONS, asked), lake.query(_SCORES, asked)
    labels = lake.query(_LABELS, asked | {"now_ms": now_ms})
    number = labels["id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)

    def column(table: Any, name: str, kind: Any) -> Any:
        return table[name].to_numpy().astype(kind)

    return (
        Decisions(
            column(by_day, "day", np.int64), column(by_day, "decisions", np.int64), column(by_day, "stopped", np.int64),
            column(by_score, "day", np.int64), column(by_score, "score", np.float64), column(by_score, "n", np.int64),
        ),
        LabelHistory(
            column(labels, "day", np.int64), number, column(labels, "score", np.float64), column(labels, "stopped", bool),
            column(labels, "fraud", bool), column(labels, "age_ms", np.int64), column(labels, "amount", np.float64),
        ),
    )  # fmt: skip


def quality(decisions: Decisions, labels: LabelHistory, now_ms: int) -> list[QualityByAge]:
    """Return the figures by age of label: each of the newest days whose labels all are as old as that; ages without such days are left out."""
    found = []
    for age in AGES:
        last = (now_ms - age * DAY_MS) // DAY_MS - 1  # its last transaction is as old as that
        first = last - WINDOW_DAYS + 1
        if ((decisions.day >= first) & (decisions.day <= last)).any():
            found.append(_quality_of(decisions, labels, (first, last), age))
    return found


def _quality_of(decisions: Decisions, labels: LabelHistory, days: tuple[int, int], age: int) -> QualityByAge:
    def inside(day: type_i64) -> type_bool:
        return (day >= days[0]) & (day <= days[1])

    rows = labels.known(age * DAY_MS)
    rows = rows[inside(labels.day[rows]) & labels.fraud[rows]]
    stopped, amount = labels.stopped[rows], labels.amount[rows]
    all_stopped = int(decisions.stopped[inside(decisions.day)].sum())
    of_score = inside(decisions.score_day)
    return QualityByAge(
        age_days=age,
        first_day=days[0],
        last_day=days[1],
        decisions=int(decisions.decisions[inside(decisions.day)].sum()),
        stopped=all_stopped,
        frauds=len(rows),
        precision=_ratio(int(stopped.sum()), all_stopped),
        recall=_ratio(int(stopped.sum()), len(rows)),
        average_precision=average_precision(
            decisions.score[of_score], decisions.score_count[of_score], labels.score[rows]
        ),
        fraud_stopped=float(amount[stopped].sum()),
        fraud_missed=float(amount[~stopped].sum()),
    )


def average_precision(scores: type_f64, counts: type_i64, frauds: type_f64) -> float:
    """Return the average precision of some scores: the sum over the levels of precision times what recall gains there; NaN without frauds.

    Args:
        scores: (b,) levels, perhaps again and again.
        counts: (b,) how many transactions have each.
        frauds: (f,) the score of each fraud: one of the levels.
    """
    if not len(frauds):
        return float("nan")
    levels, place = np.unique(np.concatenate([scores, frauds]), return_inverse=True)
    n = np.bincount(place[: len(scores)], counts, len(levels))[::-1].cumsum()
    hit = np.bincount(place[len(scores) :], minlength=len(levels))[::-1]
    seen = np.maximum(n, 1)
    return float((hit.cumsum() / seen * hit).sum() / len(frauds))


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the figures of the newest days will be when all labels have come."""

    first_day: int
    last_day: int
    frauds_so_far: int
    frauds: float
    recall_so_far: float
    recall: float
    precision: float


def forecast(decisions: Decisions, labels: LabelHistory, now_ms: int) -> Forecast | None:
    """Return the forecast of the newest days of whose age labels have ever come; None where nothing was decided on them.

    Of a day on which no label can have come yet, such as yesterday, nothing can be said: a share of nothing is nothing.
    """
    newest = now_ms // DAY_MS - 1
    days = np.arange(int(decisions.day.min(initial=newest)), newest + 1)
    frauds, caught = (_triangle(labels, days, only) for only in (None, True))
    ages = _ages(days, now_ms)
    last = newest - _speechless(frauds, ages)
    first = last - WINDOW_DAYS + 1
    some = (decisions.day >= first) & (decisions.day <= last)
    if not some.any():
        return None
    grown_frauds, so_far = grown(frauds, ages)
    grown_caught, caught_so_far = grown(caught, ages)
    window = (days >= first) & (days <= last)
    total, hits = float(grown_frauds[window].sum()), float(grown_caught[window].sum())
    known, hit = float(so_far[window].sum()), float(caught_so_far[window].sum())
    return Forecast(
        first,
        last,
        int(known),
        total,
        _ratio(hit, known),
        _ratio(hits, total),
        _ratio(hits, int(decisions.stopped[some].sum())),
    )


def _speechless(triangle: type_f64, ages: type_i64) -> int:
    """Return how many of the newest days are too young for labels: those of an age at which no day had one."""
    for age in range(triangle.shape[1]):
        if triangle[ages >= age, age].any():
            return age
    return 0


def _ages(days: type_i64, now_ms: int) -> type_i64:
    """Return how old the labels of each day are at least, in whole days, up to the last of ``AGES``."""
    return np.clip(now_ms // DAY_MS - 1 - days, 0, AGES[-1])


def _triangle(labels: LabelHistory, days: type_i64, stopped: bool | None) -> type_f64:
    """Return (days, ages) the frauds of each day that were known at each age in days; those that were stopped, or all."""
    table = np.zeros((len(days), AGES[-1] + 1))
    for age in range(AGES[-1] + 1):
        rows = labels.known(age * DAY_MS)
        rows = rows[labels.fraud[rows] & (labels.stopped[rows] if stopped else True) & (labels.day[rows] >= days[0])]
        table[:, age] = np.bincount(labels.day[rows] - days[0], minlength=len(days))[: len(days)]
    return table


def grown(triangle: type_f64, ages: Sequence[int] | type_i64) -> tuple[type_f64, type_f64]:
    """Return what each day's count will be at the last age, and what it is now: (days,) each.

    Args:
        triangle: (days, ages) counts up to each age; beyond a day's own age they are not looked at.
        ages: (days,) how old each day is.
    """
    age = np.asarray(ages)
    now = triangle[np.arange(len(age)), age].astype(np.float64)
    factor = np.ones(triangle.shape[1])  # from each age to the last
    for a in range(triangle.shape[1] - 2, -1, -1):
        old = age >= a + 1
        before, after = triangle[old, a].sum(), triangle[old, a + 1].sum()
        factor[a] = factor[a + 1] * (after / before if before else 1.0)
    return now * factor[age], now


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
