"""Models beside the live one: a canary decides for its cards alone, a shadow for nobody, and neither can stop a decision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.codec.model_releases import Guards
from services.codec.records import decode_record
from services.codec.transactions import encode_transactions
from services.core.columns import Text
from services.core.fallback import SafeDefault
from services.core.policy import Action
from services.core.rules.engine import RuleEngine
from services.core.rules.rule_set import Rule, RuleSet
from services.core.stability import stability_index
from services.decision.release_watch import BATCHES_MIN, DECISIONS_MIN, WINDOW_S, ReleaseWatch
from services.decision.releases import CanaryModel, ModelsInUse, ShadowModel
from services.decision.shadows import SHADOW_DECISIONS
from services.inference.artifact import load_model
from services.runtime import catalogue as m
from services.runtime.clock import ManualClock
from services.runtime.metrics import MetricsRegistry
from services.scorer.processor import ScorerProcessor
from tests.decision.candidates import candidate
from tests.generators import random_events, to_columns
from tests.scorer.test_scorer import NOW_MS, decide
from tests.worker.memory_system import released_model

SAFE = SafeDefault(30.0, 300.0)
STRICT = 1e-9
"""A threshold from which everything is challenged."""


@pytest.fixture(scope="module")
def strict(tmp_path_factory: Any) -> Any:
    return load_model(candidate(tmp_path_factory.mktemp("models"), challenge=STRICT))


def good(count: int) -> tuple[list[bytes], list[bytes]]:
    """Return keys and values of transactions of many cards."""
    columns = to_columns(random_events(1, count, cards=60, late_share=0))
    return columns.card_id.tolist(), encode_transactions(columns)


class Broken:
    """A model that raises an exception whatever it is asked."""

    name, version, anomaly = "fraud", "v9", None

    @property
    def champion(self) -> Any:
        return self

    small = champion

    def predict(self, vectors: Any) -> Any:  # noqa: ARG002 - the signature
        raise ZeroDivisionError


def scorer(**beside: Any) -> ScorerProcessor:
    processor = ScorerProcessor(released_model(), SAFE)
    processor.watch = ReleaseWatch(ManualClock(0).monotonic_s)
    processor.adopt_models(ModelsInUse(released_model(), **beside))
    return processor


def by_offset(records: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Return records by where their transactions lie: among those of the generator are repeats."""
    return {one["source_offset"]: {name: repr(value) for name, value in one.items()} for one in records}


# -- canary ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.99])
def test_a_canary_decides_for_its_share_of_the_cards_always_the_same_ones(share):
    cards = Text.of([b"card-%06d" % i for i in range(50_000)])
    canary = CanaryModel("fraud/v5", released_model(), share)

    mine = canary.cards(cards)

    assert mine.mean() == pytest.approx(share, abs=4 * (share * (1 - share) / 50_000) ** 0.5)
    assert (canary.cards(cards.take(np.arange(49_999, -1, -1)))[::-1] == mine).all()
    assert not (mine & ~replace(canary, share=min(1.0, share + 0.01)).cards(cards)).any(), (
        "a card does not leave a share that grows"
    )
    others = replace(canary, release="fraud/v6").cards(cards)
    assert (mine & others).mean() == pytest.approx(share**2, abs=0.01), "the next canary has other cards"


@pytest.mark.parametrize("share", [0.3, 1 - 1e-9, 1e-12])
def test_each_transaction_is_decided_as_if_the_model_of_its_card_were_the_only_one(strict, share):
    keys, values = good(200)
    canary = CanaryModel("fraud/v5", strict, share)
    mine = dict(zip(keys, canary.cards(Text.of(keys)).tolist(), strict=True))
    alone = ScorerProcessor(strict, SAFE)
    expected = {True: by_offset(decide(keys, values, processor=alone)[2]["card-decisions"])}
    expected[False] = by_offset(decide(keys, values)[2]["card-decisions"])

    _, outcome, _ = decide(keys, values, processor=scorer(canary=canary))

    assert outcome.decided == len(keys)
    everything = [d for o in outcome.outputs if o.topic == "card-decisions" for d in map(decode_value, o.values)]
    assert len(everything) == len(keys)
    for decision in everything:
        one = by_offset([decision])[decision["source_offset"]]
        assert one == expected[mine[decision["card_id"].encode()]][decision["source_offset"]]
    versions = {d["model_version"] for d in everything}
    assert versions == ({"v4", "v5"} if share == 0.3 else {"v5"} if share > 0.5 else {"v4"})


