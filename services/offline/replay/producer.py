"""Send transactions at a pace.

Each record's Kafka timestamp is the moment at which it was due, so whoever reads the
decision can tell the latency without coordinated omission: a producer that falls behind does not hide it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from services.codec.transactions import TOPIC, encode_transactions
from services.core.columns import type_i64
from services.offline.replay.labels import LabelFeed
from services.offline.simulator.traffic import Traffic
from services.runtime.clock import Clock
from services.streams.sink import KafkaSink

if TYPE_CHECKING:
    from services.offline.datasets.mapping import Dataset  # reads files with what a plain installation has not

CHUNK: Final = 5_000
"""Transactions encoded and queued at once when the pace is as fast as it goes."""
TICK_S: Final = 0.001
"""How often a paced producer looks for what is due."""


_Send = Callable[[int, int, list[int] | None], None]
"""Sends transactions [at, until), with these stamps or without."""


class NotDeliveredError(Exception):
    """Kafka did not take everything within the time."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast: ``due_ms`` (n,) after the start for each transaction, or None for as fast as it goes."""

    due_ms: type_i64 | None

    @classmethod
    def at_rate(cls, count: int, per_second: float) -> Pace:
        """Spread evenly."""
        return cls((np.arange(count) * 1000.0 / per_second).astype(np.int64))

    @classmethod
    def by_event_time(cls, event_time_ms: type_i64, speed: float) -> Pace:
        """Keep the gaps of the event times, divided by ``speed``."""
        first = event_time_ms[0] if len(event_time_ms) else 0
        return cls(((event_time_ms - first) / speed).astype(np.int64))


class TransactionProducer:
    """Sends transactions to ``card-transactions``."""

    def __init__(self, sink: KafkaSink, clock: Clock) -> None:
        self._sink, self._clock = sink, clock
        self.sent = 0
        """Transactions queued so far; another thread may read it."""

    def send(
        self,
        transactions: Traffic | Dataset,
        pace: Pace,
        *,
        labels: LabelFeed | None = None,
        stop: Callable[[], bool] = lambda: False,
        flush_s: float = 60.0,
    ) -> int:
        """Send in order, at the pace; return how many were sent, fewer only if ``stop`` said so.

        Labels go out when the transactions' event time reaches what they know.

        Raises:
            NotDeliveredError: Kafka did not acknowledge everything within ``flush_s`` after the last one.
        """
        values = encode_transactions(transactions.columns)
        keys = transactions.columns.card_id.tolist()
        before, times_ms = self.sent, transactions.columns.event_time_ms

        def send(at: int, until: int, stamps: list[int] | None) -> None:
            if stamps is None:
                self._sink.send(TOPIC, keys[at:until], values[at:until])
            else:
                self._sink.send_at(TOPIC, keys[at:until], values[at:until], stamps)
            if labels is not None:
                labels.send_until(int(times_ms[until - 1]))
            self.sent += until - at
            self._sink.flush(0.0)

        if pace.due_ms is None:
            self._send_fast(len(values), send, stop)
        else:
            self._send_paced(pace.due_ms, send, stop)
        deadline_s = self._clock.monotonic_s() + flush_s
        while not self._sink.flush(0.5):
            if self._clock.monotonic_s() > deadline_s:
                raise NotDeliveredError(f"Kafka has not acknowledged everything within {flush_s:.0f} s")
        return self.sent - before

    def send_raw(self, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> None:
        """Send any bytes as if they were transactions: how a producer with a bug looks."""
        self._sink.send(TOPIC, keys, values)
        self.sent += len(values)

    def _send_fast(self, count: int, send: _Send, stop: Callable[[], bool]) -> None:
        for at in range(0, count, CHUNK):
            if stop():
                return
            send(at, min(at + CHUNK, count), None)

    def _send_paced(self, due_ms: type_i64, send: _Send, stop: Callable[[], bool]) -> None:
        start_ms = self._clock.now_ms()
        at = 0
        while at < len(due_ms) and not stop():
            until = int(np.searchsorted(due_ms, self._clock.now_ms() - start_ms, side="right"))
            if until > at:
                send(at, until, (start_ms + due_ms[at:until]).tolist())
                at = until
            self._clock.sleep(TICK_S)
