"""``proact explain`` over a lake that the archiver's code filled, and its pure part over whatever is wrong with a decision."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from services.auditor.explanation import DecisionCase, explain
from services.checker.evidence import DECISIONS, INPUTS, Seen
from services.cli.explain import explain as command
from services.cli.options import UserError
from services.codec.records import decode_as_newest, encode_record
from services.codec.schemas import topics
from services.core.features import FEATURES
from tests.auditor.audited import PARTITIONS, One, changed, models, scored
from tests.auditor.test_auditor import FAULTS, of_an_alert, with_a_later_one
from tests.lake.filling import fill_values
from tests.worker.memory_system import KAFKA_TIMESTAMP_MS

Decision = dict[str, Any]


def decision_at(at: int, decisions: Any = None) -> Decision:
    return decode_as_newest((decisions or scored()[1])[at][3] or b"")[1]


def case_of(decision: Decision, *, past_known: bool = True) -> DecisionCase:
    mine = [
        (Seen(p, offset, KAFKA_TIMESTAMP_MS, key, None), decode_as_newest(value or b"")[1])
        for p, offset, key, value in scored()[0]
        if p == decision["source_partition"] and key == decision["card_id"].encode()
    ]
    made = DecisionCase.of(decision, mine, past_known=past_known, conditions={})
    assert made is not None
    return made


def filled(folder: Path, decisions: Any = None, transactions: Any = None) -> Path:
    """Fill a lake with a run's records."""
    for topic, ones in ((INPUTS, transactions or scored()[0]), (DECISIONS, decisions or scored()[1])):
        by_partition: dict[int, list[tuple[int, bytes | None]]] = {}
        for p, offset, _, value in ones:
            by_partition.setdefault(p, []).append((offset, value))
        fill_values(folder, topic, by_partition)
    return folder


def run(folder: Path | str, *arguments: str) -> Result:
    environment = {
        "PROACT_LAKE_URL": str(folder),
        "PROACT_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "PROACT_KAFKA_SOCKET_TIMEOUT_MS": "",
    }
    return CliRunner(env=environment).invoke(command, [*arguments], standalone_mode=False)


def test_every_decision_of_a_run_is_equal_step_by_step():
    for at in range(len(scored()[1])):
        decision = decision_at(at)
        found = explain(case_of(decision), models().scoring)

        assert (found["verdict"], found["differs"]) == ("EQUAL", [])
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert [one["name"] for one in found["features"]] == [one.name for one in FEATURES]
        assert all(one["definition"] for one in found["features"])
        assert {one["name"] for one in found["features"] if one["source"] == "made again"} == {
            one.name for one in FEATURES if one.entity in ("card", "transaction")
        }
        assert found["score"]["again"] == decision["score"]
        assert (found["score"]["action"], found["score"]["source"]) == (decision["action"], decision["decided_by"])


@pytest.mark.parametrize("name", FAULTS)
def test_what_differs_is_said_for_each_fault(name: str):
    change, _, _ = FAULTS[name]
    at = with_a_later_one()
    wrong = decode_as_newest(changed(scored()[1], at, change)[at][3] or b"")[1]

    found = explain(case_of(wrong), models().scoring)

    assert found["verdict"] == "DIFFERENT"
    assert found["differs"]
    json.dumps(found, allow_nan=False)


def test_without_the_past_what_depends_on_it_is_not_compared_and_a_score_is():
    wrong = decision_at(with_a_later_one())
    names = [one.name for one in FEATURES]
    wrong["features"][names.index("card_count_1h")] += 1.0
    unknown = explain(case_of(wrong, past_known=False), models().scoring)

    assert not any("card_count_1h" in one for one in unknown["differs"])
    assert any("card_count_1h" in one for one in explain(case_of(wrong), models().scoring)["differs"])


