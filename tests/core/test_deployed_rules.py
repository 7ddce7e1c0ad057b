"""The example of a rule set names features: where one is changed or goes, this says which rule to change with it."""

from __future__ import annotations

from pathlib import Path

import yaml

from services.core.features import FEATURE_NAMES
from services.core.rules.rule_set import RuleInRuleSetError, read_rule_set

RULES = Path(__file__).parents[2] / "deploy" / "rules.yaml"


def test_every_rule_of_the_example_names_what_there_is():
    try:
        found = read_rule_set(yaml.safe_load(RULES.read_text()))
    except RuleInRuleSetError as error:
        hint = f" ({error.hint})" if error.hint else ""
        raise AssertionError(
            f"deploy/rules.yaml: {error}{hint}. A changed feature has another name: change the rule with it, "
            "and the rule sets that are live (`proact rules show`), before its model goes live"
        ) from None

    assert len(found.rules) > 3


def test_the_example_uses_features_of_cards_and_of_terminals():
    named = RULES.read_text()
    used = [name for name in FEATURE_NAMES if name.replace("_", ".", 1) in named]

    assert {name.split("_")[0] for name in used} >= {"card", "terminal"}
