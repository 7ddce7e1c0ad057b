"""The fallback: what is decided when terminals, accounts, the model or the card's own profile are not at hand, and how it is made good."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from services.codec.reassessments import REQUESTS, decode_requests
from services.codec.records import decode_record
from services.codec.transactions import TOPIC, encode_transactions
from services.core.features import CARD_COLUMNS, FEATURE_NAMES
from services.core.policy import Action
from services.core.rules.engine import RuleEngine
from services.core.rules.rule_set import Rule, RuleSet
from services.decision.model_loader import RETRY_EVERY_S, ModelLoader
from services.decision.release_follower import ModelReleaseFollower, Tools
from services.decision.release_loading import ReleaseLoader
from services.inference import ModelError
from services.inference.artifact import load_model, load_small
from services.inference.released import live_model
from services.observer.view import alert_line
from services.reassessor.processor import ReassessorProcessor
from services.runtime import catalogue as m
from services.runtime.clock import ManualClock
from services.runtime.health import Health
from services.runtime.metrics import MetricsRegistry
from services.runtime.settings import resolve_settings
from services.scorer.processor import ScorerProcessor
from services.streams import Records, StreamsError
from services.worker.processor import NotYetError
from tests.decision.candidates import Later
from tests.generators import random_events, to_columns
from tests.worker.memory_system import (
    EVENTS,
    KAFKA_TIMESTAMP_MS,
    SAFE,
    MemorySystem,
    assert_same_end,
    nothing_known,
    reference,
    released_model,
)

NOW_MS = KAFKA_TIMESTAMP_MS + 5


def records_of(count: int = 40, topic: str = TOPIC, values=None, keys=None) -> Records:
    columns = to_columns(random_events(1, 2 * count, late_share=0))
    # Each once, within a day and in the order of their time: nothing is forgotten, and what comes later is not in the past of what came before.
    _, first = np.unique(columns.transaction_id, axis=0, return_index=True)
    columns = columns.take(np.sort(first)[:count])
    columns.event_time_ms[:] = columns.event_time_ms[0] + 1_000_003 * np.arange(count)
    values = encode_transactions(columns) if values is None else values
    keys, n = columns.card_id.tolist() if keys is None else keys, len(values)
    return Records(topic, np.zeros(n, np.int64), np.arange(n), np.full(n, KAFKA_TIMESTAMP_MS), keys, values)


def small_alone():
    return load_small(live_model())


def decide(processor, *, found=True, profiles=True):
    """Return the records of what is decided, by topic, and the outcome."""
    prepared = processor.prepare(records_of(), np.zeros(40, np.int64))
    known = nothing_known(prepared) if found else {}
    if profiles:
        outcome = processor.decide(prepared, [None] * len(prepared.cards), known, np.ones(40, bool), NOW_MS)
    else:
        outcome = processor.decide_without_profiles(prepared, known, NOW_MS)
    return {o.topic: [decode_record(v)[1] for v in o.values] for o in outcome.outputs}, outcome, prepared


def test_with_everything_at_hand_the_champion_decides_and_nobody_is_asked_to_look_again():
    outputs, _, _ = decide(ScorerProcessor(released_model(), SAFE))

    assert {d["fallback_tier"] for d in outputs["card-decisions"]} == {"CHAMPION"}
    assert REQUESTS not in outputs


@pytest.mark.parametrize(("model", "found"), [(released_model, False), (small_alone, True), (small_alone, False)])
def test_without_others_or_without_the_champion_the_small_booster_decides_and_says_so(model, found):
    outputs, _, _ = decide(ScorerProcessor(model(), SAFE), found=found)

    assert len(outputs["card-decisions"]) == 40
    for decision in outputs["card-decisions"]:
        assert (decision["fallback_tier"], decision["scored_by"]) == ("SMALL_MODEL", "small")
        vector = np.array([decision["features"]])
        assert released_model().small.predict(vector)[0] == decision["score"]
        assert ("REFERENCE_MISSED" in decision["degraded"]) == (not found)
        assert ("MODEL_MISSED" in decision["degraded"]) == (model is small_alone)


def test_the_small_booster_looks_at_nothing_that_others_know():
    rng = np.random.default_rng(5)
    vectors = rng.uniform(0, 200, (300, len(FEATURE_NAMES)))
    others = [j for j, name in enumerate(FEATURE_NAMES) if name.startswith(("terminal_", "account_", "customer_"))]
    blind = vectors.copy()
    blind[:, others] = np.nan

    np.testing.assert_array_equal(released_model().small.predict(vectors), released_model().small.predict(blind))


def test_without_a_model_rules_decide_and_where_none_holds_the_amount():
    processor = ScorerProcessor(None, SAFE)
    rules = (Rule("casino", "transaction.amount > 600", Action.BLOCK), Rule("by-score", "score >= 0", Action.BLOCK))
    processor.adopt_rules(3, RuleEngine(RuleSet(rules)))

    outputs, _, _ = decide(processor)

    seen = set()
    for decision in outputs["card-decisions"]:
        amount = decision["features"][0]
        by_rule = amount > 600
        by_amount = "REVIEW" if amount >= 300 else "CHALLENGE" if amount >= 30 else "APPROVE"
        expected = ("BLOCK", "RULE", "RULES") if by_rule else (by_amount, "DEFAULT", "SAFE_DEFAULT")
        assert (decision["action"], decision["decided_by"], decision["fallback_tier"]) == expected
        assert decision["score"] is decision["anomaly_score"] is decision["model"] is decision["scored_by"] is None
        assert decision["reasons"] == []
        seen.add(expected[0])
    assert seen == {"APPROVE", "CHALLENGE", "REVIEW", "BLOCK"}
    passing = [d["counterfactuals"][0] for d in outputs["card-decisions"] if d["action"] == "CHALLENGE"]
    assert all(one["changed"] == "amount" and one["amount_minor"] < 3_000 for one in passing)


def test_without_its_own_profile_a_card_is_not_taken_for_a_new_one():
    outputs, outcome, _ = decide(ScorerProcessor(released_model(), SAFE), profiles=False)

    assert len(outputs["card-decisions"]) == 40
    assert len(outcome.profiles) > 1
    for decision in outputs["card-decisions"]:
        assert decision["fallback_tier"] == "SAFE_DEFAULT"
        assert "PROFILE_MISSED" in decision["degraded"]
        assert decision["transaction_class"] != "FIRST_USE"
        assert np.isnan(np.array(decision["features"])[CARD_COLUMNS]).all()
    assert all(profile is None for profile in outcome.profiles)


def test_a_request_holds_the_decision_and_its_transaction_as_it_came():
    outputs, outcome, prepared = decide(ScorerProcessor(released_model(), SAFE), found=False)

    [sent] = [o for o in outcome.outputs if o.topic == REQUESTS]
    requests, rows, _ = decode_requests(sent.values)
    assert list(sent.keys) == prepared.records.keys
    assert requests.transactions == prepared.records.values
    assert len(rows) == len(outputs["card-decisions"]) == 40
    for i, decision in enumerate(outputs["card-decisions"]):
        assert requests.transaction_id[i].tobytes() == decision["transaction_id"]
        assert Action(requests.actions[i]).name == decision["action"]
        assert requests.scores[i] == decision["score"]
        assert requests.source_offset[i] == decision["source_offset"]


@pytest.mark.parametrize(
    ("model", "words"), [(small_alone, "by the small model"), (lambda: None, "by the amount alone")]
)
def test_people_read_of_a_lower_tier_in_an_alert(model, words):
    outputs, _, _ = decide(ScorerProcessor(model(), SAFE), found=False)

    assert outputs["card-alerts"]
    for alert in outputs["card-alerts"]:
        line = alert_line(alert)
        assert words in line
        assert ("-----" in line) == (alert["score"] is None)


# -- assessed again ------------------------------------------------------------------------------------------------------


def requests_of_the_small_booster():
    """The requests that come with decisions of the small booster, and the cards' profiles after them."""
    _, outcome, prepared = decide(ScorerProcessor(released_model(), SAFE), found=False)
    [sent] = [o for o in outcome.outputs if o.topic == REQUESTS]
    profiles = dict(zip(prepared.cards, outcome.profiles, strict=True))
    return records_of(topic=REQUESTS, values=sent.values, keys=sent.keys), profiles


