"""Which versions of rule sets are taken: each once, in whatever order a compacted topic gives them; and who saves one at the same time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.codec.rule_sets import NO_RULES, VERSIONS_MAX, live_record, saved_record
from services.core.policy import Action
from services.core.rules.rule_set import Rule, RuleSet
from services.decision.rule_sets import RuleSetLog
from services.rulebook import book
from services.rulebook.book import Rulebook
from services.runtime.clock import ManualClock
from services.streams import StreamsError


def rules(when: str) -> RuleSet:
    return RuleSet((Rule("a", when, Action.REVIEW),))


def saved(version: int, when: str = "true") -> bytes:
    return saved_record(version, rules(when), "ana", 1)[1]


def live(version: int) -> bytes:
    return live_record(version, "ana", 2)[1]


@pytest.mark.parametrize("version", [-5, 0, VERSIONS_MAX + 1, 2**63 - 1, -(2**63)])
def test_a_version_beyond_its_range_does_not_go_live(version):
    log = RuleSetLog()
    log.add([saved(1), live(1), saved(version), live(version)])

    if version != NO_RULES:
        assert log.live == 1
        assert log.refused is not None
        assert log.refused[0] == version
        assert "between" in log.refused[1]
    assert sorted(log.saved) == [1]
    assert log.newest == 1


@given(st.permutations([saved(1), saved(2), saved(3), live(3)]))
def test_what_is_left_of_a_compacted_topic_is_read_in_any_order(values):
    """A version that was written again lies behind later ones, and behind what says that it is live."""
    log = RuleSetLog()
    log.add(values)

    assert sorted(log.saved) == [1, 2, 3]
    assert (log.live, log.refused) == (3, None)


def test_what_was_put_live_later_is_not_undone_by_a_record_that_was_waited_for():
    log = RuleSetLog()
    log.add([saved(1), live(2), live(1), saved(2)])

    assert (log.live, log.refused) == (1, None)


def test_very_many_that_are_not_taken_are_reported_in_a_few_lines(caplog):
    log = RuleSetLog()
    log.add([saved(1), *(saved(1, f"transaction.amount > {i}") for i in range(500))])

    assert len(caplog.records) == 1


class Topic:
    """The topic, and in place of the classes those that read and write it."""

    def __init__(self) -> None:
        self.values: list[tuple[bytes, bytes]] = []

    def __call__(self, *_: Any, **__: Any) -> Topic:
        return self

    def send(self, topic: str, keys: list[bytes], values: list[bytes]) -> None:  # noqa: ARG002
        self.values += zip(keys, values, strict=True)

    def flush(self, timeout_s: float) -> bool:  # noqa: ARG002
        return True

    def close(self) -> None:
        pass

    def compacted(self) -> list[bytes]:
        return [v for i, (k, v) in enumerate(self.values) if k not in [key for key, _ in self.values[i + 1 :]]]


def test_of_two_who_save_at_once_the_first_has_the_version_and_the_other_is_reported(monkeypatch):
    topic = Topic()
    monkeypatch.setattr(book, "KafkaReader", topic)
    monkeypatch.setattr(book, "KafkaSink", topic)
    monkeypatch.setattr(book, "read_all", lambda _: [value for _, value in topic.values])
    ana, ben, kim = [Rulebook(None, ManualClock(5)) for _ in range(3)]

    assert ana.save(rules("true"), "ana") == 1
    assert ana.save(rules("true"), "ana") == 1
    with pytest.raises(StreamsError, match="ana has just saved other rules as version 1"):
        ben.save(rules("false"), "ben")
    assert kim.save(rules("true"), "kim") == 1, "the same rules are no other ones"

    late = RuleSetLog()
    late.add(topic.compacted())
    assert late.saved[1]["rules"][0]["when"] == "true", "whoever begins later runs the same"
    assert ben.save(rules("false"), "ben") == 2


def test_a_good_version_after_a_refused_one_goes_live():
    log = RuleSetLog()
    log.add([saved(1), live(1), saved(2**63 - 1), live(2**63 - 1), saved(2), live(2)])

    assert (log.live, log.refused, log.newest) == (2, None, 2)


def test_a_version_is_never_changed_and_a_repeat_of_it_does_not_matter():
    log = RuleSetLog()
    log.add([saved(1), live(1), saved(1), saved(1, "transaction.amount > 1"), live(1)])

    assert log.saved[1]["rules"][0]["when"] == "true"
    assert (log.live, log.refused) == (1, None)


def test_no_rules_can_be_live():
    log = RuleSetLog()
    log.add([saved(1), live(1), live(NO_RULES)])

    assert (log.live, log.refused) == (NO_RULES, None)


@given(st.lists(st.tuples(st.booleans(), st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 6)), max_size=30))
def test_only_what_was_saved_is_live_whatever_is_written(events):
    log = RuleSetLog()
    log.add([saved(version) if save else live(version) for save, version in events])

    assert set(log.saved) == {version for save, version in events if save and 1 <= version <= VERSIONS_MAX}
    assert log.live == NO_RULES or log.live in log.saved
