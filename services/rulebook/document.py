"""A saved rule set as the document that people write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.core.rules.rule_set import PERCENT


def document_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what, read again, gives the same rule set; what is as if left out is left out."""
    rules = []
    for rule in record["rules"]:
        one = {"id": rule["rule_id"], "when": rule["when"], "action": rule["action"]}
        if rule["priority"]:
            one["priority"] = rule["priority"]
        if rule["mode"] != "LIVE":
            one["mode"] = rule["mode"].lower()
        if rule["percentage"] != PERCENT:
            one["percentage"] = rule["percentage"]
        if rule["reason"]:
            one["reason"] = rule["reason"]
        if rule["no_control"]:
            one["no_control"] = True
        rules.append(one)
    lists = {
        one["name"]: {
            "of": one["kind"],
            "entries": [
                entry["value"]
                if entry["until_ms"] is None
                else {"value": entry["value"], "until_ms": entry["until_ms"]}
                for entry in one["entries"]
            ],
        }
        for one in record["lists"]
    }
    return {"rules": rules, "lists": lists} if lists else {"rules": rules}