def requests_and_profiles():
    """The same, with the decisions."""
    outputs, _, _ = decide(ScorerProcessor(released_model(), SAFE), found=False)
    return outputs["card-decisions"], *requests_of_the_small_booster()


def reassess(records, profiles, *, applied=40, processor=None, missing=()):
    processor = processor or ReassessorProcessor(released_model(), SAFE)
    prepared = processor.prepare(records, np.zeros(len(records), np.int64))
    found, cards = nothing_known(prepared), prepared.lookups[TOPIC].tolist()
    folded = np.full(len(cards), applied)
    found[TOPIC] = replace(found[TOPIC], profiles=[profiles.get(card) for card in cards], applied=folded)
    found = {topic: one for topic, one in found.items() if topic not in missing}
    outcome = processor.decide(prepared, [], found, np.ones(len(records), bool), NOW_MS + 1_000)
    return {o.topic: [decode_record(v)[1] for v in o.values] for o in outcome.outputs}, outcome, prepared


def test_what_is_assessed_again_is_what_would_have_been_decided_with_everything_at_hand():
    whole, _, _ = decide(ScorerProcessor(released_model(), SAFE))
    decided, requests, profiles = requests_and_profiles()

    outputs, _, _ = reassess(requests, profiles)

    again = outputs["card-reassessments"]
    assert len(again) == len(decided) == 40
    unlike = {"decided_at_ms", "control_propensity", "control_action"}
    for before, now, would in zip(decided, again, whole["card-decisions"], strict=True):
        assert (now["decided_action"], now["decided_score"], now["decided_fallback_tier"]) == (
            before["action"], before["score"], "SMALL_MODEL",
        )  # fmt: skip
        assert (now["decided_at_ms"], now["reassessed_at_ms"]) == (NOW_MS, NOW_MS + 1_000)
        same = {name: value for name, value in would.items() if name not in unlike}
        assert repr({name: now[name] for name in same}) == repr(same)


