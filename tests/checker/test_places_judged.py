"""The checker knows where records belong: what is refused or marked for lying elsewhere must be, and nothing else may be."""

from __future__ import annotations

from typing import Any

import pytest

from services.checker.evidence import DEAD_LETTERS, OUTPUTS, REQUESTS, Evidence, Seen
from services.checker.findings import Verdict
from services.checker.oracle import home_of
from services.checker.reassessments import check_reassessments
from services.checker.reference_data import check_reference
from services.checker.terminals import check_terminals, event_of
from services.codec.records import encode_record
from services.codec.reference import ACCOUNTS, CUSTOMERS, encode_account
from services.codec.schemas import topics
from services.codec.terminal_events import TOPIC as TERMINALS
from services.codec.transactions import TOPIC
from services.core.card.windows import WRONG_PARTITION
from services.core.reference.layout import Account
from services.scorer.processor import ScorerProcessor
from tests.checker.judged import evidence_of, judge, scorer_world
from tests.simulation.world import Schedule
from tests.worker.memory_system import SAFE, released_model

PARTITIONS = 6
FROZEN = Account("EUR", 1, 0, "FROZEN", 1)


class Unmarked(ScorerProcessor):
    """A mutant that says nothing of where transactions lie."""

    def fold_cards(self, prepared, profiles, emit):
        folded, sealed = super().fold_cards(prepared, profiles, emit)
        folded.flags[:] &= ~WRONG_PARTITION
        return folded, sealed


class Always(ScorerProcessor):
    """A mutant that says it of all of them."""

    def fold_cards(self, prepared, profiles, emit):
        folded, sealed = super().fold_cards(prepared, profiles, emit)
        folded.flags[:] |= WRONG_PARTITION
        return folded, sealed


@pytest.mark.parametrize(("kind", "right"), [(ScorerProcessor, True), (Unmarked, False), (Always, False)])
def test_decisions_say_of_exactly_those_that_lie_elsewhere(kind: type[ScorerProcessor], right: bool):
    world = scorer_world(Schedule(), processor=lambda: kind(released_model(), SAFE))
    logs = [world.log.partition_log(TOPIC, p) for p in range(2)]
    logs[0], logs[1] = logs[0][:-4] + logs[1][-4:], logs[1][:-4] + logs[0][-4:]
    for p in range(2):
        world.log.partition_log(TOPIC, p)[:] = logs[p]
    world.spawn("a")
    world.settle(60)

    found = judge(evidence_of(world))

    assert found.holds == right, found.as_json()
    assert found.totals.keys() == (set() if right else {"wrong-decision"})


def evidence(**given: Any) -> Evidence:
    outputs = {topic: [] for topic in OUTPUTS} | given.pop("outputs", {})
    nothing = {"committed": {}, "log_start": {}, "log_end": {}, "applied": {}, "profiles": {}}
    return Evidence(inputs=given.pop("inputs", []), outputs=outputs, **nothing, **given)


def letter(topic: str, seen: Seen, reason: str) -> Seen:
    reported = {
        "reason": reason, "key": seen.key, "value": seen.value, "value_bytes": 1, "masked": False, "source_topic": topic,
        "source_partition": seen.partition, "source_offset": seen.offset, "source_timestamp_ms": 1, "rejected_at_ms": 1,
    }  # fmt: skip
    return Seen(0, seen.offset, 1, seen.key, encode_record(topics()[DEAD_LETTERS].latest, reported))


@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize(
    ("astray", "refused", "blamed"),
    [(False, False, set()), (True, True, set()), (True, False, {"lost-write"}), (False, True, {"wrong-decision"})],
)
def test_reference_data_elsewhere_must_be_refused_and_none_of_the_others(astray, refused, blamed, deleted):
    key = b"account-1"
    partition = (home_of(key, PARTITIONS) + astray) % PARTITIONS
    value = None if deleted else encode_account("account-1", FROZEN, 1)
    seen = Seen(partition, 0, 1, key, value)
    held = {} if deleted or astray or refused else {key: FROZEN.sealed()}
    given = evidence(
        outputs={DEAD_LETTERS: [letter(ACCOUNTS, seen, "WRONG_PARTITION")] * refused},
        reference={ACCOUNTS: [seen], CUSTOMERS: []},
        reference_applied={topic: dict.fromkeys(range(PARTITIONS), 1) for topic in (ACCOUNTS, CUSTOMERS)},
        reference_profiles={
            ACCOUNTS: {p: held if p == partition else {} for p in range(PARTITIONS)},
            CUSTOMERS: {p: {} for p in range(PARTITIONS)},
        },
    )
    verdict = Verdict()

    check_reference(given, verdict)

    assert verdict.totals.keys() == blamed


@pytest.mark.parametrize(("refused", "blamed"), [(True, set()), (False, {"lost-write"})])
def test_events_of_terminals_elsewhere_must_be_refused(refused, blamed):
    event = {
        "kind": "TRANSACTION", "transaction_id": bytes(16), "terminal_id": "terminal-1", "event_time_ms": 10**12, "amount_minor": 5,
        "is_fraud": False, "known_at_ms": 0,
    }  # fmt: skip
    key = b"terminal-1"
    seen = Seen((home_of(key, 2) + 1) % 2, 0, 1, key, encode_record(topics()[TERMINALS].latest, event))
    given = evidence(
        outputs={TERMINALS: [seen], DEAD_LETTERS: [letter(TERMINALS, seen, "WRONG_PARTITION")] * refused},
        terminal_applied={0: 1, 1: 1},
        terminal_profiles={0: {}, 1: {}},
    )
    verdict = Verdict()

    check_terminals(given, type(verdict.totals)(), verdict, repeats=False)

    assert verdict.totals.keys() == blamed
    assert event_of(event)[2] == "terminal-1"


@pytest.mark.parametrize(("lies", "blamed"), [(False, set()), (True, {"wrong-decision"})])
def test_a_request_is_refused_only_if_its_transaction_does_not_lie_where_it_says(lies, blamed):
    request = {
        "transaction_id": bytes(16), "card_id": "card-1", "decided_at_ms": 1, "action": "APPROVE", "score": 0.1, "fallback_tier": "SMALL_MODEL",
        "source_partition": 0, "source_offset": 7, "source_timestamp_ms": 1, "transaction": b"as it came",
    }  # fmt: skip
    asked = Seen(1, 3, 1, b"card-1", encode_record(topics()[REQUESTS].latest, request))
    given = evidence(
        inputs=[Seen(0, 7, 1, b"card-1", b"as it came" if lies else b"another")],
        outputs={REQUESTS: [asked], DEAD_LETTERS: [letter(REQUESTS, asked, "TRANSACTION_NOT_FOUND")]},
    )
    verdict = Verdict()

    check_reassessments(given, [], verdict, repeats=False)

    assert verdict.totals.keys() == blamed
