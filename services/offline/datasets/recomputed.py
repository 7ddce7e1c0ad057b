"""The log of the lake folded again, by the kernels that serve: vectors of features that serving did not have yet, and a proof of those that it had.

What the card's own log determines comes out bit for bit as it was served, once the fold has seen as much of the card's past as serving had. What was
read of others (terminals, accounts, customers) is as of the moment of serving: that stays. Only a decision of another feature set gets what is known
of its terminal from the log; of accounts and customers the lake keeps nothing, so that these are missing there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from services.core.columns import (
    ENTRY_MODES,
    TerminalEventColumns,
    Text,
    TransactionColumns,
    pack_code,
    type_bool,
    type_f64,
    type_i64,
    type_u8,
)
from services.core.features import FEATURE_SET_HASH, FEATURES
from services.core.kernels import group_text
from services.core.offline import compute_offline
from services.core.profiles import KEEP_MS, LATENESS_MS
from services.lake.queries import Lake
from services.offline.datasets.fields import text_of as as_text
from services.offline.datasets.served import OffsetRange, Served, TrainingPeriod

FOLDED_COLUMNS: Final = np.array(
    [j for j, one in enumerate(FEATURES) if one.entity in ("card", "transaction", "terminal")], np.int64
)
"""Where what the lake's logs determine is in a vector."""
OWN_COLUMNS: Final = [j for j, one in enumerate(FEATURES) if one.entity in ("card", "transaction")]
"""Where what the card's own log determines is in a vector."""
_TEXTS: Final = ("card_id", "customer_id", "account_id", "terminal_id", "merchant_id")
_NUMBERS: Final = ("merchant_category_code", "amount_minor", "billing_amount_minor", "event_time_ms")
_CODES: Final = ("currency", "billing_currency", "country")
LOG_COLUMNS: Final = ("transaction_id", *_TEXTS, "device_id", *_NUMBERS, *_CODES, "entry_mode", "latitude", "longitude")
"""What :func:`columns_of` reads."""
# A repeat is folded as serving folds it; what was refused never was.
_DECIDED_LOG: Final = """
    card_transactions t SEMI JOIN (SELECT * FROM card_decisions d WHERE TRUE {decided}) d
        ON d.source_partition = t.kafka_partition AND d.source_offset = t.kafka_offset AND d.transaction_id = t.transaction_id
    WHERE t.event_time_ms < $until_ms {logged}
"""
_LOG: Final = f"""
    SELECT t.*, max(t.event_time_ms) OVER (PARTITION BY t.kafka_topic_id, t.kafka_partition ORDER BY t.kafka_offset) AS clock_ms
    FROM {_DECIDED_LOG} {{order}}
"""  # noqa: S608 - a constant
IN_ORDER: Final = ("clock_ms", "kafka_partition", "kafka_offset", "kafka_topic_id")
"""The order of the log: partitions beside each other, as their times go on. ``clock_ms``, the latest time of a row's own partition up to it, is also
that of the whole log up to it: whatever comes before has none that is later, and the row that has it comes before."""
_HEADS: Final = f"""
    SELECT coalesce(t.kafka_topic_id, '') AS topic_id, t.kafka_partition AS partition, max(t.event_time_ms) AS latest_ms,
        min(t.kafka_offset) AS first_offset, arg_min(t.event_time_ms, t.kafka_offset) AS first_ms
    FROM {_DECIDED_LOG} GROUP BY ALL
"""  # noqa: S608 - a constant
_LABELS: Final = """
    SELECT transaction_id, terminal_id, event_time_ms, is_fraud, known_at_ms FROM fraud_labels WHERE known_at_ms <= $until_ms {wanted}
    ORDER BY known_at_ms, kafka_partition, kafka_offset
"""


@dataclass(frozen=True, slots=True)
class Recomputed:
    """Vectors of served rows, made again."""

    vectors: type_f64
    compared: int
    """Values of the card's own features that were compared with what was served, bit by bit."""
    different: int
    """Of these, how many differ."""
    too_early: int
    """Rows that were not compared: the lake does not reach as far back from them as a card's profile does."""
    made: int
    """Rows of other feature sets, whose vectors are made from the log."""


