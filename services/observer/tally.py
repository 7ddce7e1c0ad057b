"""What an observer has seen: pure counting over batches of decisions, alerts and dead letters."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from services.codec.reading import ColumnarReader
from services.codec.records import UndecodableError, decode_as_newest
from services.codec.schemas import topics
from services.core.columns import type_bool, type_i64, type_u8
from services.core.policy import Action
from services.core.vacuous import VacuousError
from services.streams import Records

INPUT, DECISIONS, ALERTS, DEAD_LETTERS = "card-transactions", "card-decisions", "card-alerts", "dead-letters"
OUTPUTS: Final = (DECISIONS, ALERTS, DEAD_LETTERS)
RECENT_ALERTS: Final = 6
RATE_SECONDS: Final = 3.0
RECENT_BATCHES: Final = 200


def decision_reader() -> ColumnarReader:
    """Return a columnar decoder of decisions."""
    return ColumnarReader.of(topics()[DECISIONS])


@dataclass(slots=True)
class Tally:
    """Counts, rates and latencies of what was seen; a repeat of a decision counts once where ids are kept."""

    keep_ids: bool = False
    records: Counter[str] = field(default_factory=Counter)
    actions: type_i64 = field(default_factory=lambda: np.zeros(len(Action), np.int64))
    dead_letter_reasons: Counter[str] = field(default_factory=Counter)
    recent_alerts: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=RECENT_ALERTS))
    transaction_ids: list[type_u8] = field(default_factory=list)
    kept_actions: list[type_i64] = field(default_factory=list)
    latencies_ms: list[type_i64] = field(default_factory=list)
    rules: Counter[str] | None = None
    """How many alerts each rule decided, once somebody asks for it: then every alert is decoded."""
    first_at_s: float | None = None
    last_at_s: float = 0.0
    _arrivals: deque[tuple[float, int]] = field(default_factory=deque)
    _reader: ColumnarReader = field(default_factory=decision_reader)

    def add(self, records: Records, now_ms: int, now_s: float) -> None:
        """Count a batch of one topic that arrived now."""
        if records.topic == DEAD_LETTERS:
            # Other services refuse records, too; here it is asked what became of transactions.
            letters = [letter for letter in decoded(records.values) if letter["source_topic"] == INPUT]
            self.records[DEAD_LETTERS] += len(letters)
            self.dead_letter_reasons.update(letter["reason"] for letter in letters)
            return
        self.records[records.topic] += len(records)
        if records.topic == DECISIONS:
            self._add_decisions(records, now_ms, now_s)
        elif records.topic == ALERTS:
            alerts = decoded(records.values if self.rules is not None else records.values[-RECENT_ALERTS:])
            self.recent_alerts.extend(alerts)
            if self.rules is not None:
                self.rules.update(rule["rule_id"] for alert in alerts if (rule := deciding_rule(alert)))

    def _add_decisions(self, records: Records, now_ms: int, now_s: float) -> None:
        columns = self._reader.read(records.values)
        actions = columns.integers("action")
        self.actions += np.bincount(actions, minlength=len(Action))
        self.latencies_ms.append(now_ms - columns.integers("source_timestamp_ms"))
        if self.keep_ids:
            self.transaction_ids.append(columns.fixed("transaction_id"))
            self.kept_actions.append(actions)
        else:
            del self.latencies_ms[:-RECENT_BATCHES]
        self.first_at_s = now_s if self.first_at_s is None else self.first_at_s
        self.last_at_s = now_s
        self._arrivals.append((now_s, len(records)))

    def rate(self, now_s: float) -> float:
        """Return decisions a second over the last ``RATE_SECONDS``."""
        while self._arrivals and self._arrivals[0][0] < now_s - RATE_SECONDS:
            self._arrivals.popleft()
        return sum(count for _, count in self._arrivals) / RATE_SECONDS

    def latency_ms(self, batches: slice = slice(-50, None)) -> tuple[float, float] | None:
        """Return p50 and p99 of some of the batches, of the last ones by default; None where there are none."""
        chosen = self.latencies_ms[batches]
        if not chosen or not sum(map(len, chosen)):
            return None
        p50, p99 = np.percentile(np.concatenate(chosen), [50, 99])
        return float(p50), float(p99)


def deciding_rule(alert: dict[str, Any]) -> dict[str, Any] | None:
    """Return the rule whose word counted, None where it was the model's."""
    return next((rule for rule in alert["rules"] if rule["effect"] == "DECIDED"), None)


def decoded(values: Sequence[bytes | None]) -> list[dict[str, Any]]:
    """Decode records one by one, leaving out what cannot be decoded: for the few that people look at."""
    found = []
    for value in values:
        try:
            found.append(decode_as_newest(value or b"")[1])
        except UndecodableError:
            continue
    return found


def distinct_actions(ids: list[type_u8], actions: list[type_i64]) -> tuple[Any, type_i64]:
    """Return the distinct transaction ids, sorted, as 16-byte voids, and the action of each."""
    if not ids:
        return np.empty(0, "V16"), np.empty(0, np.int64)
    joined = np.ascontiguousarray(np.concatenate(ids)).view("V16").reshape(-1)
    unique, first = np.unique(joined, return_index=True)
    return unique, np.concatenate(actions)[first]


def precision_recall(ids: Any, actions: type_i64, truth_ids: type_u8, fraud: type_bool) -> tuple[float, float]:
    """Return precision and recall of everything that is not APPROVE, against the truth by transaction id.

    Raises:
        VacuousError: of some transactions the truth is not known.
    """
    keys = np.ascontiguousarray(truth_ids).view("V16").reshape(-1)
    order = np.argsort(keys)
    if stray := int(np.count_nonzero(~np.isin(ids, keys))):
        raise VacuousError(f"of {stray:,} of {len(ids):,} transactions the truth is not known")
    known = fraud[order][np.searchsorted(keys[order], ids)]
    flagged = actions != Action.APPROVE
    precision = float(known[flagged].mean()) if flagged.any() else 0.0
    recall = float(flagged[known].mean()) if known.any() else 0.0
    return precision, recall
