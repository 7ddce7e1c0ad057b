"""What is refused, for which reason, and that a decline touches nobody else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.core.columns import Text, pack_code
from services.core.validation import AMOUNT_MINOR_MAX, Reject, validate
from tests.generators import START_MS, random_events, to_columns

N = 5
ROW = 2


def valid():
    return to_columns(random_events(1, N, late_share=0))


def verdicts(columns, keys=None, has_key=None, timestamp_ms=None):
    stamps = np.full(N, START_MS + 400 * 86_400_000) if timestamp_ms is None else timestamp_ms
    present = np.ones(N, bool) if has_key is None else has_key
    return validate(columns, columns.card_id if keys is None else keys, present, stamps)


def changed(column, value):
    if isinstance(column, Text):
        rows = column.tolist()
        rows[ROW] = value
        return Text.of(rows)
    copy = column.copy()
    copy[ROW] = value
    return copy


def test_valid_transactions_are_not_refused():
    assert verdicts(valid()).tolist() == [Reject.NONE] * N


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("terminal_id", b"", Reject.INVALID_IDENTIFIER),
        ("merchant_id", b"x" * 65, Reject.INVALID_IDENTIFIER),
        ("customer_id", b"a\nb", Reject.INVALID_IDENTIFIER),
        ("account_id", b"4111111111111111", Reject.CARD_NUMBER),
        ("device_id", b"4111 1111 1111 1111", Reject.CARD_NUMBER),
        ("amount_minor", -1, Reject.INVALID_AMOUNT),
        ("billing_amount_minor", AMOUNT_MINOR_MAX + 1, Reject.INVALID_AMOUNT),
        ("currency", -1, Reject.UNKNOWN_CURRENCY),
        ("billing_currency", pack_code("EUX"), Reject.UNKNOWN_CURRENCY),
        ("country", pack_code("QQ"), Reject.UNKNOWN_COUNTRY),
        ("merchant_category_code", 10_000, Reject.INVALID_CATEGORY),
        ("latitude", np.inf, Reject.INVALID_POSITION),
        ("longitude", 180.1, Reject.INVALID_POSITION),
        ("event_time_ms", 946_684_799_999, Reject.INVALID_TIME),
        ("event_time_ms", -(2**63), Reject.INVALID_TIME),
        ("event_time_ms", 2**62, Reject.INVALID_TIME),
    ],
)
def test_a_bad_field_is_refused_for_its_reason_and_its_neighbours_are_not(field, value, reason):
    columns = replace(valid(), latitude=np.full(N, 1.0), longitude=np.full(N, 1.0))
    columns = replace(columns, **{field: changed(getattr(columns, field), value)})

    found = verdicts(columns)

    assert found[ROW] == reason
    assert (np.delete(found, ROW) == Reject.NONE).all()


def test_one_coordinate_without_the_other_is_refused():
    columns = replace(valid(), latitude=np.full(N, 1.0), longitude=changed(np.full(N, 1.0), np.nan))

    assert verdicts(columns)[ROW] == Reject.INVALID_POSITION


def test_the_key_must_be_the_card():
    columns = valid()

    assert verdicts(columns, keys=changed(columns.card_id, b"card-other"))[ROW] == Reject.KEY_MISMATCH
    assert verdicts(columns, has_key=changed(np.ones(N, bool), False))[ROW] == Reject.NULL_KEY


def test_an_event_may_be_a_day_ahead_of_its_record_and_no_more():
    columns = valid()
    stamps = columns.event_time_ms - 86_400_000

    assert verdicts(columns, timestamp_ms=stamps)[ROW] == Reject.NONE
    assert verdicts(columns, timestamp_ms=stamps - 1)[ROW] == Reject.INVALID_TIME
