"""What every service does with the keys of its records, and with records that it refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, cast

import numpy as np

from services.codec.records import encode_written
from services.core.card_number_kernels import mask_record
from services.core.columns import Text, filled, type_bool, type_i64
from services.core.immutable import immutable
from services.core.kernels import misplaced
from services.core.validation import Reject
from services.runtime import catalogue as m
from services.runtime.logs import transaction_token
from services.runtime.metrics import MetricsRegistry
from services.streams import Output, Records

DEAD_LETTERS: Final = "dead-letters"
_NONE: Final = int(Reject.NONE)
DEAD_LETTER_BYTES_MAX: Final = 16 * 1024
"""How much of a refused record is kept; its length is always given."""


_REMEDIES: Final = {
    int(
        Reject.WRONG_PARTITION
    ): "its producer must choose partitions as Java's clients do: librdkafka's setting partitioner=murmur2_random"
}
"""What the log says beside a reason that one setting mends."""


def key_column(keys: Sequence[bytes | None]) -> tuple[Text, type_bool]:
    """Return record keys as a column, and which of them there are."""
    if None not in keys:
        return Text.of(cast("Sequence[bytes]", keys)), filled(len(keys), True, bool)
    return Text.of([key or b"" for key in keys]), np.array([key is not None for key in keys])


def note_misplaced(status: type_i64, keys: Text, records: Records, rows: type_i64 | None = None) -> None:
    """Refuse, of what is good so far, what lies in another partition than its key belongs to: nobody would look for it there.

    Args:
        status: (n,) the Reject of each record, changed in place.
        keys: (n,) their keys; where ``rows`` is given (v,) those of these rows.
        records: the batch.
        rows: (v,) which of the records are looked at; all if left out.
    """
    if rows is None:
        status[(status == _NONE) & misplaced(keys, records.partition, records.partitions)] = Reject.WRONG_PARTITION
    else:
        found = rows[misplaced(keys, records.partition[rows], records.partitions)]
        status[found[status[found] == _NONE]] = Reject.WRONG_PARTITION


def without_excluded(values: Sequence[bytes | None], excluded: type_i64) -> Sequence[bytes | None]:
    """Return values of which those that must not be decoded are taken out."""
    if not np.count_nonzero(excluded):
        return values
    return [None if out else value for out, value in zip(excluded.tolist(), values, strict=True)]


def refuse_excluded(status: type_i64, excluded: type_i64) -> None:
    """Give what must not be decoded its own reason, in place."""
    np.copyto(status, excluded, where=excluded != _NONE)


def encode_dead_letters(records: Records, bad_rows: type_i64, status: type_i64, now_ms: int) -> Output:
    """Encode the refused records, one by one, since they are the exception; card-number-like digits are masked."""
    keys, values = [], []
    for i in bad_rows.tolist():
        key, value = records.keys[i], records.values[i]
        masked_key = None if key is None else mask_record(key)
        masked_value = None if value is None else mask_record(value)
        keys.append(None if masked_key is None else masked_key[:DEAD_LETTER_BYTES_MAX])
        letter = {
            "reason": Reject(status[i]).name,
            "key": keys[-1],
            "value": None if masked_value is None else masked_value[:DEAD_LETTER_BYTES_MAX],
            "value_bytes": len(value or b""),
            "masked": masked_value != value or masked_key != key,
            "source_topic": records.topic,
            "source_partition": int(records.partition[i]),
            "source_offset": int(records.offset[i]),
            "source_timestamp_ms": int(records.timestamp_ms[i]),
            "rejected_at_ms": now_ms,
        }
        values.append(encode_written(DEAD_LETTERS, letter))
    return Output(DEAD_LETTERS, keys, values)


@immutable
class Refused:
    """What becomes of the refused records of a batch."""

    outputs: Sequence[Output]
    """Their dead letters; nothing where there are none."""
    partitions: type_i64
    """(r,) the partition of each."""
    reasons: type_i64
    """(r,) the Reject of each."""
    notices: Sequence[dict[str, Any]]


_NOTHING: Final = Refused([], np.empty(0, np.int64), np.empty(0, np.int64), [])


def refuse(
    records: Records,
    status: type_i64,
    emit: type_bool,
    now_ms: int,
    refused_ids: Mapping[int, bytes] = MappingProxyType({}),
) -> Refused:
    """Make dead letters of what is refused and to be answered.

    Args:
        records: the batch, of n records.
        status: (n,) the Reject of each.
        emit: (n,) False for records whose outputs exist already.
        now_ms: the stamp of the dead letters.
        refused_ids: the transaction id of each refused record that has a readable one.
    """
    if not np.count_nonzero(status):  # the rule
        return _NOTHING
    bad = (status != _NONE) & emit
    rows = bad.nonzero()[0]
    if not len(rows):
        return _NOTHING
    outputs = [encode_dead_letters(records, rows, status, now_ms)]
    return Refused(outputs, records.partition[rows], status[rows], notices(records, status, bad, refused_ids))


def count_refused(metrics: MetricsRegistry, rejected: type_i64) -> None:
    """Count dead letters by reason; ``rejected`` is the Reject of each."""
    for reason, count in Counter(rejected.tolist()).items():
        metrics.add(m.DEAD_LETTERS, count, Reject(reason).name)


def notices(
    records: Records, status: type_i64, bad: type_bool, refused_ids: Mapping[int, bytes]
) -> list[dict[str, Any]]:
    """Return what is logged of each refused record: where it is, why, and the token of its transaction if it has one."""
    found = []
    for i in np.flatnonzero(bad).tolist():
        where = {"partition": int(records.partition[i]), "offset": int(records.offset[i])}
        token = {"transaction": transaction_token(refused_ids[i])} if i in refused_ids else {}
        remedy = {"remedy": _REMEDIES[status[i]]} if status[i] in _REMEDIES else {}
        found.append({"reason": Reject(status[i]).name, **where, **token, **remedy})
    return found
