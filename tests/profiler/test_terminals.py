"""Profiler, router, and what the scorer looks up, without any store."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest

from services.codec.records import decode_record, encode_record
from services.codec.schemas import topics
from services.codec.terminal_events import LABELS, TOPIC, encode_terminal_events
from services.codec.transactions import TOPIC as TRANSACTIONS
from services.codec.transactions import encode_transactions
from services.core.features import FEATURE_NAMES
from services.core.packing import NEVER_MS
from services.core.profiles import DAY_MS, CorruptProfileError
from services.core.terminal.layout import TERMINAL
from services.profiler.processor import ProfilerProcessor
from services.router.processor import RouterProcessor
from services.scorer.processor import ScorerProcessor
from services.streams import Records
from services.worker.processor import LookedUp
from tests.core.test_terminals import BEGIN_MS, Happening, to_columns
from tests.generators import random_events
from tests.generators import to_columns as transactions_of
from tests.worker.memory_system import SAFE, released_model

NOW_MS = 1_900_000_000_000


def records_of(topic: str, keys: list[bytes | None], values: list[bytes | None]) -> Records:
    n = len(values)
    return Records(topic, np.zeros(n, np.int64), np.arange(n), np.full(n, NOW_MS), keys, values)


def events_of(*events: Happening) -> Records:
    columns = to_columns(list(events))
    return records_of(TOPIC, list(columns.terminal_id.tolist()), list(encode_terminal_events(columns)))


def work(processor: Any, records: Records, profiles: list[bytes | None] | None = None, emit: bool = True) -> Any:
    prepared = processor.prepare(records, np.zeros(len(records), np.int64))
    known = [None] * len(prepared.cards) if profiles is None else profiles
    return processor.decide(prepared, known, {}, np.full(len(records), emit), NOW_MS)


def test_a_profiler_folds_events_and_says_how_far_it_is():
    outcome = work(
        ProfilerProcessor(),
        events_of(
            ("t", 1, 1, BEGIN_MS, 100, False, 0),
            ("t", 2, 2, BEGIN_MS + 5, 100, False, 0),
            ("l", 1, 1, BEGIN_MS, 0, True, BEGIN_MS + DAY_MS),
        ),
    )

    assert outcome.outputs == []
    assert [blob is not None for blob in outcome.profiles] == [True, True]
    assert outcome.folded_until_ms == {0: BEGIN_MS + 5}
    assert outcome.decided == 3


def test_a_profiler_refuses_what_is_no_event_and_its_neighbours_are_folded():
    good = events_of(("t", 1, 1, BEGIN_MS, 100, False, 0), ("t", 1, 2, BEGIN_MS, 100, False, 0))
    records = records_of(
        TOPIC,
        [good.keys[0], b"terminal-1", b"terminal-of-somebody-else", good.keys[1]],
        [good.values[0], b"rubbish", good.values[1], good.values[1]],
    )

    outcome = work(ProfilerProcessor(), records)

    [letters] = outcome.outputs
    assert [decode_record(value or b"")[1]["reason"] for value in letters.values] == ["BAD_FRAMING", "KEY_MISMATCH"]
    assert outcome.decided == 2
    assert len(outcome.profiles) == 1
    assert work(ProfilerProcessor(), records, emit=False).outputs == []


def test_a_profile_that_is_ahead_of_its_log_or_damaged_is_refused():
    records = events_of(("t", 1, 1, BEGIN_MS, 100, False, 0))
    [blob] = work(ProfilerProcessor(), records).profiles

    for wrong in (blob, blob[:-1], b"\x01" + blob[1:]):
        with pytest.raises(CorruptProfileError):
            work(ProfilerProcessor(), records, [wrong])


def test_a_router_sends_labels_to_their_terminals_and_refuses_those_without():
    label = {
        "transaction_id": bytes(16), "card_id": "card-1", "terminal_id": "terminal-7", "event_time_ms": BEGIN_MS,
        "is_fraud": True, "scenario": None, "known_at_ms": BEGIN_MS + DAY_MS, "source": "ANALYST",
    }  # fmt: skip
    wrong = [label | {"terminal_id": ""}, label | {"event_time_ms": 5}, label | {"terminal_id": "4111111111111111"}]
    schema = topics()[LABELS].latest
    values = [encode_record(schema, one) for one in (label, *wrong)]

    outcome = work(RouterProcessor(), records_of(LABELS, [str(uuid.UUID(int=0)).encode()] * 4, list(values)))

    events, letters = outcome.outputs
    assert (events.topic, list(events.keys)) == (TOPIC, [b"terminal-7"])
    event = decode_record(events.values[0] or b"")[1]
    assert {name: event[name] for name in label if name in event} == {k: v for k, v in label.items() if k in event}
    assert (event["kind"], event["amount_minor"]) == ("LABEL", 0)
    reasons = [decode_record(value or b"")[1]["reason"] for value in letters.values]
    assert reasons == ["INVALID_IDENTIFIER", "INVALID_TIME", "CARD_NUMBER"]


def decided_with(found: dict[str, LookedUp] | None = None, profile: bytes | None = None) -> list[dict[str, Any]]:
    """Decide on some transactions at one terminal of which this is known."""
    columns = transactions_of(random_events(3, 6, cards=2, late_share=0))
    processor = ScorerProcessor(released_model(), SAFE)
    keys: list[bytes | None] = list(columns.card_id.tolist())
    records = records_of(TRANSACTIONS, keys, list(encode_transactions(columns)))
    prepared = processor.prepare(records, np.zeros(6, np.int64))
    wanted = prepared.lookups[TOPIC]
    if found is None:
        found = {
            TOPIC: LookedUp(
                [profile] * len(wanted), np.full(len(wanted), BEGIN_MS, np.int64), np.zeros(len(wanted), np.int64)
            )
        }
    outcome = processor.decide(prepared, [None] * len(prepared.cards), found, np.ones(6, bool), NOW_MS)
    decisions, events = (next(o for o in outcome.outputs if o.topic == t) for t in ("card-decisions", TOPIC))
    assert list(events.keys) == columns.terminal_id.tolist()
    return [decode_record(value or b"")[1] for value in decisions.values]


AT = [j for j, name in enumerate(FEATURE_NAMES) if name.startswith("terminal_")]


def test_a_terminal_that_nobody_has_seen_is_new_and_not_unknown():
    decisions = decided_with()

    assert len(decisions) == 6
    for decision in decisions:
        assert not {"TERMINAL_UNKNOWN", "TERMINAL_SUMMED"} & set(decision["degraded"])
        assert [decision["features"][j] for j in AT[:3]] == [0.0, 0.0, 0.0]
        assert decision["terminal_behind_ms"] == max(0, decision["event_time_ms"] - BEGIN_MS)


@pytest.mark.parametrize("what", ["too late", "nobody folds", "damaged"])
def test_a_decision_says_when_it_could_not_see_its_terminal(what: str):
    if what == "damaged":
        decisions = decided_with(profile=b"damaged")
    elif what == "too late":
        decisions = decided_with({})
    else:
        columns = transactions_of(random_events(3, 6, cards=2, late_share=0))
        distinct = len(set(columns.terminal_id.tolist()))
        decisions = decided_with(
            {TOPIC: LookedUp([None] * distinct, np.full(distinct, NEVER_MS, np.int64), np.zeros(distinct, np.int64))}
        )

    assert len(decisions) == 6
    for decision in decisions:
        assert "TERMINAL_UNKNOWN" in decision["degraded"]
        assert np.isnan([decision["features"][j] for j in AT]).all()
        assert decision["terminal_behind_ms"] is None


def test_a_decision_says_when_it_saw_only_sums():
    columns = to_columns([("t", 0, i, BEGIN_MS + i * 600_000, 100, False, 0) for i in range(600)])
    keys, values = [b"terminal-0"] * 600, encode_terminal_events(columns)
    [blob] = work(ProfilerProcessor(), records_of(TOPIC, list(keys), list(values))).profiles
    assert int.from_bytes(blob[:2], "little") == TERMINAL.version

    said = [set(decision["degraded"]) for decision in decided_with(profile=blob)]

    assert any("TERMINAL_SUMMED" in one for one in said)
