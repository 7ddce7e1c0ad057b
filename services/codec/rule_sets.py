"""Rule sets and what workers say of them, as records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.codec.records import encode_written
from services.core.policy import Action
from services.core.rules.rule_set import Entry, Mode, Rule, RuleList, RuleSet, kind_name, kind_of

RULE_SETS: Final = "rule-sets"
ACKS: Final = "rule-set-acks"
LIVE_KEY: Final = b"live"
NO_RULES: Final = 0
"""The version that stands for no rules at all."""
VERSIONS_MAX: Final = 1_000_000
"""A version a minute for two years: more are a mistake, and must not use all numbers up."""


@dataclass(frozen=True, slots=True)
class RuleSetAck:
    """What one worker runs."""

    worker: str
    version: int
    since_ms: int
    heard_ms: int
    refused_version: int | None = None
    error: str | None = None

    def record(self) -> tuple[bytes, bytes]:
        """Return the key and the value of the record."""
        value = {name: getattr(self, name) for name in self.__slots__}
        return self.worker.encode(), encode_written(ACKS, value)


def saved_record(version: int, rule_set: RuleSet, author: str, at_ms: int) -> tuple[bytes, bytes]:
    """Return key and value of the record that saves a version."""
    value = _event("SAVED", version, author, at_ms) | rule_set_fields(rule_set)
    return b"%d" % version, encode_written(RULE_SETS, value)


def approved_record(saved: Mapping[str, Any], person: str) -> tuple[bytes, bytes]:
    """Return key and value of the record that says who put a saved version live."""
    return b"%d" % saved["version"], encode_written(RULE_SETS, {**saved, "approved_by": person})


def live_record(version: int, author: str, at_ms: int) -> tuple[bytes, bytes]:
    """Return key and value of the record that says which version is live."""
    return LIVE_KEY, encode_written(RULE_SETS, _event("LIVE", version, author, at_ms))


def _event(kind: str, version: int, author: str, at_ms: int) -> dict[str, Any]:
    return {
        "kind": kind,
        "version": version,
        "at_ms": at_ms,
        "author": author,
        "rules": [],
        "lists": [],
        "approved_by": None,
    }


def rule_set_fields(rule_set: RuleSet) -> dict[str, Any]:
    """Return a rule set's fields as Avro has them."""
    return {
        "rules": [
            {
                "rule_id": rule.rule_id, "when": rule.when, "action": rule.action.name, "priority": rule.priority,
                "mode": rule.mode.name, "percentage": rule.percentage, "reason": rule.reason,
                "no_control": rule.no_control,
            }
            for rule in rule_set.rules
        ],
        "lists": [
            {
                "name": one.name,
                "kind": kind_name(one.kind),
                "entries": [{"value": entry.value, "until_ms": entry.until_ms} for entry in one.entries],
            }
            for one in rule_set.lists
        ],
    }  # fmt: skip


def rule_set_of(record: Mapping[str, Any]) -> RuleSet:
    """Return the rule set of a SAVED record. Raises RuleError."""
    rules = tuple(
        Rule(
            one["rule_id"], one["when"], Action[one["action"]], one["priority"], Mode[one["mode"]],
            one["percentage"], one["reason"], one["no_control"],
        )
        for one in record["rules"]
    )  # fmt: skip
    lists = tuple(
        RuleList(one["name"], kind_of(one["kind"]), tuple(Entry(e["value"], e["until_ms"]) for e in one["entries"]))
        for one in record["lists"]
    )
    return RuleSet(rules, lists)