def decode_value(value: Any) -> dict[str, Any]:
    return decode_record(value)[1]


def test_the_transactions_of_a_card_stay_in_their_order(strict):
    keys, values = good(200)
    _, outcome, _ = decide(keys, values, processor=scorer(canary=CanaryModel("fraud/v5", strict, 0.5)))

    places: dict[bytes, list[int]] = {}
    for output in outcome.outputs:
        if output.topic == "card-decisions":
            for key, value in zip(output.keys, output.values, strict=True):
                places.setdefault(key or b"", []).append(decode_value(value)["source_offset"])
    assert len(places) > 20
    assert all(found == sorted(found) for found in places.values())


def test_where_a_canary_raises_an_exception_the_live_model_decides_and_its_guard_hears_of_it(caplog):
    keys, values = good(120)
    processor = scorer(canary=CanaryModel("fraud/v9", Broken(), 0.5))
    expected = by_offset(decide(keys, values)[2]["card-decisions"])

    _, outcome, _ = decide(keys, values, processor=processor)

    found = [decode_value(v) for o in outcome.outputs if o.topic == "card-decisions" for v in o.values]
    assert by_offset(found) == expected
    assert "the live model decides" in caplog.text
    assert processor.watch is not None
    assert processor.watch.breach(Guards(error_share_max=0.0)) == "1 of 1 batches raised an exception"
    assert processor.watch.breach(Guards(error_share_max=1.0)) is None


# -- shadow ---------------------------------------------------------------------------------------------------------------


def test_a_shadow_says_what_it_would_have_done_and_changes_no_decision(strict):
    keys, values = good(150)
    rules = RuleEngine(RuleSet((Rule("large", "transaction.amount >= 100", Action.BLOCK),)))
    own = RuleEngine(RuleSet((Rule("all", "true", Action.REVIEW),)))
    processor = scorer(
        shadows=(ShadowModel("fraud/v5", strict), ShadowModel("fraud/v6", strict, rule_set_version=3, rules=own))
    )
    processor.adopt_rules(7, rules)
    live, alone, with_own = (ScorerProcessor(model, SAFE) for model in (released_model(), strict, strict))
    live.adopt_rules(7, rules)
    alone.adopt_rules(7, rules)
    with_own.adopt_rules(3, own)

    _, outcome, outputs = decide(keys, values, processor=processor)

    assert by_offset(outputs["card-decisions"]) == by_offset(decide(keys, values, processor=live)[2]["card-decisions"])
    decided = {d["source_offset"]: d for d in outputs["card-decisions"]}
    for release, version, only in (("fraud/v5", 7, alone), ("fraud/v6", 3, with_own)):
        expected = {d["source_offset"]: d for d in decide(keys, values, processor=only)[2]["card-decisions"]}
        shadow = [decode_value(v) for o in outcome.outputs if o.topic == SHADOW_DECISIONS for v in o.values]
        mine = [one for one in shadow if one["release"] == release]
        assert len(mine) == len(keys)
        for one in mine:
            would, did = expected[one["source_offset"]], decided[one["source_offset"]]
            for name in ("action", "score", "anomaly_score", "decided_by", "card_id", "event_time_ms", "source_offset"):
                assert one[name] == would[name], name
            assert (one["decided_action"], one["decided_score"]) == (did["action"], did["score"])
            assert (one["rule_set_version"], one["decided_at_ms"]) == (version, NOW_MS)
    assert {d["action"] for d in decided.values()} != {"CHALLENGE"}


def test_a_shadow_that_raises_an_exception_is_left_out_and_named(strict, caplog):
    keys, values = good(50)
    processor = scorer(shadows=(ShadowModel("fraud/v9", Broken()), ShadowModel("fraud/v5", strict)))
    expected = by_offset(decide(keys, values)[2]["card-decisions"])

    for _ in range(2):
        _, outcome, outputs = decide(keys, values, processor=processor)
        assert by_offset(outputs["card-decisions"]) == expected
        assert {
            decode_value(v)["release"] for o in outcome.outputs if o.topic == SHADOW_DECISIONS for v in o.values
        } == {"fraud/v5"}

    assert processor.shadows.failed == {"fraud/v9": "it raises ZeroDivisionError"}
    assert caplog.text.count("raises an exception") == 1


