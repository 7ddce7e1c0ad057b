"""Which workers count when a rule set goes live."""

from __future__ import annotations

from services.codec.rule_sets import RuleSetAck
from services.rulebook.book import SILENT_AFTER_S, _sorted_out

NOW_MS = 1_767_225_600_000
GONE_MS = NOW_MS - round(1000 * SILENT_AFTER_S)


def test_a_worker_that_went_without_a_word_counts_for_nothing_whatever_it_ran():
    acks = [
        RuleSetAck("runs", 2, NOW_MS, NOW_MS - 1),
        RuleSetAck("ran", 2, GONE_MS, GONE_MS),
        RuleSetAck("refused", 1, GONE_MS, GONE_MS, 2, "because"),
        RuleSetAck("refuses", 1, NOW_MS, NOW_MS, 2, "because"),
        RuleSetAck("waits", 1, NOW_MS, NOW_MS),
        RuleSetAck("waited", 1, GONE_MS, GONE_MS),
    ]

    found = _sorted_out(acks, 2, NOW_MS)

    assert (found.running, found.refused, found.waiting) == (["runs"], {"refuses": "because"}, ["waits"])
    assert found.heard == ["runs", "waits", "refuses"]
