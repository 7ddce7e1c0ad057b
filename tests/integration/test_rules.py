"""Rules on a real Kafka with running scorers: live within two seconds, named in decisions, taken back, refused."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request

import pytest

from services.codec.records import decode_record, encode_record
from services.codec.rule_sets import LIVE_KEY, RULE_SETS
from services.codec.schemas import topics
from services.streams.sink import KafkaSink
from tests.integration.system import judged, produce, read_all, scorers, traffic_of, wait_drained, wait_until

RULES = """
rules:
  - id: allow-trusted
    when: transaction.card_id in lists.trusted
    action: APPROVE
    priority: 100
  - id: block-large
    when: transaction.amount > 150
    action: BLOCK
    priority: 10
    reason: more than 150
  - id: shadow-all
    when: "true"
    action: REVIEW
    mode: shadow
lists:
  trusted:
    entries: [%s]
"""


def decisions_of(stack) -> list[dict]:
    return [decode_record(value or b"")[1] for _, _, _, value in read_all(stack, "card-decisions")]


@pytest.fixture
def rules(proact, tmp_path):
    def call(stack, *arguments: str) -> subprocess.CompletedProcess[str]:
        servers = [] if arguments[0] in ("check", "names") else ["--kafka-bootstrap-servers", stack.kafka_address]
        if arguments[0] in ("apply", "rollback") and "--four-eyes" not in arguments:
            servers += ["--four-eyes", "false"]
        said = [*proact, "rules", *arguments, *servers]
        return subprocess.run(said, capture_output=True, text=True, check=False, timeout=120)

    return call


def test_rules_go_live_in_every_worker_and_are_taken_back(own_stack, tmp_path, rules):
    stack, traffic = own_stack(), traffic_of(3_000, cards=100)
    trusted = traffic.columns.card_id.tolist()[0].decode()
    file = tmp_path / "rules.yaml"
    file.write_text(RULES % trusted)
    with scorers(stack, tmp_path, 2) as children:
        for child in children:
            child.wait_ready()
        applied = rules(stack, "apply", str(file), "--author", "ana")
        reported = json.loads(applied.stdout.splitlines()[-1])
        status = json.loads(rules(stack, "status", "--json").stdout)
        produce(stack, traffic)
        wait_drained(stack)
        back = rules(stack, "rollback")
        produce(stack, traffic_of(500, cards=100, seed=8))
        wait_drained(stack)

    assert applied.returncode == 0, applied.stderr
    assert (reported["version"], reported["workers"], reported["waiting"]) == (1, 2, 0)
    assert (status["live"], [worker["version"] for worker in status["workers"]]) == (1, [1, 1])
    assert json.loads(back.stdout.splitlines()[-1])["version"] == 0
    decisions = decisions_of(stack)
    with_rules = [d for d in decisions if d["rule_set_version"] == 1]
    assert len(with_rules) == 3_000
    for decision in with_rules:
        effects = {rule["rule_id"]: rule["effect"] for rule in decision["rules"]}
        large, known = decision["features"][0] > 150, decision["card_id"] == trusted
        assert effects["shadow-all"] == "RECORDED"
        assert ("allow-trusted" in effects, "block-large" in effects) == (known, large)
        if known:
            assert (decision["action"], effects["allow-trusted"]) == ("APPROVE", "DECIDED")
        elif large:
            assert (decision["action"], effects["block-large"]) == ("BLOCK", "DECIDED")
    alerts = [decode_record(value or b"")[1] for _, _, _, value in read_all(stack, "card-alerts")]
    assert any(rule["reason"] == "more than 150" for alert in alerts for rule in alert["rules"])
    limits = [c["amount_minor"] for d in with_rules for c in d["counterfactuals"] if d["features"][0] > 150]
    assert limits
    assert max(limit for limit in limits if limit is not None) <= 15_000
    assert all(d["rules"] == [] for d in decisions if d["rule_set_version"] is None)
    assert sum(d["rule_set_version"] is None for d in decisions) == 500
    assert judged(stack)["verdict"] == "ok"


def test_a_worker_that_starts_late_runs_what_is_live_and_says_goodbye(own_stack, tmp_path, rules):
    stack = own_stack()
    file = tmp_path / "rules.yaml"
    file.write_text(RULES % "nobody")
    applied = rules(stack, "apply", str(file), "--wait-s", "1")
    nobody = json.loads(applied.stdout.splitlines()[-1])
    assert (nobody["version"], nobody["workers"]) == (1, 0)
    assert applied.returncode == 3
    assert "no scorer runs" in applied.stderr
    ahead = rules(stack, "apply", str(file), "--no-wait")
    assert json.loads(ahead.stdout.splitlines()[-1])["version"] == 1  # it is the same
    assert ahead.returncode == 0, ahead.stderr
    assert "nobody was waited for" in ahead.stderr

    with scorers(stack, tmp_path) as [child]:
        child.wait_ready()
        wait_until(lambda: json.loads(rules(stack, "status", "--json").stdout)["workers"], 20, "it is heard")
        shown = rules(stack, "show")
        file.write_text(shown.stdout.replace("150", "100"))
        second = rules(stack, "apply", str(file))
        back = rules(stack, "rollback")
        begin_s = time.monotonic()
        status = rules(stack, "status")
        with urllib.request.urlopen(f"http://127.0.0.1:{child.settings.metrics_port}/metrics", timeout=5) as answer:
            shown_metrics = answer.read().decode()
    assert json.loads(second.stdout.splitlines()[-1])["version"] == 2
    assert json.loads(back.stdout.splitlines()[-1]) == {
        "version": 1, "workers": 1, "waiting": 0, "took_s": json.loads(back.stdout.splitlines()[-1])["took_s"],
    }  # fmt: skip
    assert "version 1 is live" in status.stdout
    assert "\nproact_rule_set_version 1.0" in shown_metrics
    assert "\nproact_rule_set_refused 0.0" in shown_metrics
    assert "runs 1" in status.stdout
    assert time.monotonic() - begin_s < 30
    assert json.loads(rules(stack, "status", "--json").stdout)["workers"] == []


def test_a_rule_set_goes_live_when_another_person_approves_it(own_stack, tmp_path, rules):
    stack, file = own_stack(), tmp_path / "rules.yaml"
    file.write_text(RULES % "nobody")

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return rules(stack, *arguments, "--four-eyes", "true")

    with scorers(stack, tmp_path) as [child]:
        child.wait_ready()
        asked = call("apply", str(file), "--author", "ana")
        before = json.loads(rules(stack, "status", "--json").stdout)
        alone = call("approve", "1", "--author", "ana")
        unknown = call("approve", "7", "--author", "bo")
        done = call("approve", "1", "--author", "bo")
        file.write_text(RULES % "somebody")
        call("apply", str(file), "--author", "ana")
        file.write_text(RULES % "anybody")
        call("apply", str(file), "--author", "ana")
        never = call("rollback", "--to", "2")
        call("approve", "3", "--author", "bo")
        back = call("rollback", "--author", "ana")

    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout.splitlines()[-1]) == {"version": 1, "waits_for_approval": True}
    assert (before["live"], before["saved"]) == (0, [1])
    assert "another person approves it" in alone.stderr
    assert "version 7 was never saved" in unknown.stderr
    assert json.loads(done.stdout.splitlines()[-1])["workers"] == 1
    assert "version 2 was never live" in never.stderr
    assert json.loads(back.stdout.splitlines()[-1])["version"] == 1, "2 was never approved"


def test_a_version_that_cannot_be_run_leaves_the_one_before_and_is_reported(own_stack, tmp_path, rules):
    stack = own_stack()
    file = tmp_path / "rules.yaml"
    file.write_text(RULES % "nobody")
    with scorers(stack, tmp_path) as [child]:
        child.wait_ready()
        rules(stack, "apply", str(file))
        rule = {
            "rule_id": "later", "when": "feature.of_a_later_release > 1", "action": "BLOCK", "priority": 0, "mode": "LIVE",
            "percentage": 100, "reason": "", "no_control": False,
        }  # fmt: skip
        event = {"version": 2, "at_ms": 1, "author": "x", "rules": [], "lists": [], "approved_by": None}
        schema, sink = topics()[RULE_SETS].latest, KafkaSink(stack.kafka_connection)
        sink.send(RULE_SETS, [b"2"], [encode_record(schema, {**event, "kind": "SAVED", "rules": [rule]})])
        sink.send(
            RULE_SETS, [LIVE_KEY, b"x"], [encode_record(schema, {**event, "kind": "LIVE"}), b"no rule set at all"]
        )
        assert sink.flush(10)
        sink.close()
        wait_until(
            lambda: json.loads(rules(stack, "status", "--json").stdout)["workers"][0]["refused_version"] == 2,
            20,
            "reported",
        )
        status = rules(stack, "status")
        produce(stack, traffic_of(200, cards=20))
        wait_drained(stack)

    assert "not the live one" in status.stdout
    assert "there is nothing called feature.of_a_later_release" in status.stdout
    assert {d["rule_set_version"] for d in decisions_of(stack)} == {1}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rules: [", "is not YAML"),
        ("rules:\n- {id: a, when: 'transaction.amonut > 5', action: BLOCK}", "did you mean transaction.amount?"),
        ("rules:\n- {id: a, when: 'true', action: DENY}", "an action is one of"),
    ],
)
def test_a_wrong_file_is_refused_in_words(tmp_path, rules, text, says):
    (tmp_path / "rules.yaml").write_text(text)

    done = rules(None, "check", str(tmp_path / "rules.yaml"))

    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_rules_are_tried_on_history(tmp_path, proact):
    (tmp_path / "rules.yaml").write_text(RULES % "nobody")

    done = subprocess.run(
        [*proact, "rules", "backtest", str(tmp_path / "rules.yaml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    large = next(rule for rule in found["rules"] if rule["name"] == "block-large")
    assert large["hits"] > large["frauds"] > 0
    assert found["with_rules"]["recall"] >= found["model_alone"]["recall"]