def read_log(lake: Lake, period: TrainingPeriod, within: OffsetRange | None = None) -> pa.Table:
    """Return the rows of ``card_transactions`` that were decided on, with their ``clock_ms``, which knows nothing of what lies before a range.

    In the order of :data:`IN_ORDER`; those of a range in none. Raises LakeError.
    """
    order = "" if within is not None else f"ORDER BY {', '.join(IN_ORDER)}"
    return lake.query(_LOG.format(order=order, **_conditions(within)), period.parameters)


def read_label_events(lake: Lake, period: TrainingPeriod, terminals: pa.Table | None = None) -> TerminalEventColumns:
    """Return what became known by the period's end, in the order in which it did; of all terminals or of a table's ``terminal_id``. Raises LakeError."""
    if terminals is None:
        return _label_events(lake.query(_LABELS.format(wanted=""), period.parameters))
    wanted = "AND coalesce(terminal_id, '') IN (SELECT coalesce(terminal_id, '') FROM terminals)"
    return _label_events(lake.query(_LABELS.format(wanted=wanted), period.parameters, {"terminals": terminals}))


def read_heads(lake: Lake, period: TrainingPeriod, within: OffsetRange | None = None) -> list[dict[str, Any]]:
    """Return, of each partition of the log, its latest time, its first offset and that one's time. Raises LakeError."""
    return lake.query(_HEADS.format(**_conditions(within)), period.parameters).to_pylist()


def _conditions(within: OffsetRange | None) -> dict[str, str]:
    none = {"decided": "", "logged": ""}
    return none if within is None else {"decided": within.of("d.source_offset"), "logged": within.of("t.kafka_offset")}


def recompute(lake: Lake, served: Served, period: TrainingPeriod) -> Recomputed:
    """Fold the log from its beginning in the lake, and compare with what was served. Raises LakeError."""
    log = read_log(lake, period)
    labels = read_label_events(lake, period)
    folded = compute_offline(columns_of(log), labels).vectors
    return compare(served, log, folded, begins_of(read_heads(lake, period)))


def compare(served: Served, log: pa.Table, folded: type_f64, begins: dict[tuple[str, int], int]) -> Recomputed:
    """Compare vectors that were served with those of the log, and take the latter for rows of other feature sets.

    Args:
        served: n rows.
        log: at least the rows of the log that they were decided on.
        folded: the vectors of the log's rows.
        begins: :func:`begins_of` the whole log.
    """
    if not len(served.table):
        return Recomputed(served.vectors, 0, 0, 0, 0)
    at = _positions(*_places(log, served.table))
    vectors, same = served.vectors.copy(), pc.equal(served.table["feature_set_hash"], FEATURE_SET_HASH).to_numpy()
    vectors[np.ix_(np.flatnonzero(~same), FOLDED_COLUMNS)] = folded[np.ix_(at[~same], FOLDED_COLUMNS)]
    whole = same & _reached(begins, served)
    mine, theirs = (
        np.ascontiguousarray(some[:, OWN_COLUMNS]).view(np.int64) for some in (folded[at[whole]], vectors[whole])
    )
    return Recomputed(
        vectors, mine.size, int(np.count_nonzero(mine != theirs)), int((same & ~whole).sum()), int((~same).sum())
    )


def begins_of(heads: Iterable[dict[str, Any]]) -> dict[tuple[str, int], int]:
    """Return, by topic's id and partition, from when on the lake has as much of the past as a card's profile, in epoch milliseconds."""
    first: dict[tuple[str, int], dict[str, Any]] = {}
    for one in heads:
        key = one["topic_id"], one["partition"]
        if key not in first or one["first_offset"] < first[key]["first_offset"]:
            first[key] = one
    # What lay before may have been as late as is still folded exactly.
    return {
        key: -(2**62) if one["first_offset"] == 0 else one["first_ms"] + KEEP_MS + LATENESS_MS
        for key, one in first.items()
    }