def test_what_canary_and_shadows_do_is_counted(strict):
    keys, values = good(200)
    canary = CanaryModel("fraud/v5", strict, 0.5)
    processor = scorer(canary=canary, shadows=(ShadowModel("fraud/v6", strict),))
    prepared, outcome, _ = decide(keys, values, processor=processor)
    metrics = MetricsRegistry(m.SCORER_METRICS)

    processor.measure(metrics, prepared, outcome, NOW_MS)

    counted = sum(metrics.value(m.CANARY_DECISIONS, action.name) for action in Action)
    assert counted == canary.cards(Text.of(keys)).sum()
    assert sum(metrics.value(m.SHADOW_DECISIONS, action.name) for action in Action) == len(keys)
    assert metrics.value(m.SHADOW_DECISIONS, "APPROVE") == 0
    assert sum(metrics.value(m.DECISIONS, action.name) for action in Action) == len(keys)


# -- guards ---------------------------------------------------------------------------------------------------------------


class Said:
    """What a model decided: as much of it as a watch looks at."""

    def __init__(self, actions: Any, scores: Any) -> None:
        self.actions, self.scores = np.asarray(actions), np.asarray(scores, float)


def watched(
    clock: ManualClock, batches: int, live: Said, canary: Said, took_s: tuple[float, float] = (0.01, 0.01)
) -> ReleaseWatch:
    watch = ReleaseWatch(clock.monotonic_s)
    for _ in range(batches):
        watch.decided(live, took_s[0], canary=False)  # type: ignore[arg-type]
        watch.decided(canary, took_s[1], canary=True)  # type: ignore[arg-type]
    return watch


def test_each_guard_is_breached_by_what_it_is_about_and_by_nothing_else():
    rng, clock = np.random.default_rng(3), ManualClock(0)
    usual = Said(rng.random(100) < 0.02, rng.beta(1, 8, 100))
    alerting = Said(rng.random(100) < 0.2, usual.scores)
    shifted = Said(usual.actions, rng.beta(3, 2, 100))
    guards = Guards(alert_share_max=0.1, score_shift_max=0.25, error_share_max=0.0, latency_max_ms=5.0)

    assert watched(clock, BATCHES_MIN, usual, usual).breach(guards) is None
    assert "are not APPROVE" in str(watched(clock, BATCHES_MIN, usual, alerting).breach(guards))
    assert "scores differ" in str(watched(clock, BATCHES_MIN, usual, shifted).breach(guards))
    assert "ms longer" in str(watched(clock, BATCHES_MIN, usual, usual, (0.010, 0.016)).breach(guards))
    for one in (alerting, shifted):
        assert watched(clock, BATCHES_MIN, usual, one, (0.010, 0.016)).breach(Guards()) is None


def test_a_few_decisions_say_nothing_and_what_was_long_ago_is_forgotten():
    clock, alert = ManualClock(0), Said([1], [0.9])
    guards = Guards(alert_share_max=0.1)
    watch = watched(clock, DECISIONS_MIN - 1, alert, alert)
    assert watch.breach(guards) is None
    watch.decided(alert, 0.01, canary=True)  # type: ignore[arg-type]
    assert watch.breach(guards) is not None

    clock.sleep(WINDOW_S + 1)
    watch.decided(alert, 0.01, canary=True)  # type: ignore[arg-type]
    assert watch.breach(guards) is None


def test_the_stability_index_is_that_of_the_book():
    expected, actual = np.array([100, 200, 300]), np.array([150, 150, 300])
    e, a = expected / 600, actual / 600
    assert stability_index(expected, actual) == pytest.approx(
        sum((y - x) * np.log(y / x) for x, y in zip(e, a, strict=True))
    )
    assert stability_index(expected, expected * 7) == pytest.approx(0)
    assert np.isfinite(stability_index(np.array([0, 5]), np.array([5, 0])))


def test_the_model_of_a_candidate_is_another_one(tmp_path: Path):
    assert load_model(candidate(tmp_path, "v7")).version == "v7"
