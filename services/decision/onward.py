"""What goes on from a decision to other services: the terminals' events, and requests to assess it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from services.codec.reassessments import REQUESTS, Requests, encode_requests
from services.codec.terminal_events import TOPIC as TERMINALS
from services.codec.terminal_events import encode_terminal_events
from services.core.columns import filled
from services.core.terminal.windows import terminal_events
from services.streams import Output, Records

if TYPE_CHECKING:
    from services.decision.outputs import Decided


def terminal_events_of(decided: Decided) -> list[Output]:
    """Return what the terminals' profiles are folded from: each transaction once."""
    fresh = decided.folded_by_others
    columns = decided.columns if fresh.all() else decided.columns.take(fresh)
    if not len(columns):
        return []
    return [Output(TERMINALS, columns.terminal_id.tolist(), encode_terminal_events(terminal_events(columns)))]


def requests_of(records: Records, decided: Decided, keys: Sequence[bytes | None], now_ms: int) -> list[Output]:
    """Return the requests to assess again what was decided on a lower fallback tier."""
    rows = decided.below_champion
    if not len(rows):
        return []
    at = decided.rows[rows]
    requests = Requests(
        transaction_id=decided.columns.transaction_id[rows],
        card_id=decided.columns.card_id.take(rows),
        decided_at_ms=filled(len(rows), now_ms),
        actions=decided.decisions.actions[rows],
        scores=decided.decisions.scores[rows],
        tiers=decided.decisions.tiers[rows],
        source_partition=records.partition[at],
        source_offset=records.offset[at],
        source_timestamp_ms=records.timestamp_ms[at],
        transactions=[records.values[i] or b"" for i in at.tolist()],
    )
    return [Output(REQUESTS, [keys[i] for i in rows.tolist()], encode_requests(requests))]
