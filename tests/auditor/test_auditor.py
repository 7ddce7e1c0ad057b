"""The auditor over runs of the real scorer: nothing is found in what is right, and every injected fault is, whatever comes first."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from services.auditor.card_audit import WAITING_MAX, CardAudit
from services.auditor.choosing import audited
from services.auditor.processor import AuditProcessor, ForwardingProcessor
from services.auditor.released import ReleasedModels
from services.checker.evidence import DECISIONS, INPUTS
from services.checker.oracle import MASK64, hash64
from services.codec.audit_events import AUDIT_EVENTS, AuditEvent
from services.codec.records import decode_record, encode_record
from services.codec.schemas import topics
from services.core.columns import Text
from services.core.profiles import CorruptProfileError
from services.core.validation import Reject
from services.grid.memory import GridMemory
from services.runtime import catalogue as m
from services.runtime.clock import ManualClock
from services.runtime.logs import transaction_token
from services.runtime.metrics import MetricsRegistry
from services.streams.memory import MemoryLog
from services.worker.ports import WorkerLimits
from services.worker.processor import NotYetError
from services.worker.write_behind import EVERY_BATCH
from tests.auditor.audited import (
    EVENTS,
    PARTITIONS,
    Decision,
    One,
    audit,
    changed,
    events_of,
    models,
    put_through,
    records_of,
    scored,
)
from tests.worker.harness import MemoryWorkers
from tests.worker.memory_system import KAFKA_TIMESTAMP_MS, CrashError, Crashing, partition_of


def both(decisions: list[One] | tuple[One, ...] | None = None, seed: int = 1) -> list[tuple[bytes, bytes]]:
    """Return the events of all transactions and then of decisions, those of the scorer if none are given."""
    transactions, made = scored(seed)
    return [*events_of(INPUTS, transactions), *events_of(DECISIONS, made if decisions is None else decisions)]


def interleaved(seed: int, decisions: list[One] | tuple[One, ...]) -> list[tuple[bytes, bytes]]:
    """Return the same events in an order in which each of the two kinds keeps its own."""
    rng = random.Random(seed)
    first, second = events_of(INPUTS, scored()[0]), events_of(DECISIONS, decisions)
    merged = []
    while first or second:
        merged.append((first if first and (not second or rng.random() < 0.5) else second).pop(0))
    return merged


def with_a_later_one() -> int:
    """Return which decision, of all, is the second of a card that has more."""
    _, decisions = scored()
    keys = [key for _, _, key, _ in decisions]
    return next(i for i, key in enumerate(keys) if keys[:i].count(key) == 1 and key in keys[i + 1 :])


def of_an_alert() -> int:
    return next(i for i, one in enumerate(scored()[1]) if decode_record(one[3] or b"")[1]["reasons"])


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_found_in_what_a_scorer_decided_whatever_comes_first(seed: int):
    found = audit(interleaved(seed, scored()[1]), batch=1 + 3 * seed)

    assert found.kinds == []
    assert found.count("depths") == {"whole": EVENTS}
    assert found.count("left_out") == {}


@pytest.mark.parametrize("seed", [2, 3])
def test_nor_in_other_runs(seed: int):
    found = audit(both(seed=seed))

    # What is late by event time may rest on what was before the first look.
    assert (found.kinds, sum(found.count("depths").values())) == ([], EVENTS)
    assert found.count("depths")["whole"] > EVENTS * 0.9


def feature(name: str, change: Callable[[float], float]) -> Callable[[Decision], Decision]:
    def of(decision: Decision) -> Decision:
        model = models().scoring.released(decision)
        assert model is not None
        at, values = model.names.index(name), list(decision["features"])
        values[at] = change(values[at])
        return decision | {"features": values}

    return of


def up(value: float | None) -> float:
    return float(np.nextafter(value or 0.0, 2.0))


def another_action(decision: Decision) -> Decision:
    return decision | {"action": "BLOCK" if decision["action"] != "BLOCK" else "APPROVE"}


def another_weight(decision: Decision) -> Decision:
    first, *others = decision["reasons"]
    return decision | {"reasons": [first | {"weight": first["weight"] + 0.01}, *others]}


FAULTS: dict[str, tuple[Callable[[Decision], Decision], str, str]] = {
    "a card's feature, by the last bit": (
        feature("card_mean_with_current_7d", up),
        "vector",
        "feature card_mean_with_current_7d",
    ),
    "the amount in the vector": (
        feature("transaction_amount", lambda v: v + 1),
        "vector",
        "feature transaction_amount",
    ),
    "a score, by the last bit": (lambda d: d | {"score": up(d["score"])}, "decision", "it should be"),
    "another action": (another_action, "decision", "it should be"),
    "another source": (lambda d: d | {"decided_by": "CUSTOMER"}, "decision", "it should be"),
    "an anomaly score": (lambda d: d | {"anomaly_score": d["anomaly_score"] + 1e-6}, "decision", "it should be"),
    "another class": (lambda d: d | {"transaction_class": "OTHER"}, "decision", "another booster or class"),
    "a model that is not released": (lambda d: d | {"model_version": "v999"}, "decision", "not released"),
    "a rule that nobody obeyed": (
        lambda d: d | {"rules": [{"rule_id": "r", "action": "BLOCK", "effect": "DECIDED", "reason": "r"}]},
        "decision",
        "by RULE",
    ),
    "a decline that nobody obeyed": (
        lambda d: d | {"declines": [{"code": "ACCOUNT_NOT_ACTIVE", "limit_minor": None, "text": "t"}]},
        "decision",
        "BLOCK",
    ),
    "a control group that lets through what nobody stopped": (
        lambda d: d | {"control_action": "BLOCK", "control_propensity": 0.5, "action": "APPROVE", "decided_by": "RULE"},
        "decision",
        "it should be",
    ),
    "a vector that is cut off": (lambda d: d | {"features": d["features"][:-1]}, "decision", "features, not"),
    "a repeat that is none": (lambda d: d | {"repeat": True}, "record", "repeat"),
    "another transaction's id": (lambda d: d | {"transaction_id": bytes(16)}, "record", "transaction_id"),
    "another terminal": (lambda d: d | {"terminal_id": "elsewhere"}, "record", "terminal_id"),
    "a mark without a cause": (lambda d: d | {"degraded": ["LATE", *d["degraded"]]}, "record", "degraded"),
}


@pytest.mark.parametrize("backwards", [False, True], ids=["transactions first", "decisions first"])
@pytest.mark.parametrize("name", FAULTS)
def test_each_injected_fault_is_found_and_nothing_else(name: str, backwards: bool):
    change, kind, says = FAULTS[name]
    decisions = changed(scored()[1], with_a_later_one(), change)
    transactions = events_of(INPUTS, scored()[0])
    events = [events_of(DECISIONS, decisions), transactions]

    found = audit([one for part in (events if backwards else events[::-1]) for one in part])

    assert kind in found.kinds
    assert set(found.kinds) <= {kind, "decision", "record"}
    assert len(found.kinds) <= 2
    assert any(says in what for what in found.witnesses)


def test_other_reasons_are_found():
    found = audit(both(changed(scored()[1], of_an_alert(), another_weight)))

    assert (found.kinds, found.witnesses) == (["decision"], ["other reasons than the model's"])


def test_a_reason_that_is_no_feature_is_found_and_stops_nobody():
    def unknown(decision: Decision) -> Decision:
        return decision | {"reasons": [decision["reasons"][0] | {"code": "nothing"}]}

    found = audit(both(changed(scored()[1], of_an_alert(), unknown)))

    assert found.kinds == ["decision"]
    assert "cannot be made again" in found.witnesses[0]


@pytest.mark.parametrize("seed", range(4))
def test_a_transaction_without_a_decision_is_found_when_its_card_is_used_again(seed: int):
    at = with_a_later_one()
    missing = decode_record(scored()[1][at][3] or b"")[1]

    found = audit(interleaved(seed, changed(scored()[1], at, lambda _: None)))

    [one] = [one for report in found.reports for one in report.mismatches]
    assert (one.kind, one.transaction_id) == ("missing", missing["transaction_id"])
    assert (one.partition, one.offset) == (missing["source_partition"], missing["source_offset"])
    # What the scorer holds of the card is not known for sure from there on: that is not blamed.
    assert found.count("depths")["without_past"] >= 1


@pytest.mark.parametrize("seed", range(4))
def test_a_second_decision_is_found_but_where_decisions_may_come_again(seed: int):
    decisions, at = list(scored()[1]), with_a_later_one()
    decisions.insert(at + 1, decisions[at])

    assert audit(interleaved(seed, decisions)).kinds == ["twice"]
    assert audit(interleaved(seed, decisions), repeats=True).kinds == []


def test_a_decision_on_nothing_is_found():
    transactions, decisions = scored()
    at = with_a_later_one()
    place = decode_record(decisions[at][3] or b"")[1]
    left = [one for one in transactions if one[:2] != (place["source_partition"], place["source_offset"])]

    found = audit([*events_of(INPUTS, left), *events_of(DECISIONS, decisions)])

    assert found.kinds[0] == "unfounded"


def test_a_decision_on_what_is_to_be_refused_is_found_and_a_refused_one_without_a_decision_is_right():
    transactions, decisions = list(scored()[0]), scored()[1]
    place = decode_record(decisions[with_a_later_one()][3] or b"")[1]
    where = place["source_partition"], place["source_offset"]
    at = [one[:2] for one in transactions].index(where)
    bad = decode_record(transactions[at][3] or b"")[1] | {"amount_minor": -1}
    transactions[at] = (*transactions[at][:3], encode_record(topics()[INPUTS].latest, bad))

    found = audit([*events_of(INPUTS, transactions), *events_of(DECISIONS, decisions)])
    left = [one for one in decisions if decode_record(one[3] or b"")[1]["transaction_id"] != place["transaction_id"]]
    right = audit([*events_of(INPUTS, transactions), *events_of(DECISIONS, left)])

    assert found.kinds[0] == "unfounded"
    assert "missing" not in right.kinds


# -- where the past is not known -------------------------------------------------------------------------------------


def late_start(seed: int = 1) -> tuple[list[One], list[One]]:
    """Return what an auditor sees that begins when a half is over."""
    transactions, decisions = scored(seed)
    halves = {p: sum(one[0] == p for one in transactions) // 2 for p in range(PARTITIONS)}
    kept = [one for one in transactions if one[1] >= halves[one[0]]]
    places = {one[:2] for one in kept}

    def answers(one: One) -> bool:
        decision = decode_record(one[3] or b"")[1]
        return (decision["source_partition"], decision["source_offset"]) in places

    return kept, [one for one in decisions if answers(one)]


def test_a_late_beginning_blames_nobody_and_what_needs_no_past_is_compared_all_the_same():
    transactions, decisions = late_start()

    found = audit([*events_of(INPUTS, transactions), *events_of(DECISIONS, decisions)])
    wrong = changed(decisions, len(decisions) - 1, lambda d: d | {"score": up(d["score"])})

    assert found.kinds == []
    assert found.count("depths")["without_past"] > 0
    assert audit([*events_of(INPUTS, transactions), *events_of(DECISIONS, wrong)]).kinds == ["decision"]


@pytest.mark.parametrize("transactions_first", [True, False])
def test_logs_that_begin_at_different_places_blame_nobody(transactions_first: bool):
    whole, late = scored(), late_start()
    pair = (whole[0], late[1]) if transactions_first else (late[0], whole[1])

    found = audit([*events_of(INPUTS, pair[0]), *events_of(DECISIONS, pair[1])])

    assert found.kinds == []
    assert (found.count("left_out").get("before", 0) > 0) != transactions_first


@pytest.mark.parametrize("seed", range(1, 5))
def test_wherever_an_auditor_begins_it_blames_nobody_and_comes_to_know_the_past(seed: int):
    rng, proved = random.Random(seed), 0
    transactions, decisions = scored(seed)
    for _ in range(6):
        cut = {p: rng.randrange(1, 20) for p in range(PARTITIONS)}
        kept = [one for one in transactions if one[1] >= cut[one[0]]]

        found = audit([*events_of(INPUTS, kept), *events_of(DECISIONS, decisions)])

        assert found.kinds == []
        proved += found.count("depths").get("whole", 0)
    assert proved > 0


def test_another_share_begins_anew_and_blames_nobody_and_so_does_the_first_one_again():
    transactions, decisions = scored()
    half = {p: sum(one[0] == p for one in transactions) // 2 for p in range(PARTITIONS)}
    early, late = ([one for one in transactions if (one[1] < half[one[0]]) == first] for first in (True, False))
    held: dict[tuple[int, bytes], bytes] = {}
    # With the lower share all cards are left out meanwhile.
    events = events_of(INPUTS, early[: len(early) // 2], 1.0, held)
    assert events_of(INPUTS, early[len(early) // 2 :], 0.0, held) == []
    events += events_of(INPUTS, late, 1.0, held)

    found = audit([*events, *events_of(DECISIONS, decisions)])

    assert found.kinds == []
    assert found.count("depths")["without_past"] > 0


def test_a_card_whose_partition_was_copied_from_its_beginning_lacks_not_even_its_first_decision():
    decisions = scored()[1]
    keys = [one[2] for one in decisions]
    # The first record of a partition must be there: by its offset the forwarder knows the beginning.
    first = next(i for i, one in enumerate(decisions) if one[1] and one[2] not in keys[:i] and one[2] in keys[i + 1 :])

    assert audit(both(changed(decisions, first, lambda _: None))).kinds == ["missing"]


def test_what_waits_is_bounded_and_blames_nobody():
    [card] = {key for _, _, key, _ in scored()[0]} & {b"card-0"}
    source = next(one for one in scored()[0] if one[2] == card)
    many = [(source[0], offset, card, source[3]) for offset in range(3 * WAITING_MAX)]
    answer = next(one for one in scored()[1] if one[2] == card)
    decision = decode_record(answer[3] or b"")[1]
    answers = [
        (answer[0], offset, card, encode_record(topics()[DECISIONS].latest, decision | {"source_offset": offset}))
        for offset in range(3 * WAITING_MAX)
    ]

    only_transactions = audit(events_of(INPUTS, many))
    only_decisions = audit(events_of(DECISIONS, answers))

    for found in (only_transactions, only_decisions):
        [held] = found.held.values()
        kept = CardAudit.of(held)
        assert len(kept.transactions) + len(kept.decisions) == WAITING_MAX
        assert found.kinds == []
    assert only_decisions.count("left_out") == {"room": 2 * WAITING_MAX}
    late = audit([*events_of(INPUTS, many), *events_of(DECISIONS, answers[: WAITING_MAX // 2])])
    assert late.count("left_out") == {"room": WAITING_MAX // 2}
    assert late.kinds == []


# -- who is audited --------------------------------------------------------------------------------------------------


def plain_choice(card: bytes, share: float) -> bool:
    """The slow, obvious twin."""
    mixed = hash64(card) ^ 0x9E3779B97F4A7C15
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        mixed = (mixed ^ mixed >> 33) * factor & MASK64
    mixed ^= mixed >> 33
    return (mixed >> 11) / 2**53 < share


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0])
def test_the_share_is_that_of_the_cards_stable_and_growing(share: float):
    cards = [b"card-%06d" % i for i in range(20_000)]
    chosen = audited(Text.of(cards), share)

    assert abs(chosen.mean() - share) < 0.01
    assert chosen.tolist() == [plain_choice(card, share) for card in cards]
    assert not (chosen & ~audited(Text.of(cards), min(1.0, share * 1.5))).any()


def test_forwarders_copy_no_payload_that_is_refused_and_nothing_under_a_bad_key():
    p, _, card, value = scored()[0][0]
    pan = "4111" + "1111" * 3
    bad = encode_record(topics()[INPUTS].latest, decode_record(value or b"")[1] | {"terminal_id": pan})
    rows: list[One] = [
        (p, 0, card, bad),
        (p, 1, card, b"rubbish"),
        (p, 2, card, None),
        (partition_of(pan.encode(), PARTITIONS), 3, pan.encode(), bad),
        (p, 4, None, value),
        (partition_of(b"\xff", PARTITIONS), 5, b"\xff", value),
        (1 - p, 6, card, value),
        (p, 7, card, value),
    ]
    events = [decode_record(value)[1] for _, value in events_of(INPUTS, rows)]

    assert [(one["source_offset"], one["record"]) for one in events] == [(0, None), (1, None), (2, None), (7, value)]
    assert pan.encode() not in b"".join(value for _, value in events_of(INPUTS, rows))
    assert events_of(DECISIONS, [(p, 0, card, b"rubbish"), (p, 1, None, None)]) == []


def test_what_must_not_be_decoded_is_not_forwarded_and_nothing_becomes_a_dead_letter():
    records = records_of(INPUTS, scored()[0])
    excluded = np.where(np.arange(EVENTS) == 3, Reject.KILLS_DECODER, Reject.NONE)
    processor = ForwardingProcessor(INPUTS, 1.0)
    prepared = processor.prepare(records, excluded)

    outcome = processor.decide(prepared, [None] * PARTITIONS, {}, np.ones(EVENTS, bool), KAFKA_TIMESTAMP_MS)

    assert [len(one.keys) for one in outcome.outputs] == [EVENTS - 1]
    assert (outcome.decided, len(outcome.refused)) == (EVENTS - 1, 1)


# -- profiles, models, metrics ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_profile_reads_as_it_was_written_and_a_damaged_one_is_noticed(seed: int):
    rng = random.Random(seed)
    events = interleaved(seed, scored()[1])[: rng.randrange(40, 100)]
    held = audit(events).held
    assert held
    for profile in held.values():
        assert CardAudit.of(profile).packed() == profile
        for damaged in (profile[:-3], profile[: rng.randrange(len(profile))], b"\x02\x00" + profile[2:], b""):
            with pytest.raises(ValueError, match=r"\w"):
                CardAudit.of(damaged)


def test_a_damaged_profile_is_of_its_pair():
    events = records_of(AUDIT_EVENTS, [(0, i, *pair) for i, pair in enumerate(both()[:4])])
    processor = AuditProcessor(models())
    prepared = processor.prepare(events, np.zeros(4, np.int64))
    with pytest.raises(CorruptProfileError) as raised:
        processor.decide(prepared, [b"damaged"] * len(prepared.cards), {}, np.ones(4, bool), 0)

    assert raised.value.rows == (0,)


def test_records_that_are_no_audit_events_are_refused():
    good = AuditEvent("card-1", "TRANSACTION", 0, 1, 2, 0, None).encode()
    rows = [(0, 0, *good), (0, 1, b"card-2", good[1]), (0, 2, b"card-1", b"rubbish"), (0, 3, None, good[1])]
    status = AuditProcessor().prepare(records_of(AUDIT_EVENTS, rows), np.zeros(4, np.int64)).status

    # In one partition of two, and this card belongs there.
    assert [Reject(int(one)).name for one in status[1:]] == ["KEY_MISMATCH", "MALFORMED", "NULL_KEY"]


def test_only_what_is_emitted_is_counted_and_the_profiles_are_the_same():
    events = records_of(AUDIT_EVENTS, [(0, i, *pair) for i, pair in enumerate(both())])
    processor = AuditProcessor(models())
    prepared = processor.prepare(events, np.zeros(len(events), np.int64))
    nothing: list[bytes | None] = [None] * len(prepared.cards)
    silent, loud = (
        processor.decide(prepared, nothing, {}, np.full(len(events), emit), KAFKA_TIMESTAMP_MS)
        for emit in (False, True)
    )

    assert silent.profiles == loud.profiles
    assert not silent.report.depths
    assert sum(loud.report.depths.values()) > 0


def test_a_model_that_is_not_known_yet_is_waited_for_once_and_then_blamed(tmp_path: Any):
    clock, folders = ManualClock(0), list[Any]()
    waiting = ReleasedModels(lambda: folders, (30.0, 300.0), clock)
    waiting.begin()
    decisions = [decode_record(scored()[1][0][3] or b"")[1]]
    with pytest.raises(NotYetError):
        waiting.ask(decisions)
    waiting.turn()
    waiting.ask(decisions)  # it was looked for, and is not there
    assert waiting.scoring.released(decisions[0]) is None

    (tmp_path / "manifest.json").write_text("{")
    folders += [tmp_path, *models().folders()]
    clock.sleep(31)
    with pytest.raises(NotYetError):
        waiting.ask(decisions)
    waiting.turn()
    waiting.ask(decisions)
    assert waiting.scoring.released(decisions[0]) is not None


def test_metrics_and_the_log_have_a_witness_without_a_value(caplog: pytest.LogCaptureFixture):
    at = with_a_later_one()
    decision = decode_record(scored()[1][at][3] or b"")[1]
    wrong = changed(scored()[1], at, feature("card_sum_1d", lambda v: v + 12345.678))
    events = [(partition_of(key, PARTITIONS), i, key, value) for i, (key, value) in enumerate(both(wrong))]
    processor, metrics = AuditProcessor(models()), MetricsRegistry(m.AUDITOR_METRICS)
    records = records_of(AUDIT_EVENTS, events)
    outcome = put_through(processor, records, {})
    with caplog.at_level(logging.ERROR):
        processor.measure(metrics, processor.prepare(records, np.zeros(len(records), np.int64)), outcome, 0)

    assert metrics.value(m.PARITY_MISMATCHES, "vector") == 1
    assert metrics.value(m.PARITY_MISMATCHES, "missing") == 0
    assert metrics.value(m.AUDITED, "whole") == EVENTS
    facts = next(vars(one)["fields"] for one in caplog.records if vars(one)["fields"]["mismatch"] == "vector")
    place = f"{decision['source_partition']}/{decision['source_offset']}"
    assert facts == {
        "mismatch": "vector",
        "transaction": transaction_token(decision["transaction_id"]),
        "differs": "feature card_sum_1d",
        "remedy": f"proact explain {place}",
    }


# -- on the engine ---------------------------------------------------------------------------------------------------


class Auditing:
    """The logs of a run, and auditors of all three topics that come and go."""

    def __init__(self, decisions: list[One] | tuple[One, ...]) -> None:
        self.clock, self.grid, self.births = ManualClock(KAFKA_TIMESTAMP_MS), GridMemory(), 0
        self.log = MemoryLog(PARTITIONS, monotonic_s=self.clock.monotonic_s, sleep=self.clock.sleep)
        self.metrics = MetricsRegistry(m.AUDITOR_METRICS)
        for topic, ones in ((INPUTS, scored()[0]), (DECISIONS, decisions)):
            for p, _, key, value in ones:
                self.log.append(topic, key, value, KAFKA_TIMESTAMP_MS, p)

    def run(self, processor: Any, wire: Any) -> None:
        self.births += 1
        made = MemoryWorkers(
            log=self.log, grid=self.grid, clock=self.clock, topic=processor.topic, metrics=self.metrics,
            limits=WorkerLimits(16, 0.0, 0, EVERY_BATCH),
        ).new(processor, f"auditor-{self.births}", f"auditor-{processor.topic}", wire)  # fmt: skip
        self.log.rebalance({f"auditor-{self.births}": tuple(range(PARTITIONS))})
        for _ in range(200):
            made.worker.turn()
            self.clock.sleep(0.3)
            if all(made.source.positions().get(p, -1) == self.log.end(processor.topic, p) for p in range(PARTITIONS)):
                break
        made.worker.release()

    def all_of_it(self, wire: Any) -> None:
        for topic in (INPUTS, DECISIONS):
            self.run(ForwardingProcessor(topic, 1.0), wire)
        for p in range(PARTITIONS):  # the twin's source gives what was aborted, too; Kafka's does not
            self.log.partition_log(AUDIT_EVENTS, p)[:] = self.log.visible(AUDIT_EVENTS, p)
        self.run(AuditProcessor(models()), wire)

    def profiles(self) -> dict[Any, Any]:
        return {p: dict(self.grid.of(f"auditor-{AUDIT_EVENTS}", p)) for p in range(PARTITIONS)}


def test_on_the_engine_each_decision_is_audited_once_and_only_the_fault_is_counted():
    right, wrong = Auditing(scored()[1]), Auditing(changed(scored()[1], with_a_later_one(), another_action))
    for one in (right, wrong):
        one.all_of_it(Crashing())

    assert right.metrics.value(m.AUDITED, "whole") == EVENTS
    assert [right.metrics.value(m.PARITY_MISMATCHES, kind) for kind in m.MISMATCH.values or ()] == [0] * 6
    assert wrong.metrics.value(m.PARITY_MISMATCHES, "decision") == 1
    assert {name for name, _ in right.grid.metas} == {f"auditor-{t}" for t in (INPUTS, DECISIONS, AUDIT_EVENTS)}


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_crash_around_an_effect_makes_no_mismatch_and_forgets_nothing(before: bool):
    reference, counting = Auditing(scored()[1]), Crashing()
    reference.all_of_it(counting)
    assert counting.calls > 20

    for at in range(1, counting.calls + 1, 5):
        crashed = Auditing(scored()[1])
        wire = Crashing(at, before=before)
        for _ in range(2):
            try:
                crashed.all_of_it(wire)
                break
            except CrashError:
                wire = Crashing()
        mismatches = Counter(
            {kind: crashed.metrics.value(m.PARITY_MISMATCHES, kind) for kind in m.MISMATCH.values or ()}
        )
        assert sum(mismatches.values()) == 0, at
        events = [
            decode_record(r.value or b"")[1] for p in range(PARTITIONS) for r in crashed.log.visible(AUDIT_EVENTS, p)
        ]
        assert len(events) == 2 * EVENTS
        assert {p: set(held) for p, held in crashed.profiles().items()} == {
            p: set(held) for p, held in reference.profiles().items()
        }