def _reached(begins: dict[tuple[str, int], int], served: Served) -> type_bool:
    """Return (n,) whether the lake has as much of a row's past as a card's profile: the log's beginning, or as long as a profile remembers."""
    ids = served.table["kafka_topic_id"].fill_null("").to_pylist()
    keys = zip(ids, served.table["source_partition"].to_pylist(), strict=True)
    begin_ms = np.array([begins[key] for key in keys], np.int64)
    found: type_bool = served.table["event_time_ms"].to_numpy() >= begin_ms
    return found


def _positions(places: type_i64, wanted: type_i64) -> type_i64:
    order = np.argsort(places)
    return order[np.searchsorted(places, wanted, sorter=order)]


def _places(log: pa.Table, served: pa.Table) -> tuple[type_i64, type_i64]:
    """Return, of the rows of a log and of what was served from it, a number for each place of the log."""
    ids = {one: i for i, one in enumerate(sorted({*_ids(log), *_ids(served)}))}

    def numbers(table: pa.Table, partition: str, offset: str) -> type_i64:
        texts = table["kafka_topic_id"].fill_null("").combine_chunks().dictionary_encode()
        topic = np.array([ids[one] for one in texts.dictionary.to_pylist()], np.int64)[texts.indices.to_numpy()]
        found: type_i64 = topic << 50 | table[partition].to_numpy().astype(np.int64) << 40 | table[offset].to_numpy()
        return found

    return numbers(log, "kafka_partition", "kafka_offset"), numbers(served, "source_partition", "source_offset")


def _ids(table: pa.Table) -> list[str]:
    return [one or "" for one in table["kafka_topic_id"].unique().to_pylist()]


def text_of(column: pa.ChunkedArray) -> Text:
    """Return a column of text; null is empty."""
    # Large ones first: texts of more than 2 GiB are no single array otherwise.
    return as_text(column.fill_null("").cast(pa.large_string()))


def uuids_of(column: pa.ChunkedArray) -> type_u8:
    """Return UUIDs as bytes, shape (n, 16)."""
    text = text_of(column)
    digits = [i for i in range(36) if i not in (8, 13, 18, 23)]
    raw = text.buffer[text.start[:, None] + digits].astype(np.int64)
    value = np.where(raw >= ord("a"), raw - ord("a") + 10, raw - ord("0")).reshape(len(text), 16, 2)
    found: type_u8 = (value[:, :, 0] << 4 | value[:, :, 1]).astype(np.uint8)
    return found


def _codes_of(column: pa.ChunkedArray) -> type_i64:
    texts = text_of(column)
    slot, first = group_text(texts, np.zeros(len(texts), np.int64))
    packed = np.array([pack_code(code.decode()) for code in texts.take(first).tolist()], np.int64)
    return packed[slot] if len(texts) else np.empty(0, np.int64)


def columns_of(table: pa.Table) -> TransactionColumns:
    """Return the rows of ``card_transactions`` as the kernels take them."""
    modes = {name: i for i, name in enumerate(ENTRY_MODES)}
    encoded = table["entry_mode"].combine_chunks().dictionary_encode() if len(table) else None
    mode = np.empty(0, np.int64)
    if encoded is not None:
        known = np.array([modes[name] for name in encoded.dictionary.to_pylist()], np.int64)
        mode = known[encoded.indices.to_numpy()]
    values: dict[str, Any] = {name: text_of(table[name]) for name in (*_TEXTS, "device_id")}
    values |= {name: table[name].to_numpy().astype(np.int64) for name in _NUMBERS}
    values |= {name: _codes_of(table[name]) for name in _CODES}
    values |= {
        name: table[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in ("latitude", "longitude")
    }
    return TransactionColumns(transaction_id=uuids_of(table["transaction_id"]), entry_mode=mode, **values)


def _label_events(table: pa.Table) -> TerminalEventColumns:
    n = len(table)
    return TerminalEventColumns(
        is_label=np.ones(n, bool),
        transaction_id=uuids_of(table["transaction_id"]),
        terminal_id=text_of(table["terminal_id"]),
        event_time_ms=table["event_time_ms"].to_numpy(),
        amount_minor=np.zeros(n, np.int64),
        is_fraud=table["is_fraud"].to_numpy(),
        known_at_ms=table["known_at_ms"].to_numpy(),
    )
