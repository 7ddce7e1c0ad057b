"""What people choose to see of the records that come out, and the line that they read of an alert."""

from __future__ import annotations

import json
import re
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.observer.choosing import CHOOSABLE, Choice, parse_since
from services.observer.view import alert_line, time_text
from services.streams import Records

NOW_MS = 1_772_000_000_000
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("90s", NOW_MS - 90_000),
        ("10m", NOW_MS - 600_000),
        ("2h", NOW_MS - 7_200_000),
        ("3d", NOW_MS - 3 * 86_400_000),
        ("0s", NOW_MS),
        ("999999d", 0),
        ("2026-01-05", 1_767_571_200_000),
        ("2026-01-05T10:00", 1_767_607_200_000),
        ("2026-01-05 10:00:00.250", 1_767_607_200_250),
        ("2026-01-05T10:00Z", 1_767_607_200_000),
        ("2026-01-05T10:00+01:00", 1_767_603_600_000),
    ],
)
def test_since_is_so_long_ago_or_a_time(text, at_ms):
    assert parse_since(text, NOW_MS) == at_ms


@pytest.mark.parametrize("text", ["", "10", "m", "-5m", "10 m", "1.5h", "yesterday", "10w", "2026-13-01", "2126-01-01"])
def test_what_is_no_time_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"such as 10m|in the future"):
        parse_since(text, NOW_MS)


@given(at=st.datetimes(datetime(1971, 1, 1), datetime(2026, 1, 1)))  # noqa: DTZ001 - hypothesis wants it without a zone
def test_a_time_that_is_shown_can_be_given_back(at):
    at_ms = (at - datetime(1970, 1, 1)) // timedelta(milliseconds=1)  # noqa: DTZ001 - neither has one

    assert parse_since(time_text(at_ms), NOW_MS) == at_ms


@pytest.mark.parametrize("at_ms", [2**63 - 1, -(2**63), -1])
def test_a_time_that_is_none_is_shown_all_the_same(at_ms):
    assert time_text(at_ms)


def test_records_are_chosen_by_what_they_say():
    keys = [b"card-1", b"card-2", None, b"card-1"]
    zeros = np.zeros(4, np.int64)
    records = Records("card-alerts", zeros, np.arange(4), zeros, keys, [b"a", b"b", b"c", b"d"])
    alert = {"severity": "LOW", "kind": "DECLINE", "action": "BLOCK"}

    assert Choice("card-alerts", card="card-1").values(records) == [b"a", b"d"]
    assert Choice("card-alerts").values(records) == [b"a", b"b", b"c", b"d"]
    assert Choice("card-alerts", severity=("LOW", "HIGH"), kind=("DECLINE",), action=("BLOCK",)).takes(alert)
    assert not Choice("card-alerts", severity=("HIGH",)).takes(alert)
    assert not Choice("card-alerts", kind=("FRAUD",)).takes(alert)
    assert Choice("card-alerts", kind=("FRAUD",)).takes({"severity": "LOW", "action": "BLOCK"})
    assert not Choice("card-decisions", action=("APPROVE",)).takes({"action": "BLOCK"})


@pytest.mark.parametrize("topic", sorted(CHOOSABLE))
def test_a_topic_that_has_no_such_thing_is_an_error(topic):
    values: dict[str, Any] = {"card": "x", "severity": ("LOW",), "kind": ("FRAUD",), "action": ("BLOCK",)}
    assert len(values) == 4
    for name, value in values.items():
        if name in CHOOSABLE[topic]:
            assert Choice(topic, **{name: value})
        else:
            with pytest.raises(ValueError, match=f"--{name} is for"):
                Choice(topic, **{name: value})


@pytest.mark.parametrize("path", sorted((ROOT / "schemas/card-alerts/examples").glob("*.json")), ids=lambda p: p.stem)
def test_an_alerts_line_begins_with_its_time_and_its_transaction_and_says_the_amount_once(path):
    alert = json.loads(path.read_text())
    as_bytes = alert | {"transaction_id": uuid.UUID(alert["transaction_id"]).bytes}

    line = alert_line(alert)

    assert line == alert_line(as_bytes)
    assert re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", line)
    assert line.split()[:4] == [
        time_text(alert["event_time_ms"]),
        alert["transaction_id"],
        alert["severity"],
        alert["kind"],
    ]
    assert line.count("412.00 EUR") == 1