def test_a_lake_is_enough_and_people_and_machines_read_the_same(tmp_path: Path):
    folder, decision = filled(tmp_path), decision_at(of_an_alert())
    said = run(folder, str(uuid.UUID(bytes=decision["transaction_id"])))
    place = f"{decision['source_partition']}/{decision['source_offset']}"
    by_place = run(folder, place, "--json")

    assert (said.exception, said.return_value) == (None, 0), said.output
    *_, verdict, last = said.stdout.strip().splitlines()
    assert verdict == "EQUAL"
    assert json.loads(last) == json.loads(by_place.stdout)
    assert json.loads(last)["transaction"]["place"] == place
    assert json.loads(last)["past_known"]
    for step in ("1. profile", "2. features", "3. release", "4. score", "5. thresholds", "6. rules", "9. action"):
        assert step in said.stdout
    assert "equal to the bit" in said.stdout
    assert decision["reasons"][0]["text"] in said.stdout


def test_a_wrong_decision_in_the_lake_is_different_and_says_in_what(tmp_path: Path):
    at = with_a_later_one()
    decisions = changed(scored()[1], at, FAULTS["a score, by the last bit"][0])
    decision = decision_at(at)

    found = run(filled(tmp_path, decisions), str(uuid.UUID(bytes=decision["transaction_id"])), "--json")

    assert found.return_value == 1
    assert json.loads(found.stdout)["verdict"] == "DIFFERENT"
    assert not json.loads(found.stdout)["score"]["equal"]


def test_a_lake_that_begins_late_says_that_the_past_is_not_known(tmp_path: Path):
    begins = {p: sum(one[0] == p for one in scored()[0]) // 2 for p in range(PARTITIONS)}
    late: list[One] = [one for one in scored()[0] if one[1] >= begins[one[0]]]
    decision = next(
        one
        for one in (decision_at(at) for at in range(len(scored()[1])))
        if one["source_offset"] > begins[one["source_partition"]] + 5
    )

    # Kafka got all of them at one moment, long after their events.
    found = run(filled(tmp_path, transactions=late), str(uuid.UUID(bytes=decision["transaction_id"])))

    assert not json.loads(found.stdout.strip().splitlines()[-1])["past_known"]
    assert "does not reach back far enough" in found.stdout


def test_of_a_repeat_the_first_decision_is_meant_and_a_place_names_any(tmp_path: Path):
    again = decision_at(with_a_later_one())
    later = again | {"repeat": True, "source_offset": again["source_offset"] + 1}
    decisions = list(scored()[1])
    value = encode_record(topics()[DECISIONS].latest, later)
    decisions.append((0, 1_000, again["card_id"].encode(), value))

    found = run(filled(tmp_path, decisions), str(uuid.UUID(bytes=again["transaction_id"])), "--json")

    assert json.loads(found.stdout)["transaction"]["place"].endswith(f"/{again['source_offset']}")


def whole(folder: Path) -> str:
    return str(filled(folder))


def without_its_transaction(folder: Path) -> str:
    return str(filled(folder, transactions=[one for one in scored()[0] if one[1] > 15]))


MISTAKES: dict[str, tuple[str, Callable[[Path], str], str]] = {
    "an id that nobody has": ("8a6e0804-2bd0-4672-b79d-d97027f9071a", whole, "the lake: not there, or no more"),
    "a place that nothing lies at": ("1/999999", whole, "the lake: not there, or no more"),
    "no id at all": ("card-000123", whole, "neither a transaction's id"),
    "a card number": ("4111" * 4, whole, "neither a transaction's id"),
    "a lake that is not there": ("1/1", lambda folder: str(folder / "nothing"), "is no folder"),
    "a lake without the table": ("1/1", str, "has no tables"),
    "a decision whose transaction is gone": ("OLD", without_its_transaction, "the lake: not there, or no more"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_or_what_is_gone_is_one_clear_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.checker.evidence.ASK_S", 0.5)
    asked, make, says = MISTAKES[name]
    folder = make(tmp_path)
    if asked == "OLD":
        old = next(d for d in (decision_at(at) for at in range(60)) if d["source_offset"] < 10)
        asked = str(uuid.UUID(bytes=old["transaction_id"]))

    done = run(folder, asked)

    assert isinstance(done.exception, UserError), done.exception
    assert says in done.exception.message
    assert "\n" not in done.exception.message
    assert "4111411141114111" not in done.exception.message
