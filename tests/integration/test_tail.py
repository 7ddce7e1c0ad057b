"""``proact tail`` on a real Kafka: since when, of which card, how severe."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path

import pytest

from services.codec.records import encode_record
from services.codec.schemas import topics
from services.streams.sink import KafkaSink
from tests.cli.running import run

EXAMPLE = json.loads((Path(__file__).parents[2] / "schemas/card-alerts/examples/review.json").read_text())
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def alerts(stack) -> dict[str, str]:
    """Alerts of five hours: of two cards, of every severity; returns what the command line needs to find them, and the cards."""
    now_ms, tag = time.time_ns() // 1_000_000, uuid.uuid4().hex[:8]
    sink = KafkaSink(stack.kafka_connection)
    for at, severity in enumerate(("LOW", "MEDIUM", "HIGH", "HIGH", "LOW")):
        card = f"card-{tag}-{at % 2}"
        reported = EXAMPLE | {"card_id": card, "severity": severity, "kind": "DECLINE" if at == 4 else "FRAUD"}
        reported |= {name: uuid.uuid4().bytes for name in ("decision_id", "transaction_id")}
        stamp = now_ms - (5 - at) * HOUR_MS + HOUR_MS // 2
        reported |= {"event_time_ms": stamp - 7}
        sink.send_at("card-alerts", [card.encode()], [encode_record(topics()["card-alerts"].latest, reported)], [stamp])
    assert sink.flush(20)
    sink.close()
    return {"PROACT_KAFKA_BOOTSTRAP_SERVERS": stack.kafka_address, "tag": tag}


def shown(proact, alerts: dict[str, str], *arguments: str) -> list[dict]:
    done = run(proact, "tail", "card-alerts", "--json", "--seconds", "4", *arguments, **alerts)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    mine = [one for one in found if alerts["tag"] in one["card_id"]]
    return sorted(mine, key=lambda one: one["event_time_ms"])


def test_alerts_are_shown_since_a_moment_and_from_then_on(proact, alerts):
    assert len(shown(proact, alerts, "--from-beginning")) == 5
    assert [one["severity"] for one in shown(proact, alerts, "--since", "3h")] == ["HIGH", "HIGH", "LOW"]
    assert [one["severity"] for one in shown(proact, alerts, "--since", "10m")] == []


def test_alerts_are_chosen_by_card_severity_and_kind(proact, alerts):
    card = f"card-{alerts['tag']}-0"
    of_card = shown(proact, alerts, "--since", "1d", "--card", card)
    assert [one["severity"] for one in of_card] == ["LOW", "HIGH", "LOW"]
    assert {one["card_id"] for one in of_card} == {card}
    some = shown(proact, alerts, "--since", "1d", "--severity", "MEDIUM", "--severity", "HIGH")
    assert [one["severity"] for one in some] == ["MEDIUM", "HIGH", "HIGH"]
    assert [one["kind"] for one in shown(proact, alerts, "--since", "1d", "--kind", "DECLINE")] == ["DECLINE"]


def test_the_limit_counts_what_is_shown(proact, alerts):
    card = f"card-{alerts['tag']}-1"
    done = run(proact, "tail", "card-alerts", "--from-beginning", "--card", card, "--limit", "1", **alerts)

    [line] = done.stdout.splitlines()
    assert card in line
    assert line.split()[0].endswith("Z")
    assert uuid.UUID(line.split()[1])
