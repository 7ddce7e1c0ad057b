"""Simulated traffic in columns, and the truth about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from services.core.columns import Text, TransactionColumns, pack_code, type_i64
from services.core.profiles import DAY_MS

SCENARIOS: Final = (
    "genuine", "large-amount", "compromised-terminal", "compromised-card", "card-testing", "impossible-travel",
    "account-takeover", "contactless-relay",
)  # fmt: skip
"""What a transaction is; its index is the code in a column. 1 to 3 are the handbook's, the last one begins where :mod:`.waves` says."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Transactions in the order of their event times, and what each of them is."""

    columns: TransactionColumns
    scenario: type_i64
    """(n,) index into ``SCENARIOS``; fraud where it is not 0."""

    def __len__(self) -> int:
        return len(self.columns)

    def take(self, rows: type_i64) -> Traffic:
        """Return the given rows."""
        return Traffic(self.columns.take(rows), self.scenario[rows])

    def joined(self, later: Traffic) -> Traffic:
        """Return this traffic and what came later."""
        columns = TransactionColumns.joined([self.columns, later.columns])
        return Traffic(columns, np.concatenate([self.scenario, later.scenario]))

    def of_others(self, tag: str) -> Traffic:
        """Return the same traffic of cards, customers and accounts that carry ``tag`` in their names."""
        renamed: dict[str, Any] = {
            name: Text.of([b"%b-%b" % (value, tag.encode()) for value in getattr(self.columns, name).tolist()])
            for name in ("card_id", "customer_id", "account_id")
        }
        return Traffic(replace(self.columns, **renamed), self.scenario)


@dataclass(frozen=True, slots=True)
class Labels:
    """What becomes known of transactions, in the order in which it does."""

    rows: type_i64
    """(k,) rows of the traffic."""
    known_at_ms: type_i64


def numbered(prefix: str, numbers: type_i64, digits: int = 6) -> Text:
    """Return a column of identifiers such as ``card-000042``."""
    head = np.frombuffer(prefix.encode(), np.uint8)
    width = len(head) + digits
    raw = np.empty((len(numbers), width), np.uint8)
    raw[:, : len(head)] = head
    for place in range(digits):
        raw[:, width - 1 - place] = 48 + (numbers // 10**place) % 10
    return Text(raw.reshape(-1), np.arange(len(numbers)) * width, np.full(len(numbers), width, np.int64))


def optional_text(text: Text, present: np.ndarray) -> Text:
    """Return the column with the rows that are not present made empty."""
    return Text(text.buffer, text.start, np.where(present, text.length, 0))


def random_uuids(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return UUIDs of version 4 from a seeded generator, shape (count, 16)."""
    raw = rng.integers(0, 256, (count, 16), dtype=np.uint8)
    raw[:, 6] = (raw[:, 6] & 0x0F) | 0x40
    raw[:, 8] = (raw[:, 8] & 0x3F) | 0x80
    return raw


def packed(codes: tuple[str, ...] | list[str]) -> type_i64:
    """Pack a list of codes."""
    return np.array([pack_code(code) for code in codes], np.int64)


def draw_labels(traffic: Traffic, rng: np.random.Generator, genuine_share: float = 0.01) -> Labels:
    """Return when the truth becomes known: of every fraud, and of a share of the genuine (customers who were asked).

    Two to fourteen days after the event, skewed to the early side, as customers read their statements.
    """
    known = (traffic.scenario > 0) | (rng.random(len(traffic)) < genuine_share)
    rows = np.flatnonzero(known)
    delay_days = 2.0 + 12.0 * rng.beta(1.5, 3.0, len(rows))
    known_at_ms = traffic.columns.event_time_ms[rows] + (delay_days * DAY_MS).astype(np.int64)
    order = np.argsort(known_at_ms, kind="stable")
    return Labels(rows[order], known_at_ms[order])
