"""The control group in decisions: some of what model or anomaly score alone would stop is let through, marked; nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from services.core.control import ControlGroup
from services.core.policy import Action
from services.core.rules.engine import RuleEngine
from services.core.rules.rule_set import Rule, RuleSet
from services.inference.artifact import load_model
from services.runtime import catalogue as m
from services.runtime.metrics import MetricsRegistry
from services.scorer.processor import ScorerProcessor
from tests.decision.candidates import candidate
from tests.decision.test_releases import SAFE, STRICT, by_offset, good
from tests.scorer.test_scorer import NOW_MS, decide

RULES = (
    Rule("allow", "transaction.amount < 20", Action.APPROVE),
    Rule("block", "transaction.amount > 1500", Action.BLOCK),
    Rule("never", "transaction.amount > 100 && transaction.amount < 150", Action.APPROVE, mode=1, no_control=True),  # type: ignore[arg-type]
)
MARKS = ("action", "control_propensity", "control_action", "reasons", "counterfactuals")


@pytest.fixture(scope="module")
def strict(tmp_path_factory: Any) -> Any:
    return load_model(candidate(tmp_path_factory.mktemp("models"), challenge=STRICT))


def scorer(model: Any, group: ControlGroup | None) -> ScorerProcessor:
    processor = ScorerProcessor(model, SAFE)
    processor.engine = replace(processor.engine, control=group)
    processor.adopt_rules(7, RuleEngine(RuleSet(RULES)))
    return processor


def decisions(processor: ScorerProcessor) -> list[dict[str, Any]]:
    return decide(*good(400), processor=processor)[2]["card-decisions"]


def test_what_is_let_through_is_marked_and_everything_else_is_as_without(strict):
    before = {d["source_offset"]: d for d in decisions(scorer(strict, None))}
    group = ControlGroup(0.4, 1_000.0, "a key")
    after = {d["source_offset"]: d for d in decisions(scorer(strict, group))}

    let_through = 0
    for offset, was in before.items():
        now, amount = after[offset], was["features"][0]
        assert (was["control_propensity"], was["control_action"]) == (None, None)
        assert all(repr(now[name]) == repr(was[name]) for name in was if name not in MARKS)
        could = was["action"] != "APPROVE" and was["decided_by"] in ("MODEL", "ANOMALY") and amount <= 1_000
        could = could and not 100 < amount < 150
        assert now["control_propensity"] == (0.4 if could else None)
        drawn = could and bool(group.drawn(np.frombuffer(was["transaction_id"], np.uint8)[None, :])[0])
        assert now["control_action"] == (was["action"] if drawn else None)
        assert now["action"] == ("APPROVE" if drawn else was["action"])
        let_through += drawn
    assert let_through > 20
    assert {d["action"] for d in after.values()} >= {"APPROVE", "BLOCK", "CHALLENGE"}


def test_nobody_hears_of_what_was_let_through_and_it_is_counted(strict):
    processor = scorer(strict, ControlGroup(1.0, 1e9, "a key"))
    prepared, outcome, outputs = decide(*good(400), processor=processor)
    stopped = [d["decision_id"] for d in outputs["card-decisions"] if d["action"] != "APPROVE"]
    let_through = [d for d in outputs["card-decisions"] if d["control_action"]]
    assert let_through
    assert [a["decision_id"] for a in outputs.get("card-alerts", [])] == stopped
    metrics = MetricsRegistry(m.SCORER_METRICS)
    processor.measure(metrics, prepared, outcome, NOW_MS)
    assert sum(metrics.value(m.CONTROL_DECISIONS, action.name) for action in Action) == len(let_through)
    assert metrics.value(m.CONTROL_DECISIONS, "APPROVE") == 0


def test_a_share_of_0_is_no_group(strict):
    nothing = by_offset(decisions(scorer(strict, ControlGroup(0.0, 1e9, "a key"))))
    without = by_offset(decisions(scorer(strict, None)))
    assert without
    for offset, one in without.items():
        assert {n: v for n, v in nothing[offset].items() if n != "control_propensity"} == {
            n: v for n, v in one.items() if n != "control_propensity"
        }
