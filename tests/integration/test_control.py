"""A control group on a real Kafka: what it lets through is proved by the checker, who decides by itself what should have been done."""

from __future__ import annotations

from services.codec.records import decode_record
from tests.integration.system import judged, produce, read_all, services, traffic_of, wait_drained, wait_saved


def test_what_the_control_group_lets_through_is_marked_and_proved(own_stack, tmp_path):
    stack = own_stack()
    share = {"control_share": 0.5, "control_amount_max": 1e6}
    with services(stack, tmp_path, ["scorer", "profiler", "router"], **share) as children:
        for child in children:
            child.wait_ready()
        produce(stack, traffic_of(6_000, cards=500))
        wait_drained(stack)
        wait_saved(stack)
        wait_drained(stack, group="proact-profiler", topic="terminal-events")
        wait_saved(stack, "proact-profiler", "terminal-events")
        verdict = judged(stack)

    assert verdict["verdict"] == "ok", verdict
    decisions = [decode_record(value or b"")[1] for _, _, _, value in read_all(stack, "card-decisions")]
    could = [d for d in decisions if d["control_propensity"] is not None]
    let_through = [d for d in could if d["control_action"] is not None]
    assert len(could) > 20
    assert 0.2 < len(let_through) / len(could) < 0.8
    assert {d["action"] for d in let_through} == {"APPROVE"}
    assert "APPROVE" not in {d["control_action"] for d in let_through}
    assert {d["action"] for d in could if d["control_action"] is None} & {"CHALLENGE", "REVIEW", "BLOCK"}
