"""What the checker makes of a run that is not at rest: a service that is missing is named, and what is broken stays broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from services.checker.evidence import DECISIONS, INPUTS, REQUESTS, TERMINAL_EVENTS, Evidence
from services.checker.findings import Verdict
from services.checker.rest import Group, Look, Position, find_rest
from services.registry import BY_LOG, BY_TOPIC
from tests.checker.judged import evidence_of, judge, scorer_world

GROUPS = {topic: Group(BY_LOG[topic].name, f"group-{topic}", BY_LOG[topic].keeps_profiles) for topic in BY_TOPIC}
Positions = dict[str, dict[int, Position]]


def decided(count: int | None = None) -> Evidence:
    """Return a run of the scorer alone, which was stopped after so many turns."""
    world = scorer_world()
    world.spawn("a")
    for _ in range(count if count is not None else 60):
        world.turn("a")
    nothing: dict[str, Any] = {"accounts": {}, "customers": {}}
    return replace(
        evidence_of(world),
        reference={topic: [] for topic in nothing},
        reference_applied=nothing,
        reference_profiles=nothing,
    )


def positions_of(evidence: Evidence) -> Positions:
    found: Positions = {topic: {} for topic in GROUPS}
    found[INPUTS] = {
        p: Position(0, end, evidence.committed.get(p), evidence.applied[p]) for p, end in evidence.log_end.items()
    }
    for topic in (TERMINAL_EVENTS, REQUESTS):
        for p in evidence.log_end:
            end = max((seen.offset + 1 for seen in evidence.outputs[topic] if seen.partition == p), default=0)
            found[topic][p] = Position(0, end, None, None)
    return found


def said(
    evidence: Evidence,
    members: dict[str, int] | None = None,
    later: Callable[[Positions], Positions] = lambda p: p,
    halts: dict[tuple[str, int], str] | None = None,
) -> Verdict:
    """Return the verdict where so many members were there, and positions were others after it was read."""
    there = dict.fromkeys(GROUPS, 0) | (members or {})
    before = positions_of(evidence)
    verdict = judge(evidence)
    looks = Look(before, there), Look(later({t: dict(ps) for t, ps in before.items()}), there)
    verdict.take(find_rest(*looks, evidence, GROUPS, halts or {}))
    return verdict


def moved(topic: str, **change: Any) -> Callable[[Positions], Positions]:
    def later(positions: Positions) -> Positions:
        [p, *_] = positions[topic]
        positions[topic][p] = replace(positions[topic][p], **change)
        return positions

    return later


def test_a_service_whose_topic_the_checker_does_not_read_is_looked_at_too():
    groups = GROUPS | {"merchant-refunds": Group("sample", "group-sample", keeps_profiles=True)}
    evidence = decided()
    found = positions_of(evidence) | {"merchant-refunds": {0: Position(0, 7, 3, 2)}}
    look = Look(found, dict.fromkeys(groups, 0))

    [one] = [one for one in find_rest(look, look, evidence, groups, {}).unrest if one.topic == "merchant-refunds"]

    assert (one.service, one.group, one.state, one.waiting) == ("sample", "group-sample", "missing", 5)
    assert "proact sample" in str(one)


def test_a_run_at_rest_is_ok_and_services_that_never_ran_are_named():
    verdict = said(decided())

    assert verdict.word == "ok"
    assert verdict.as_json()["never_ran"].keys() >= {TERMINAL_EVENTS}
    assert "not_at_rest" not in verdict.as_json()


def test_a_scorer_that_was_stopped_is_named_with_what_waits_for_it():
    evidence = decided(3)
    verdict = said(evidence)
    [one] = verdict.as_json()["not_at_rest"]
    waiting = sum(seen.offset >= evidence.committed.get(seen.partition, 0) for seen in evidence.inputs)

    assert waiting > 0
    assert (verdict.word, one["service"], one["state"]) == ("not_at_rest", "scorer", "missing")
    assert one["waiting"] >= waiting
    assert "the scorer is not running" in one["says"]
    assert "proact scorer" in one["says"]


def test_a_scorer_that_never_ran_is_missing_too():
    assert said(decided(0)).word == "not_at_rest"


def test_a_scorer_that_is_there_and_works_nothing_off_is_broken():
    verdict = said(decided(3), {INPUTS: 1})

    assert verdict.word == "broken"
    assert verdict.as_json()["not_at_rest"][0]["state"] == "idle"


def test_a_halted_partition_is_broken_and_named_whether_somebody_is_there_or_not():
    for members in ({}, {INPUTS: 1}):
        verdict = said(decided(3), members, halts={(INPUTS, 0): "RETENTION: records are gone; do this"})

        assert verdict.word == "broken"
        assert verdict.as_json()["anomalies"]["halted"]["witnesses"] == [
            f"{INPUTS} 0: RETENTION: records are gone; do this"
        ]


@pytest.mark.parametrize("change", [{"end": 999}, {"committed": 1}, {"applied": 1}], ids=["came", "decided", "saved"])
def test_what_moves_while_it_is_read_is_reported_and_not_blamed(change: dict[str, int]):
    evidence = decided()
    evidence.outputs[DECISIONS] = evidence.outputs[DECISIONS][:-3]  # read before the last ones came
    evidence.outputs[TERMINAL_EVENTS] = evidence.outputs[TERMINAL_EVENTS][:-1]
    verdict = said(evidence, {INPUTS: 1}, moved(INPUTS, **change))

    assert verdict.word == "not_at_rest"
    assert verdict.as_json()["anomalies"], "they are reported, to look at again"
    assert {one["state"] for one in verdict.as_json()["not_at_rest"]} >= {"moving"}


def test_what_is_wrong_whoever_moves_is_broken():
    evidence = decided()
    evidence.outputs[DECISIONS] = [*evidence.outputs[DECISIONS], replace(evidence.outputs[DECISIONS][0], offset=999)]

    assert said(evidence, {INPUTS: 1}, moved(INPUTS, end=999)).word == "broken"


def test_who_is_missing_elsewhere_excuses_nothing():
    evidence = decided()
    evidence.outputs[DECISIONS] = evidence.outputs[DECISIONS][:-1]
    assert said(evidence).word == "broken"

    positions = positions_of(decided())
    missing = {p: replace(one, committed=1, applied=1) for p, one in positions[TERMINAL_EVENTS].items()}
    look = Look(positions | {TERMINAL_EVENTS: missing}, dict.fromkeys(GROUPS, 0))
    verdict = judge(evidence)
    verdict.take(find_rest(look, look, evidence, GROUPS, {}))
    assert {one.service for one in verdict.rest.unrest} == {"profiler"}
    assert verdict.word == "broken", "a decision is lost, and no profiler could bring it back"