def test_nothing_is_assessed_again_before_everything_is_there():
    _, requests, profiles = requests_and_profiles()

    with pytest.raises(NotYetError, match="not folded"):
        reassess(requests, profiles, applied=39)
    with pytest.raises(NotYetError, match="accounts"):
        reassess(requests, profiles, missing={"accounts"})
    for model in (None, small_alone()):
        with pytest.raises(NotYetError, match="model"):
            reassess(requests, profiles, processor=ReassessorProcessor(model, SAFE))


def test_a_request_that_is_none_becomes_a_dead_letter_and_the_others_are_assessed():
    _, requests, profiles = requests_and_profiles()
    values = [b"rubbish", requests.values[1][:-3], *requests.values[2:]]
    damaged = records_of(topic=REQUESTS, values=values, keys=requests.keys)

    outputs, outcome, prepared = reassess(damaged, profiles)

    assert [letter["reason"] for letter in outputs["dead-letters"]] == ["BAD_FRAMING", "MALFORMED"]
    assert len(outputs["card-reassessments"]) == 38
    metrics = MetricsRegistry(m.REASSESSOR_METRICS)
    ReassessorProcessor(None, SAFE).measure(metrics, prepared, outcome, NOW_MS)
    counted = sum(metrics.value(m.REASSESSED, a.name, b.name) for a in Action for b in Action)
    assert counted == 38


# -- a model that comes and goes -------------------------------------------------------------------------------------------


def test_a_release_is_used_as_far_as_it_can_be_and_tried_again_until_all_of_it_can(tmp_path):
    for path in live_model().iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    clock, adopted = ManualClock(0), []
    health, metrics = Health(clock, {"model_verified": False}), MetricsRegistry(m.SCORER_METRICS)
    settings = resolve_settings({"model_path": str(tmp_path)}, {})
    loader = ReleaseLoader(lambda: tmp_path, Later(), clock.monotonic_s)
    tools = Tools(clock, metrics, health)
    follower = ModelReleaseFollower(settings.kafka, "w", tools, loader, ScorerProcessor(None, SAFE))

    def adopt(model: Any) -> None:
        adopted.append(model)
        follower.adopt_base(model)

    keeper = ModelLoader(settings, clock, adopt)
    whole = (tmp_path / "champion.json").read_bytes()
    small = (tmp_path / "small.json").read_bytes()

    (tmp_path / "champion.json").write_bytes(whole[:-10])
    keeper.load()
    assert (adopted[-1].champion, adopted[-1].version) == (None, load_model(live_model()).version)
    (tmp_path / "small.json").unlink()
    keeper.load()
    assert adopted[-1] is None
    assert not health.conditions["model_verified"]
    assert metrics.value(m.MODEL_COMPLETE) == 0
    (tmp_path / "champion.json").write_bytes(whole)
    (tmp_path / "small.json").write_bytes(small)
    keeper.turn()
    assert adopted[-1] is None
    clock.sleep(RETRY_EVERY_S + 1)
    keeper.turn()
    assert adopted[-1].champion is not None
    assert health.conditions["model_verified"]
    assert metrics.value(m.MODEL_COMPLETE) == 1
    keeper.turn()
    assert len(adopted) == 3
    with pytest.raises(ModelError):
        load_small(tmp_path / "nowhere")


