"""Models on a real Kafka with running scorers: shadow, canary, live and back while transactions flow; nothing lost, nothing twice."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from services.codec.records import decode_record
from services.core.columns import Text
from services.decision.releases import CanaryModel
from tests.decision.candidates import candidate
from tests.integration.system import check_everything, produce, read_all, scorers, traffic_of, wait_drained
from tests.worker.memory_system import released_model


@pytest.fixture
def models(proact):
    def call(stack, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        where = ["--kafka-bootstrap-servers", stack.kafka_address]
        where += ["--models-path", str(folder)] if arguments[0] in ("release", "promote") else []
        said = [*proact, "models", *arguments, *where]
        return subprocess.run(said, capture_output=True, text=True, check=False, timeout=120)

    return call


def last(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return json.loads(done.stdout.splitlines()[-1])


def decisions_of(stack, topic: str = "card-decisions") -> list[dict[str, Any]]:
    return [decode_record(value or b"")[1] for _, _, _, value in read_all(stack, topic)]


def test_a_model_goes_from_the_shadow_to_all_cards_and_back_while_transactions_flow(own_stack, tmp_path, models):
    stack, folder = own_stack(), tmp_path / "models"
    candidate(folder, "v5", challenge=1e-9)
    cards = 200

    def flow(seed: int) -> None:
        produce(stack, traffic_of(1_000, cards=cards, seed=seed))
        wait_drained(stack)

    with scorers(stack, tmp_path, 2, models_path=str(folder)) as children:
        for child in children:
            child.wait_ready()
        flow(1)
        shadow = models(stack, folder, "release", "fraud/v5", "--stage", "shadow", "--author", "ana")
        flow(2)
        asked = models(stack, folder, "release", "fraud/v5", "--stage", "canary", "--share", "0.3", "--author", "ana")
        alone = models(stack, folder, "approve", "fraud/v5", "--author", "ana")
        flow(3)
        canary = models(stack, folder, "approve", "fraud/v5", "--author", "bo")
        flow(4)
        models(stack, folder, "promote", "fraud/v5", "--author", "ana")
        live = models(stack, folder, "approve", "fraud/v5", "--author", "bo")
        status = json.loads(models(stack, folder, "status", "--json").stdout)
        shown = models(stack, folder, "status").stdout
        flow(5)
        back = models(stack, folder, "rollback", "--reason", "too many challenges")
        flow(6)

    assert shadow.returncode == 0, shadow.stderr
    assert (last(shadow)["workers"], last(shadow)["stage"]) == (2, "SHADOW")
    assert last(asked)["waits_for_approval"] == "CANARY"
    assert alone.returncode == 1
    assert "another person" in alone.stderr
    for done, stage in ((canary, "CANARY"), (live, "LIVE"), (back, "WITHDRAWN")):
        assert done.returncode == 0, done.stderr
        assert (last(done)["stage"], last(done)["workers"], last(done)["waiting"]) == (stage, 2, 0)
    assert status["live"] == "fraud/v5"
    assert {worker["live"] for worker in status["workers"]} == {"fraud/v5"}
    assert "approved by bo" in shown
    assert check_everything(stack) == {"inputs": 6_000, "decided": 6_000, "refused": 0}

    decisions = decisions_of(stack)
    by_offset = sorted(decisions, key=lambda d: (d["source_partition"], d["source_offset"]))
    versions = Counter(d["model_version"] for d in by_offset)
    mine = CanaryModel("fraud/v5", released_model(), 0.3)
    phases: dict[int, list[dict[str, Any]]] = {phase: [] for phase in range(6)}
    sent = Counter()  # type: ignore[var-annotated]
    for decision in sorted(decisions, key=lambda d: d["source_timestamp_ms"]):
        phases[sent.total() // 1_000].append(decision)
        sent["all"] += 1
    for phase in (0, 1, 2, 5):
        assert {d["model_version"] for d in phases[phase]} == {"v4"}, phase
    assert {d["model_version"] for d in phases[4]} == {"v5"}
    for decision in phases[3]:
        is_mine = bool(mine.cards(Text.of([decision["card_id"].encode()]))[0])
        assert decision["model_version"] == ("v5" if is_mine else "v4")
    assert versions["v5"] > 1_000
    shadows = decisions_of(stack, "shadow-decisions")
    assert {one["transaction_id"] for one in shadows} == {d["transaction_id"] for p in (1, 2) for d in phases[p]}
    assert len(shadows) == 2_000
    assert {one["action"] for one in shadows} >= {"CHALLENGE"}
    assert "APPROVE" not in {one["action"] for one in shadows}


def test_a_release_whose_files_are_not_there_changes_nothing_and_is_reported_by_the_worker(own_stack, tmp_path, models):
    stack, folder, elsewhere = own_stack(), tmp_path / "models", tmp_path / "elsewhere"
    candidate(folder, "v5", challenge=1e-9)
    elsewhere.mkdir()
    with scorers(stack, tmp_path, models_path=str(elsewhere)) as [child]:
        child.wait_ready()
        refused = models(stack, folder, "release", "fraud/v5", "--stage", "shadow", "--wait-s", "20")
        unknown = models(stack, folder, "release", "fraud/v77", "--stage", "shadow")
        no_share = models(stack, folder, "release", "fraud/v5", "--stage", "canary")
        produce(stack, traffic_of(300))
        wait_drained(stack)

    assert refused.returncode == 1
    assert "is missing" in refused.stderr
    assert last(refused)["refused"] == 1
    assert "there is no model fraud/v77" in unknown.stderr
    assert "--share" in no_share.stderr
    assert {d["model_version"] for d in decisions_of(stack)} == {"v4"}
    assert decisions_of(stack, "shadow-decisions") == []
