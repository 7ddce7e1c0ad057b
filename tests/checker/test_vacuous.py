"""What the checker says of evidence that is empty, not numbers, or all alike: never that all is well."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from services.checker.evidence import OUTPUTS, Evidence, Seen
from services.checker.findings import Verdict
from services.checker.oracle import FEATURES
from services.checker.scoring import OF_KNOWN_TERMINAL
from services.codec.records import decode_record, encode_record
from services.codec.schemas import topics
from services.core.features import FEATURE_NAMES
from tests.checker.judged import evidence_of, judge, scorer_world

DECISIONS = "card-decisions"
KNOWN = [at for at, name in enumerate(FEATURE_NAMES) if name.startswith(OF_KNOWN_TERMINAL)]


@cache
def evidence() -> Evidence:
    world = scorer_world()
    world.spawn("a")
    world.settle(60)
    return evidence_of(world)


def judged(**changes: Any) -> Verdict:
    return judge(replace(evidence(), **changes))


def with_decisions(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Verdict:
    """Judge the same run with other decisions: fields that ``change`` returns replace theirs."""
    schema = topics()[DECISIONS].latest
    seen = []
    for one in evidence().outputs[DECISIONS]:
        record = decode_record(one.value or b"")[1]
        seen.append(replace(one, value=encode_record(schema, record | change(record))))
    assert seen
    return judged(outputs=evidence().outputs | {DECISIONS: seen})


def test_the_run_is_right_as_it_is():
    assert evidence().outputs[DECISIONS]
    assert judged().holds
    assert with_decisions(lambda _: {}).holds


def test_nothing_at_all_proves_nothing():
    verdict = judged(inputs=[], outputs={topic: [] for topic in OUTPUTS}, committed={}, profiles={0: {}, 1: {}})

    assert verdict.as_json()["verdict"] == "broken"
    assert verdict.totals["vacuous"]


def test_transactions_of_which_none_was_decided_on_are_unseen_or_prove_nothing():
    silent = judged(outputs={topic: [] for topic in OUTPUTS}, committed={})
    world = scorer_world()
    for p in range(world.partitions):
        world.log.partition_log("card-transactions", p).clear()
    world.produce([(b"card", b"rubbish")] * 5)
    world.spawn("a")
    world.settle(60)
    refused = judge(evidence_of(world))

    assert silent.totals["unseen"] == len(evidence().inputs)
    assert refused.totals == {"vacuous": 1}, refused.anomalies


MUTANTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "no features": lambda _: {"features": []},
    "too few features": lambda d: {"features": d["features"][:-1]},
    "features that are all missing": lambda d: {"features": [math.nan] * len(d["features"])},
    "features that are all alike": lambda d: {"features": [0.0] * len(d["features"])},
    "a score that is not a number": lambda _: {"score": math.nan},
    "an anomaly score that is not a number": lambda _: {"anomaly_score": math.nan},
    "no scores": lambda _: {"score": None, "anomaly_score": None},
    "scores that are all alike": lambda _: {"score": 0.5},
    "marked as unknown, and known": lambda d: {
        "features": [0.0 if at in KNOWN else value for at, value in enumerate(d["features"])]
    },
    "features of nobody": lambda _: {"feature_set_hash": "0" * 16},
}


@pytest.mark.parametrize("name", MUTANTS)
def test_decisions_with_values_that_are_none_are_wrong_one_by_one(name: str):
    verdict = with_decisions(MUTANTS[name])

    assert verdict.totals["wrong-decision"] >= len(evidence().outputs[DECISIONS]), verdict.anomalies


def test_what_is_known_of_a_terminal_and_missing_without_a_mark_is_wrong():
    """The scores may be right on what was seen: so the mark alone tells whether somebody noticed."""
    unmarked = with_decisions(lambda d: {"degraded": [one for one in d["degraded"] if one != "TERMINAL_UNKNOWN"]})
    unknown = [decode_record(one.value or b"")[1] for one in evidence().outputs[DECISIONS]]

    assert all(all(math.isnan(d["features"][at]) for at in KNOWN) for d in unknown)
    assert unmarked.totals["wrong-decision"] == len(unknown)
    assert "terminal_known_count_1d is missing without a mark" in unmarked.anomalies["wrong-decision"][0]


def test_features_are_compared_where_no_released_model_says_what_they_are_called():
    """A decision without a model may name a feature set that nobody knows: the oracle goes by its own list then."""
    at = FEATURE_NAMES.index("card_count_10m")
    of_nobody = {"feature_set_hash": "0" * 16, "fallback_tier": "SAFE_DEFAULT"}
    verdict = with_decisions(
        lambda d: of_nobody | {"features": [v + 1.0 if j == at else v for j, v in enumerate(d["features"])]}
    )

    wrong = [said for said in verdict.anomalies["wrong-decision"] if "feature card_count_10m" in said]
    assert len(wrong) > 0
    assert FEATURE_NAMES[: len(FEATURES)] == FEATURES


def test_a_grid_that_holds_nothing_or_the_same_for_everybody_is_not_the_fold():
    empty = judged(profiles={p: {} for p in evidence().profiles})
    one = next(iter(evidence().profiles[0].values()))
    alike = judged(profiles={p: dict.fromkeys(held, one) for p, held in evidence().profiles.items()})

    assert empty.totals["divergent-state"] == sum(map(len, evidence().profiles.values())) > 0
    assert alike.totals["divergent-state"] > 0


def test_answers_that_are_all_the_same_record_are_lost_writes_and_duplicates():
    [first, *others] = evidence().outputs[DECISIONS]
    same = [first, *(Seen(o.partition, o.offset, o.timestamp_ms, first.key, first.value) for o in others)]

    verdict = judged(outputs=evidence().outputs | {DECISIONS: same})

    assert verdict.totals["lost-write"]
    assert verdict.totals["duplicate"]
