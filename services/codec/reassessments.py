"""Requests to assess a transaction again, between their bytes and columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from services.codec.reading import ColumnarReader
from services.codec.schemas import topics
from services.codec.writing import Column, ColumnarWriter
from services.core.columns import Text, type_f64, type_i64, type_u8

REQUESTS: Final = "card-reassessment-requests"


@dataclass(frozen=True, slots=True)
class Requests:
    """What is to be assessed again: n decisions that were made on a lower fallback tier, in columns."""

    transaction_id: type_u8
    card_id: Text
    decided_at_ms: type_i64
    actions: type_i64
    scores: type_f64
    """(n,) NaN where no model could be used."""
    tiers: type_i64
    source_partition: type_i64
    source_offset: type_i64
    source_timestamp_ms: type_i64
    transactions: Sequence[bytes]
    """The transactions' records as they came."""

    def __len__(self) -> int:
        return len(self.decided_at_ms)

    def take(self, rows: type_i64) -> Requests:
        """Return some of them."""
        return Requests(
            self.transaction_id[rows], self.card_id.take(rows), self.decided_at_ms[rows], self.actions[rows],
            self.scores[rows], self.tiers[rows], self.source_partition[rows], self.source_offset[rows],
            self.source_timestamp_ms[rows], [self.transactions[i] for i in rows.tolist()],
        )  # fmt: skip


@cache
def _reader() -> ColumnarReader:
    return ColumnarReader.of(topics()[REQUESTS])


@cache
def _writer() -> ColumnarWriter:
    return ColumnarWriter(topics()[REQUESTS].written)


def encode_requests(requests: Requests) -> list[bytes]:
    """Encode a batch."""
    values: dict[str, Column] = {
        "transaction_id": requests.transaction_id,
        "card_id": requests.card_id,
        "decided_at_ms": requests.decided_at_ms,
        "action": requests.actions,
        "score": requests.scores,
        "fallback_tier": requests.tiers,
        "source_partition": requests.source_partition,
        "source_offset": requests.source_offset,
        "source_timestamp_ms": requests.source_timestamp_ms,
        "transaction": Text.of(requests.transactions),
    }
    return _writer().write(values, len(requests))


def decode_requests(values: Sequence[bytes | None]) -> tuple[Requests, type_i64, type_i64]:
    """Decode a batch; the inverse of :func:`encode_requests`. Refuses card numbers in its texts, not in the transactions.

    Returns:
        The requests that decoded, their row numbers in ``values`` (m,), and the :class:`Reject` of every record (n,).
    """
    decoded = _reader().read(values).without_card_numbers()
    requests = Requests(
        transaction_id=decoded.fixed("transaction_id"),
        card_id=decoded.text("card_id"),
        decided_at_ms=decoded.integers("decided_at_ms"),
        actions=decoded.integers("action"),
        scores=np.where(decoded.is_null("score"), np.nan, decoded.floats("score")),
        tiers=decoded.integers("fallback_tier"),
        source_partition=decoded.integers("source_partition"),
        source_offset=decoded.integers("source_offset"),
        source_timestamp_ms=decoded.integers("source_timestamp_ms"),
        transactions=decoded.text("transaction").tolist(),
    )
    return requests, decoded.rows, decoded.status
