"""The scorer's decisions: what bad input becomes, and what decisions, alerts and dead letters hold."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from services.codec.records import decode_record
from services.codec.schemas import MAGIC, topics
from services.codec.transactions import TOPIC, encode_transactions
from services.core.classes import TransactionClass, classify
from services.core.features import FEATURE_NAMES, FEATURE_SET_HASH
from services.core.money import EXPONENTS
from services.core.policy import Action
from services.core.rules.engine import RuleEngine
from services.core.rules.rule_set import Mode, Rule, RuleSet
from services.inference import ModelError
from services.inference.artifact import load_model
from services.inference.released import live_model
from services.runtime import catalogue as m
from services.runtime.logs import transaction_token
from services.runtime.metrics import MetricsRegistry
from services.scorer.processor import ScorerProcessor
from services.streams import Output, Records
from services.worker.processor import LateOutputs
from tests.generators import random_events, to_columns
from tests.worker.memory_system import KAFKA_TIMESTAMP_MS, SAFE, nothing_known, released_model

NOW_MS = KAFKA_TIMESTAMP_MS + 5


def records_of(keys, values) -> Records:
    n = len(values)
    return Records(TOPIC, np.zeros(n, np.int64), np.arange(n), np.full(n, KAFKA_TIMESTAMP_MS), keys, values)


def decide(keys, values, emit=None, processor=None):
    processor = processor or ScorerProcessor(released_model(), SAFE)
    prepared = processor.prepare(records_of(keys, values), np.zeros(len(values), np.int64))
    emitted = np.ones(len(values), bool) if emit is None else emit
    outcome = processor.decide(prepared, [None] * len(prepared.cards), nothing_known(prepared), emitted, NOW_MS)
    return prepared, outcome, {o.topic: [decode_record(v)[1] for v in o.values] for o in outcome.outputs}


def good(count: int, seed: int = 1):
    columns = to_columns(random_events(seed, count, late_share=0))
    return columns.card_id.tolist(), encode_transactions(columns)


BAD = {
    "EMPTY": (b"card-1", None),
    "TOO_LARGE": (b"card-1", b"\xc3\x01" + b"x" * 9_000),
    "BAD_FRAMING": (b"card-1", b'{"card_id": "card-1"}'),
    "UNKNOWN_FINGERPRINT": (b"card-1", MAGIC + b"\x01" * 60),
    "WRONG_SCHEMA": (b"card-1", topics()["card-alerts"].latest.header + b"x" * 60),
    "MALFORMED": (b"card-1", topics()[TOPIC].latest.header + b"\x01"),
    "TRAILING_BYTES": (b"card-1", "good + x"),
    "NULL_KEY": (None, "good"),
    "KEY_MISMATCH": (b"card-77", "good"),
}


@pytest.mark.parametrize("reason", BAD)
def test_each_kind_of_bad_record_becomes_one_dead_letter_and_its_neighbours_are_decided_as_if_it_were_not_there(reason):
    keys, values = good(20)
    key, value = BAD[reason]
    value = {"good": values[7], "good + x": values[7] + b"x"}.get(value, value) if isinstance(value, str) else value
    _, _, clean = decide(keys, values)

    _, _, outputs = decide([*keys[:7], key, *keys[7:]], [*values[:7], value, *values[7:]])

    [letter] = outputs["dead-letters"]
    assert (letter["reason"], letter["source_offset"]) == (reason, 7)
    assert letter["value_bytes"] == len(value or b"")
    volatile = {"source_offset": None}
    assert [d | volatile for d in map(_comparable, outputs["card-decisions"])] == [
        d | volatile for d in map(_comparable, clean["card-decisions"])
    ]


def _comparable(decision: dict) -> dict:
    return {name: repr(value) for name, value in decision.items()}


def test_a_batch_of_nothing_but_bad_records_gives_only_dead_letters():
    _, outcome, outputs = decide([b"a", None], [b"x", b""])

    assert outputs.keys() == {"dead-letters"}
    assert outcome.decided == 0


def test_what_is_logged_of_a_refused_record_names_its_transaction_by_a_token_alone():
    keys, values = good(3)
    _, outcome, _ = decide([keys[0], b"another card", b"x"], [*values[:2], b"4111111111111111"])

    reported = outcome.notices
    assert [(n["reason"], n["partition"], n["offset"]) for n in reported] == [
        ("KEY_MISMATCH", 0, 1),
        ("BAD_FRAMING", 0, 2),
    ]
    refused_id = decode_record(values[1])[1]["transaction_id"]
    assert reported[0]["transaction"] == transaction_token(
        refused_id if isinstance(refused_id, bytes) else refused_id.bytes
    )
    assert "transaction" not in reported[1]


def test_a_dead_letter_keeps_its_bytes_with_card_numbers_masked():
    _, _, outputs = decide([b"4111111111111111"], [b'{"pan": "4111-1111-1111-1111", "n": 12}'])

    [letter] = outputs["dead-letters"]
    assert letter["value"] == b'{"pan": "****-****-****-****", "n": 12}'
    assert letter["key"] == b"*" * 16


def test_a_decision_says_on_what_grounds_it_was_made():
    keys, values = good(30)
    _, _, outputs = decide(keys, values)
    model = released_model()

    assert len(outputs["card-decisions"]) == 30
    for offset, decision in enumerate(outputs["card-decisions"]):
        assert (decision["source_topic"], decision["source_partition"], decision["source_offset"]) == (TOPIC, 0, offset)
        assert (decision["model"], decision["model_version"]) == (model.name, model.version)
        assert decision["feature_set_hash"] == FEATURE_SET_HASH
        assert decision["decided_at_ms"] == NOW_MS
        assert decision["source_timestamp_ms"] == KAFKA_TIMESTAMP_MS
        vector = np.array([decision["features"]])
        assert vector.shape == (1, len(FEATURE_NAMES))
        assert model.champion.predict(vector)[0] == decision["score"]
        assert model.anomaly.score(vector)[0] == decision["anomaly_score"]
        by_model = Action(model.champion.actions(classify(vector), np.array([decision["score"]]))[0])
        assert decision["transaction_class"] == TransactionClass(classify(vector)[0]).name
        assert (decision["fallback_tier"], decision["scored_by"]) == ("CHAMPION", "champion")
        anomalous = by_model == Action.APPROVE and decision["anomaly_score"] >= model.anomaly.review
        assert (decision["action"], decision["decided_by"]) == (
            ("REVIEW", "ANOMALY") if anomalous else (by_model.name, "MODEL")
        )
        assert bool(decision["reasons"]) <= (decision["action"] != "APPROVE")


def alerting_batch():
    """A card that tests the water ten times within a minute, and then goes for a large amount at night."""
    events = random_events(8, 12, cards=1, late_share=0, dense=True)
    keys, values = [], []
    columns = to_columns(events)
    columns.event_time_ms[:] = (
        columns.event_time_ms[0] // 86_400_000 * 86_400_000 + 7_200_000 + 5_000 * np.arange(len(columns))
    )
    columns.billing_amount_minor[:] = 120
    columns.billing_amount_minor[-1] = 80_000
    columns.entry_mode[:] = 3
    keys, values = columns.card_id.tolist(), encode_transactions(columns)
    return decide(keys, values)


def test_every_decision_that_is_not_approve_has_an_alert_with_reasons_in_words_and_no_other_has():
    _, _, outputs = alerting_batch()

    flagged = [d for d in outputs["card-decisions"] if d["action"] != "APPROVE"]
    assert flagged
    assert [a["decision_id"] for a in outputs["card-alerts"]] == [d["decision_id"] for d in flagged]
    for alert, decision in zip(outputs["card-alerts"], flagged, strict=True):
        assert alert["reasons"] == decision["reasons"] != []
        assert alert["counterfactuals"] == decision["counterfactuals"]
        assert (alert["rules"], decision["rule_set_version"]) == ([], None)
        assert all(r["text"] and r["weight"] > 0 and r["code"] in FEATURE_NAMES for r in alert["reasons"])
        assert [r["weight"] for r in alert["reasons"]] == sorted((r["weight"] for r in alert["reasons"]), reverse=True)
        assert alert["severity"] == {"CHALLENGE": "LOW", "REVIEW": "MEDIUM", "BLOCK": "HIGH"}[alert["action"]]
        assert alert["kind"] == "FRAUD"


def test_rules_change_what_is_decided_from_the_next_batch_on_and_decisions_name_them():
    rules = (
        Rule("allow", "transaction.amount < 30", Action.APPROVE, priority=1),
        Rule("block", "transaction.amount >= 100", Action.BLOCK, reason="a hundred and more"),
        Rule("shadow", "true", Action.BLOCK, mode=Mode.SHADOW),
    )
    keys, values = good(60)
    processor = ScorerProcessor(released_model(), SAFE)
    without = decided_with(processor, keys, values)
    processor.adopt_rules(7, RuleEngine(RuleSet(rules)))
    with_rules = decided_with(processor, keys, values)
    processor.adopt_rules(0, None)

    assert [d["action"] for d in decided_with(processor, keys, values)] == [d["action"] for d in without]
    for before, decision in zip(without, with_rules, strict=True):
        amount = decision["features"][0]
        held = {rule["rule_id"]: rule["effect"] for rule in decision["rules"]}
        assert held == {"shadow": "RECORDED"} | ({"allow": "DECIDED"} if amount < 30 else {}) | (
            {"block": "DECIDED"} if amount >= 100 else {}
        )
        expected = "APPROVE" if amount < 30 else "BLOCK" if amount >= 100 else before["action"]
        assert (decision["action"], decision["rule_set_version"]) == (expected, 7)
        assert decision["decided_by"] == (before["decided_by"] if expected == before["action"] else "RULE")
    assert {decision["action"] for decision in with_rules} >= {"APPROVE", "BLOCK"}


def test_a_batch_that_is_encoded_late_says_what_it_would_have_said_at_once():
    """Its outputs are encoded while the next one is decided, which may be by another model and other rules."""
    keys, values = good(60)
    processor = ScorerProcessor(released_model(), SAFE)
    processor.adopt_rules(7, RuleEngine(RuleSet((Rule("block", "transaction.amount >= 100", Action.BLOCK),))))
    at_once = decided_with(processor, keys, values)
    prepared = processor.prepare(records_of(keys, values), np.zeros(60, np.int64))
    emit = np.ones(60, bool)
    outcome = processor.decide(prepared, [None] * len(prepared.cards), nothing_known(prepared), emit, NOW_MS)
    processor.adopt_rules(8, RuleEngine(RuleSet((Rule("pass", "true", Action.APPROVE),))))
    processor.adopt_model(None)
    assert all(d["rule_set_version"] == 8 for d in decided_with(processor, keys, values))

    late = [decode_record(value)[1] for value in outcome.outputs[0].values]

    assert list(map(_comparable, late)) == list(map(_comparable, at_once))
    assert {d["rule_set_version"] for d in late} == {7}


def test_whether_a_batch_has_outputs_is_known_before_they_are_encoded_and_they_are_encoded_once():
    encoded = []

    def encode():
        encoded.append(Output("decisions", [b"k"], [b"v"]))
        return encoded

    letters = [Output("dead-letters", [None], [b"x"])]
    outputs = LateOutputs(True, encode, letters)

    assert outputs
    assert not encoded
    assert list(outputs) == list(outputs) == [*encoded, *letters]
    assert len(encoded) == 1
    assert LateOutputs(False, list, letters)
    assert not LateOutputs(False, list, [])


def decided_with(processor: ScorerProcessor, keys: list, values: list) -> list[dict]:
    _, _, outputs = decide(keys, values, processor=processor)
    return outputs["card-decisions"]


def test_records_that_are_only_folded_give_no_output_but_the_same_profiles():
    keys, values = good(20)
    keys, values = [*keys, b"bad"], [*values, b"bad"]

    _, outcome, outputs = decide(keys, values, np.zeros(21, bool))

    _, whole, _ = decide(keys, values)
    assert outputs == {}
    assert outcome.profiles == whole.profiles
    assert (outcome.decided, outcome.folded_only) == (0, 21)


def outputs_of(outcome, topic):
    return [decode_record(v)[1] for o in outcome.outputs if o.topic == topic for v in o.values]


def test_metrics_count_what_was_decided():
    metrics, processor = MetricsRegistry(), ScorerProcessor(released_model(), SAFE)
    keys, values = good(20)
    minor_of = {t["transaction_id"]: t["billing_amount_minor"] for t in (decode_record(v)[1] for v in values)}
    records = records_of([*keys, keys[0], b"x"], [*values, values[0], b""])
    prepared = processor.prepare(records, np.zeros(len(records), np.int64))
    outcome = processor.decide(
        prepared, [None] * len(prepared.cards), nothing_known(prepared), np.ones(22, bool), NOW_MS
    )

    processor.measure(metrics, prepared, outcome, NOW_MS)

    assert sum(metrics.value(m.DECISIONS, a.name) for a in Action) == 21
    assert metrics.value(m.DEAD_LETTERS, "EMPTY") == 1
    repeats = sum(bool(f) for part in outcome.parts for f in part.decided.repeat)
    assert metrics.value(m.REPEATS) == repeats >= 1
    for action in Action:
        decided = [d for d in outputs_of(outcome, "card-decisions") if d["action"] == action.name]
        billed = {c: metrics.value(m.AMOUNT, action.name, c) for c in EXPONENTS}
        assert sum(round(amount * 10 ** EXPONENTS[c]) for c, amount in billed.items()) == sum(
            minor_of[d["transaction_id"]] for d in decided
        )


def golden(change: Callable[[dict[str, list]], dict[str, list]]) -> Callable[[bytes], bytes]:
    return lambda raw: json.dumps(change(json.loads(raw))).encode()


@pytest.mark.parametrize(
    ("name", "damage", "why"),
    [
        ("champion.json", lambda raw: raw + b" ", "SHA-256"),
        ("champion.json", None, "missing"),
        ("small.json", None, "missing"),
        ("manifest.json", lambda raw: raw.replace(b"card_count_10m", b"card_count_11m"), "feature set"),
        ("manifest.json", lambda raw: raw.replace(b'"challenge":', b'"challenge": 2, "x":'), "manifest"),
        ("manifest.json", lambda raw: raw[:-20], "not JSON"),
        ("manifest.json", lambda raw: raw.replace(b'"CASH"', b'"CHEQUE"', 1), "manifest"),
        (
            "manifest.json",
            lambda raw: raw.replace(
                b'"FIRST_USE": {\n      "booster": "champion"', b'"FIRST_USE": {\n      "booster": "nobody"'
            ),
            "not there",
        ),
        ("golden.json", lambda raw: raw.replace(b"0x1.", b"0x1.0", 1), "golden"),
        ("golden.json", lambda _: b'{"vectors": [], "scores": []}', "golden"),
        ("golden.json", golden(lambda one: one | {"scores": []}), "score alike"),
        ("golden.json", golden(lambda one: one | {"scores": one["scores"][:-1]}), "golden rows are others"),
        ("golden.json", golden(lambda one: one | {"scores": ["nan"] * len(one["scores"])}), "score alike"),
        (
            "golden.json",
            golden(lambda one: one | {"small_scores": ["nan"] * len(one["scores"])}),
            "golden rows are others",
        ),
        ("golden.json", golden(lambda one: {n: values[:1] * 9 for n, values in one.items()}), "score alike"),
    ],
)
def test_a_model_that_was_changed_is_refused(tmp_path, name, damage, why):
    for path in live_model().iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    if damage is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))

    with pytest.raises(ModelError, match=why):
        load_model(tmp_path)


def test_scores_do_not_depend_on_the_batch_they_are_in():
    rng, model = np.random.default_rng(4), released_model()
    vectors = rng.uniform(0, 300, (200, len(FEATURE_NAMES)))
    vectors[rng.random(vectors.shape) < 0.2] = np.nan

    one_by_one = np.concatenate([model.champion.predict(row[None]) for row in vectors])

    np.testing.assert_array_equal(one_by_one, model.champion.predict(vectors))
    assert model.champion.explain(vectors[:3]).shape == (3, len(FEATURE_NAMES))
    assert model.champion.predict(vectors[:0]).shape == (0,)
