"""Which versions of rule sets are taken: each follows the last, and is never changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.codec.rule_sets import NO_RULES, VERSIONS_MAX, live_record, saved_record
from services.core.policy import Action
from services.core.rules.rule_set import Rule, RuleSet
from services.runtime.rule_sets import RuleSetLog


def saved(version: int, when: str = "true") -> bytes:
    return saved_record(version, RuleSet((Rule("a", when, Action.REVIEW),)), "ana", 1)[1]


def live(version: int) -> bytes:
    return live_record(version, "ana", 2)[1]


@pytest.mark.parametrize("version", [-5, 0, 3, 1_000, VERSIONS_MAX + 1, 2**63 - 1, -(2**63)])
def test_a_version_beyond_its_range_or_that_jumps_does_not_go_live(version):
    log = RuleSetLog()
    log.add([saved(1), live(1), saved(version), live(version)])

    if version != NO_RULES:
        assert log.live == 1
        assert log.refused is not None
        assert log.refused[0] == version
        assert "follow" in log.refused[1] or "between" in log.refused[1]
    assert sorted(log.saved) == [1]
    assert log.newest == 1


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
def test_versions_have_no_gaps_whatever_is_written(events):
    log = RuleSetLog()
    log.add([saved(version) if save else live(version) for save, version in events])

    assert sorted(log.saved) == list(range(1, len(log.saved) + 1))
    assert log.live == NO_RULES or log.live in log.saved