# -- without the grid --------------------------------------------------------------------------------------------------------


def drain_in_time(system: MemorySystem, worker) -> None:
    """Drain while time passes: an idle worker finds out by its next probe that the grid is back."""
    for turn in range(40):
        worker.turn()
        system.clock.sleep(0.5)
        if turn == 30:
            system.grid.available = True
    system.drain(worker)


def run_without_grid(away_from: int, back_after: int) -> tuple[MemorySystem, list[str]]:
    """Run with a grid that is away for some turns; return the system and the fallback tiers of its decisions in their order."""
    system = MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    worker, source = system.worker(without_profiles="fallback")
    source.keep_alive = lambda _: pytest.fail("waited for the grid")  # type: ignore[method-assign]
    for turn in range(away_from + back_after):
        system.grid.available = turn < away_from
        worker.turn()
    system.grid.available = True
    del source.keep_alive
    system.drain(worker)
    return system, [decision["fallback_tier"] for decision in system.records("card-decisions")]


@pytest.mark.parametrize("away_from", [1, 2, 3])
def test_a_worker_that_is_set_to_goes_on_without_the_grid_and_folds_what_it_missed(away_from):
    expected = reference()

    system, tiers = run_without_grid(away_from, 3)

    assert "SAFE_DEFAULT" in tiers
    assert tiers.count("CHAMPION") > 10
    decisions = system.decisions()
    assert decisions.keys() == expected.decisions().keys()
    assert all(len(one) == 1 for one in decisions.values())
    assert system.grid.profiles == expected.grid.profiles
    assert len(system.records(REQUESTS)) == len(tiers) - tiers.count("CHAMPION")


def test_a_worker_that_begins_again_while_the_grid_is_away_goes_on_with_what_it_had():
    expected, system = reference(), MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    failing = {"end_commit": False}

    def wire(name, request):
        if failing.get(name):
            failing[name] = False
            raise StreamsError("the answer is lost")
        return request()

    worker, source = system.worker(wire, without_profiles="fallback")
    waited = source.keep_alive
    worker.turn()
    worker.turn()
    system.grid.available = False
    source.keep_alive = lambda _: pytest.fail("waited for the grid")  # type: ignore[method-assign]
    worker.turn()
    failing["end_commit"] = True
    decided = len(system.records("card-decisions"))
    for _ in range(5):
        worker.turn()
    assert not failing["end_commit"]
    assert len(system.records("card-decisions")) > decided + 16
    system.grid.available = True
    source.keep_alive = waited  # type: ignore[method-assign]

    drain_in_time(system, worker)

    assert_same_end(expected, system)


def test_a_grid_that_is_away_for_a_write_alone_is_caught_up_with():
    expected, system = reference(), MemorySystem()
    system.produce(to_columns(random_events(1, EVENTS, cards=6)))
    fails = iter([True] + [False] * 1_000)

    def wire(name, request):
        if name == "apply" and next(fails):
            system.grid.available = False
            try:
                return request()
            finally:
                system.grid.available = True
        return request()

    worker, _ = system.worker(wire, without_profiles="fallback")

    drain_in_time(system, worker)

    assert_same_end(expected, system)


@pytest.mark.parametrize("failing", range(1, 8))
def test_a_grid_that_fails_while_the_past_is_folded_again_leads_no_decision_astray(failing):
    """One partition's past is still being folded when the other one's decisions go on without the grid."""
    first, second = (to_columns(random_events(seed, EVENTS, cards=6)) for seed in (1, 2))
    second.transaction_id[:, 12] = 7
    expected, system = MemorySystem(), MemorySystem()
    for one in (expected, system):
        one.produce(first)
        worker, _ = one.worker()
        one.drain(worker)
        one.produce(second)
    expected.drain(worker := expected.worker()[0])
    for key in [key for key in system.grid.metas if key[1] == 0]:
        system.grid.metas.pop(key)
        system.grid.profiles.pop(key)
    applies, away = iter(range(1, 1_000)), iter([3])

    def wire(name, request):
        if name == "apply" and next(applies) == failing:
            system.grid.available = False
        if not system.grid.available and name != "apply" and next(away, None) is None:
            system.grid.available = True
        return request()

    worker, _ = system.worker(wire, without_profiles="fallback")

    drain_in_time(system, worker)

    assert_same_end(expected, system)
